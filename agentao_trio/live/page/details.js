// What else there is to know of the opened call: its facts, recordings, who answered, errors, functions, and its log.

import { toolsOf } from "./calls.js";
import { make, setAttribute, setText } from "./dom.js";
import { aiWords, answeredByWords, clock, dayAndTime, duration, fixed, label, oneLine, statusWords, visible } from "./format.js";

/** An address that may be a link: what the feed says is not trusted to be one. */
function webAddress(text) {
  try {
    const url = new URL(text);
    return ["http:", "https:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

const bdi = (text) => make("bdi", {}, oneLine(text));

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== "" && value != null);
  return make("dl", { class: "facts" }, ...shown.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function section(title, ...children) {
  return make("section", { class: "part" }, make("h3", {}, title), ...children);
}

/** Facts change rarely: the whole is made anew, where it says something new. */
export class Overview {
  element = make("div", { "class": "scroller padded", "tabindex": "0", "role": "group", "aria-label": "Overview" });
  #drawn = "";

  draw(entry) {
    const { call, log } = entry;
    const errors = log.filter((event) => event.type === "error");
    const detection = log.findLast((event) => event.type === "machine_detection")?.data;
    const { duration: _, updatedAt, seq, metrics, ...rest } = call;
    const state = JSON.stringify([rest, call.endTime && [call.duration, metrics], errors.length, errors.at(-1)?.seq, detection]);
    if (state === this.#drawn) return;
    this.#drawn = state;
    this.element.replaceChildren(
      ...[this.#errors(call, errors), this.#summary(call), this.#ai(call), this.#detection(call, detection), this.#recordings(call), this.#figures(call)].filter(Boolean),
    );
  }

  #summary(call) {
    return section(
      "Call",
      facts([
        ["Status", statusWords(call.status)],
        ["From", call.from ? bdi(call.from) : ""],
        ["To", call.to ? bdi(call.to) : ""],
        ["Direction", label(call.direction)],
        ["Codec", oneLine(call.codec)],
        ["Trunk", call.trunkId ? bdi(call.trunkId) : ""],
        ["Tenant", call.tenantId ? bdi(call.tenantId) : ""],
        ["Began", dayAndTime(call.startTime)],
        ["Answered", call.answerTime ? clock(call.answerTime) : ""],
        ["Ended", call.endTime ? clock(call.endTime) : ""],
        ["Cause (Q.850)", call.q850Cause == null ? "" : String(call.q850Cause)],
        ["Call id", make("code", {}, bdi(call.callSid))],
      ]),
    );
  }

  #ai(call) {
    const { ai } = call;
    if (!ai || ai.status === "none") return null;
    return section(
      "AI",
      facts([
        ["State", aiWords(ai)],
        ["Provider", oneLine(ai.provider)],
        ["Model", ai.model ? bdi(ai.model) : ""],
        ["Voice", oneLine(ai.voice)],
        ["Reason", ai.reason ? bdi(ai.reason) : ""],
        ["Conversation", call.conversationId ? make("code", {}, bdi(call.conversationId)) : ""],
      ]),
    );
  }

  #detection(call, detection) {
    if (!call.answeredBy || (call.answeredBy === "unknown" && !detection)) return null;
    const percent = Number.isFinite(detection?.confidence) ? Math.round(Math.min(1, Math.max(0, detection.confidence)) * 100) : null;
    return section(
      "Answered by",
      make(
        "div",
        { class: "detection" },
        make("strong", {}, answeredByWords(call.answeredBy)),
        make("span", { class: "tag" }, "Estimate"),
        percent === null ? null : make("meter", { "min": "0", "max": "100", "value": String(percent), "aria-label": "Confidence" }),
        percent === null ? null : make("span", {}, `${percent} % confidence`),
        Number.isFinite(detection?.detectionMs) ? make("span", { class: "dim" }, `after ${fixed(detection.detectionMs / 1000)} s`) : null,
      ),
    );
  }

  #recordings(call) {
    const recordings = Object.entries(call.recordings ?? {});
    if (!recordings.length) return null;
    return section(
      "Recordings",
      make(
        "ul",
        { class: "recordings" },
        ...recordings.map(([sid, recording]) => {
          const address = recording.recordingUrl ? webAddress(recording.recordingUrl) : null;
          return make(
            "li",
            {},
            make("span", { "class": "badge", "data-recording": recording.status }, label(recording.status)),
            make("code", {}, bdi(sid)),
            Number.isFinite(recording.duration) ? make("span", { class: "dim" }, duration(recording.duration)) : null,
            address
              ? make("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, "Open the recording")
              : recording.recordingUrl
                ? make("code", { class: "place" }, bdi(recording.recordingUrl))
                : null,
          );
        }),
      ),
    );
  }

  #errors(call, errors) {
    const shown = errors.map((event) => ({ ...event.data, at: event.at }));
    if (!shown.length && call.lastError) shown.push(typeof call.lastError === "string" ? { message: call.lastError } : call.lastError);
    if (!shown.length) return null;
    return section(
      "Errors",
      make(
        "ul",
        { class: "errors" },
        ...shown.slice(-20).map((error) =>
          make(
            "li",
            { "data-fatal": error.fatal ? "" : null },
            make("p", { dir: "auto" }, visible(error.message)),
            make("span", { class: "dim" }, [label(error.source), error.code == null ? "" : oneLine(error.code), error.fatal ? "fatal" : "", error.at ? clock(error.at) : ""].filter(Boolean).join(" · ")),
          ),
        ),
      ),
    );
  }

  #figures(call) {
    const { metrics } = call;
    if (!call.endTime || !metrics) return null;
    return section(
      metrics.final && metrics.source === "gateway" ? "Quality, as the gateway has it" : "Quality",
      facts([
        ["MOS", fixed(metrics.mos, 2)],
        ["Jitter", `${fixed(metrics.jitterMs)} ms`],
        ["Packets lost", `${metrics.packetsLost ?? "–"} (${fixed(metrics.packetLossPct, 2)} %)`],
      ]),
    );
  }
}

