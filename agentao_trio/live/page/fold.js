// The client's rule: what is made of a snapshot and of the events after it. `fold.py` in the Python package is its twin,
// and a test runs both over the same messages.

/** `target` with the merge patch `patch` (RFC 7396); neither is changed. */
export function mergePatch(target, patch) {
  if (!isObject(patch)) return patch;
  const merged = new Map(isObject(target) ? Object.entries(target) : []);
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) merged.delete(name);
    else merged.set(name, mergePatch(merged.get(name), value));
  }
  // Not by assignment: a name may be "__proto__".
  return Object.fromEntries(merged);
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export class Fold {
  epoch = "";
  /** Call objects by sid. */
  calls = new Map();

  /** `active_calls`: the state of all calls. Returns whether it is another server's than before. */
  snapshot(calls, meta) {
    const fresh = this.#enter(meta.epoch);
    const listed = new Set(calls.map((call) => call.callSid));
    for (const sid of this.calls.keys()) if (!listed.has(sid)) this.calls.delete(sid);
    for (const call of calls) this.call(call.callSid, call);
    return fresh;
  }

  /** `call_data`: the state of one call. Returns whether it was news; an older state than the known one is none. */
  call(sid, call) {
    const known = this.calls.get(sid);
    if (known && known.seq >= call.seq) return false;
    this.calls.set(sid, call);
    return true;
  }

  /** `call_update`: one change of one call. Returns "applied", "old", or "gap", after which to subscribe again. */
  update(envelope) {
    const { callSid, seq, eventId, patch } = envelope;
    this.#enter(eventId.slice(0, eventId.indexOf(":")));
    const known = this.calls.get(callSid);
    const last = known?.seq ?? 0;
    if (seq <= last) return "old";
    if (seq !== last + 1) return "gap";
    this.calls.set(callSid, mergePatch(known, patch));
    return "applied";
  }

  #enter(epoch) {
    if (epoch === this.epoch) return false;
    this.epoch = epoch;
    this.calls.clear();
    return true;
  }
}
