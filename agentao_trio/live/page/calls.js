// What the page knows of each call: the folded call object, its recent events, and its quality over time.
//
// Events only change the model and mark calls as dirty; drawing happens once per frame, however many events came.

import { Fold } from "./fold.js";
import { isPoor, moment } from "./format.js";

/** Samples of quality kept per call: ten minutes at one a second. */
const SERIES = 600;
/** Events kept per call. */
const LOG = 400;
/** For how long, and how many of, the calls that are over are kept. */
const ENDED_MS = 15 * 60_000;
const ENDED_MOST = 200;

/** Repeated every second, or many times a second: not for the log. */
const NOT_LOGGED = new Set(["quality_update", "transcript_update"]);

/** One call, and what came with its updates. */
class Entry {
  constructor(sid) {
    this.sid = sid;
    this.call = { callSid: sid };
    /** [{at, mos, jitterMs, lossPct}], oldest first. */
    this.series = [];
    /** [{seq, at, type, data}], by number. */
    this.log = [];
    this.endedAt = 0;
  }

  get over() {
    return Boolean(this.call.endTime);
  }

  get hasAI() {
    return Boolean(this.call.ai) && this.call.ai.status !== "none";
  }

  get poor() {
    return isPoor(this.call.metrics);
  }

  measure(metrics, at) {
    if (!metrics) return;
    const sample = { at, mos: metrics.mos ?? NaN, jitterMs: metrics.jitterMs ?? NaN, lossPct: metrics.packetLossPct ?? NaN };
    this.series.push(sample);
    if (this.series.length > SERIES) this.series.splice(0, this.series.length - SERIES);
  }

  /** Take in samples of before this page listened: [[at, mos, jitterMs, lossPct], …]. */
  remember(samples) {
    const known = new Map(samples.map(([at, mos, jitterMs, lossPct]) => [at, { at, mos: mos ?? NaN, jitterMs: jitterMs ?? NaN, lossPct: lossPct ?? NaN }]));
    for (const sample of this.series) known.set(sample.at, sample);
    this.series = [...known.values()].sort((a, b) => a.at - b.at).slice(-SERIES);
  }

  note(envelope) {
    if (NOT_LOGGED.has(envelope.type)) return;
    const { log } = this;
    let place = log.length;
    while (place && log[place - 1].seq > envelope.seq) place -= 1;
    if (place && log[place - 1].seq === envelope.seq) return;
    const { seq, timestamp, type, data } = envelope;
    log.splice(place, 0, { seq, at: moment(timestamp), type, data: data ?? {} });
    if (log.length > LOG) log.shift();
  }
}

export class Calls {
  #fold = new Fold();
  #entries = new Map();
  #onGap;
  #epoch = "";
  /** Sids of the calls that changed since the last frame. */
  dirty = new Set();
  /** Sids of the calls that are gone since then. */
  gone = new Set();
  /** Server's clock minus this machine's, in milliseconds. */
  skew = 0;

  /** `onGap()` is called where numbers are missing. */
  constructor(onGap) {
    this.#onGap = onGap;
  }

  get(sid) {
    return this.#entries.get(sid);
  }

  /** Every entry, in the order in which the calls became known. */
  all() {
    return this.#entries.values();
  }

  /** The server's time, in Unix milliseconds. */
  now() {
    return Date.now() + this.skew;
  }