const PHASES = { requested: "Requested", started: "Running", done: "Done", failed: "Failed", cancelled: "Cancelled" };

/** JSON is shown indented; what is none, as it is. */
function readable(text) {
  if (typeof text !== "string") return JSON.stringify(text, null, 2);
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** The functions that the model asked for. What somebody has unfolded stays so. */
export class Tools {
  #list = make("ol", { class: "tools" });
  #empty = make("p", { class: "quiet-words" }, "No function has been called.");
  #items = new Map();
  element = make("div", { "class": "scroller padded", "tabindex": "0", "role": "group", "aria-label": "Tools" }, this.#list, this.#empty);

  draw(entry) {
    const tools = toolsOf(entry.log);
    this.#empty.hidden = tools.length > 0;
    const kept = new Set(tools.map((tool) => tool.callId));
    for (const [callId, item] of this.#items) {
      if (kept.has(callId)) continue;
      item.element.remove();
      this.#items.delete(callId);
    }
    for (const tool of tools) {
      let item = this.#items.get(tool.callId);
      if (!item) {
        item = this.#make();
        this.#items.set(tool.callId, item);
        this.#list.append(item.element);
      }
      setText(item.name, oneLine(tool.name));
      setText(item.phase, PHASES[tool.phase] ?? label(tool.phase));
      setAttribute(item.phase, "data-phase", tool.phase);
      setText(item.when, [clock(tool.at), Number.isFinite(tool.seconds) ? `${fixed(tool.seconds, 2)} s` : ""].filter(Boolean).join(" · "));
      const outcome = tool.error ?? tool.output;
      setText(item.sent, visible(readable(tool.arguments ?? "")) || "–");
      item.came.parentElement.hidden = outcome === undefined;
      setText(item.cameHead, tool.error === undefined ? "Output" : "Error");
      setText(item.came, outcome === undefined ? "" : visible(readable(outcome)));
    }
  }

  #make() {
    const name = make("bdi", { class: "tool-name" });
    const phase = make("span", { class: "badge" });
    const when = make("span", { class: "dim" });
    const sent = make("pre", { dir: "auto" });
    const cameHead = make("h4", {});
    const came = make("pre", { dir: "auto" });
    const element = make("li", {}, make("details", {}, make("summary", {}, name, phase, when), make("div", {}, make("h4", {}, "Arguments"), sent), make("div", {}, cameHead, came)));
    return { element, name, phase, when, sent, cameHead, came };
  }
}

const TITLES = {
  new_call: "Call began",
  status_update: "Status",
  machine_detection: "Answered by (estimate)",
  conversation_started: "Conversation began",
  conversation_ended: "Conversation ended",
  transcript_message: "Message",
  function_call: "Function",
  recording_update: "Recording",
  call_ended: "Call ended",
  error: "Error",
};

/** What an event says, in a line. */
function gist({ type, data }) {
  switch (type) {
    case "new_call":
      return [data.from, data.to].filter(Boolean).map(oneLine).join(" → ");
    case "status_update":
      return { connecting_to_ai: "Connecting to the AI", connected_to_ai: "Connected to the AI" }[data.status] ?? statusWords(data.status);
    case "machine_detection":
      return answeredByWords(data.answeredBy) + (Number.isFinite(data.confidence) ? `, ${Math.round(data.confidence * 100)} %` : "");
    case "conversation_started":
      return oneLine(data.conversationId);
    case "conversation_ended":
      return oneLine(data.reason);
    case "function_call":
      return `${oneLine(data.name)} ${oneLine(data.phase)}`;
    case "recording_update":
      return label(data.status);
    case "call_ended":
      return [statusWords(data.status), data.q850Cause == null ? "" : `cause ${data.q850Cause}`].filter(Boolean).join(", ");
    case "error":
      return oneLine(data.message);
    default:
      return oneLine(data.message?.message ?? "");
  }
}

/** The event log, newest first. Events never change, so each has its line made once. */
export class EventLog {
  #list = make("ol", { class: "events" });
  #empty = make("p", { class: "quiet-words" }, "No events yet.");
  #lines = new Map();
  element = make("div", { "class": "scroller padded", "tabindex": "0", "role": "group", "aria-label": "Events" }, this.#list, this.#empty);

  draw(entry) {
    const kept = new Set();
    this.#empty.hidden = entry.log.length > 0;
    let after = null;
    for (const event of entry.log) {
      kept.add(event);
      let line = this.#lines.get(event);
      if (!line) {
        line = make("li", { "data-type": event.type }, make("time", {}, clock(event.at)), make("span", { class: "event-title" }, TITLES[event.type] ?? label(event.type)), make("bdi", { class: "event-gist", dir: "auto" }, gist(event)));
        this.#lines.set(event, line);
        this.#list.insertBefore(line, after ?? null);
      }
      after = line;
    }
    for (const [event, line] of this.#lines) {
      if (kept.has(event)) continue;
      line.remove();
      this.#lines.delete(event);
    }
  }
}