  /** `active_calls`: the state. Returns whether it is another server's, so that all that was known is void. */
  snapshot(calls, meta = {}) {
    const serverTime = moment(meta.serverTime);
    if (Number.isFinite(serverTime)) this.skew = serverTime - Date.now();
    this.#fold.snapshot(calls, meta);
    const fresh = this.#enter();
    const known = new Set(calls.map((call) => call.callSid));
    for (const entry of [...this.#entries.values()]) {
      // Its end happened while nobody was listening, and is not told any more.
      if (!known.has(entry.sid) && !entry.over) this.#forget(entry.sid);
    }
    for (const call of calls) this.#take(call.callSid);
    return fresh;
  }

  /** `call_update`: one change of one call. */
  update(envelope) {
    const verdict = this.#fold.update(envelope);
    this.#enter();
    if (verdict === "gap") this.#onGap();
    if (verdict !== "applied") return;
    const entry = this.#take(envelope.callSid);
    entry.note(envelope);
    if (envelope.type === "quality_update") entry.measure(entry.call.metrics, moment(envelope.timestamp));
  }

  /** `call_data` of a call that was subscribed to: all of it, and its recent events. */
  full({ callSid, data, events = [], quality = [] }) {
    this.#fold.call(callSid, data);
    const entry = this.#take(callSid);
    for (const envelope of events) entry.note(envelope);
    if (quality.length) entry.remember(quality);
  }

  /** `quality_history`: the last minute's samples, by sid. */
  history(samples) {
    for (const [sid, ofCall] of Object.entries(samples)) {
      if (!this.#entries.has(sid)) continue;
      this.#entries.get(sid).remember(ofCall);
      this.dirty.add(sid);
    }
  }

  /** Let go of calls that have been over for long. To be called now and then. */
  sweep() {
    const over = [...this.#entries.values()].filter((entry) => entry.over).sort((a, b) => b.endedAt - a.endedAt);
    const before = Date.now() - ENDED_MS;
    over.forEach((entry, index) => {
      if (index >= ENDED_MOST || entry.endedAt < before) this.#forget(entry.sid);
    });
  }

  /** How many there are of what; "active" is every call that is not over. */
  counts() {
    const counts = { active: 0, ringing: 0, talking: 0, held: 0, ai: 0, poor: 0, ended: 0 };
    for (const entry of this.#entries.values()) {
      if (entry.over) {
        counts.ended += 1;
        continue;
      }
      counts.active += 1;
      const { status } = entry.call;
      if (status === "ringing" || status === "initiated") counts.ringing += 1;
      else if (status === "on-hold") counts.held += 1;
      else counts.talking += 1;
      if (entry.hasAI && entry.call.ai.status !== "ended") counts.ai += 1;
      if (entry.poor) counts.poor += 1;
    }
    return counts;
  }

  /** Where it is another server's epoch, let go of what was the last one's. Returns whether it is. */
  #enter() {
    if (this.#fold.epoch === this.#epoch) return false;
    this.#epoch = this.#fold.epoch;
    const current = new Map(this.#fold.calls);
    for (const sid of [...this.#entries.keys()]) this.#forget(sid);
    for (const [sid, call] of current) this.#fold.calls.set(sid, call);
    return true;
  }

  #take(sid) {
    let entry = this.#entries.get(sid);
    if (!entry) {
      entry = new Entry(sid);
      this.#entries.set(sid, entry);
      this.gone.delete(sid);
    }
    entry.call = this.#fold.calls.get(sid) ?? entry.call;
    if (entry.over && !entry.endedAt) entry.endedAt = Date.now();
    this.dirty.add(sid);
    return entry;
  }

  #forget(sid) {
    this.#entries.delete(sid);
    this.#fold.calls.delete(sid);
    this.dirty.delete(sid);
    this.gone.add(sid);
  }
}

/** The functions a call's model asked for, from its log: [{callId, name, arguments, phase, output, error, at, seconds}]. */
export function toolsOf(log) {
  const tools = new Map();
  for (const { type, at, data } of log) {
    if (type !== "function_call") continue;
    const tool = tools.get(data.callId) ?? { callId: data.callId, at, startedAt: NaN, seconds: NaN };
    for (const name of ["name", "arguments", "phase", "output", "error"]) if (data[name] !== undefined) tool[name] = data[name];
    if (data.phase === "started") tool.startedAt = at;
    if (["done", "failed", "cancelled"].includes(data.phase)) tool.seconds = data.seconds ?? (at - (tool.startedAt || tool.at)) / 1000;
    tools.set(data.callId, tool);
  }
  return [...tools.values()];
}
