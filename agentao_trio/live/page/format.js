// Words and numbers as people read them. Everything is a pure function.

const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\u{e0000}-\u{e007f}]/gu;
const LINE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\u{e0000}-\u{e007f}]/gu;

function picture(character) {
  return `\u27e8${character.codePointAt(0).toString(16).toUpperCase().padStart(2, "0")}\u27e9`;
}

/** Text from outside for several lines: control and direction characters made visible; tabs and line ends stay. */
export const visible = (text) => String(text ?? "").replace(/\r\n/g, "\n").replace(CONTROL, picture);

/** Text from outside for one line: line ends and tabs are made visible, too. */
export const oneLine = (text) => String(text ?? "").replace(LINE, picture);

/** The Unix milliseconds of an ISO time, or NaN. */
export const moment = (iso) => (iso ? Date.parse(iso) : NaN);

/** "4:05" or "1:02:09" for so many seconds. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  const pad = (number) => String(number).padStart(2, "0");
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** The time of day of Unix milliseconds, or of an ISO time. */
export function clock(at) {
  const ms = typeof at === "number" ? at : moment(at);
  return Number.isFinite(ms) ? CLOCK.format(ms) : "–";
}

/** Day and time of an ISO time. */
export function dayAndTime(iso) {
  const ms = moment(iso);
  return Number.isFinite(ms) ? DAY.format(ms) : "–";
}

/** A number with so many digits after the point, or a dash. */
export const fixed = (value, digits = 1) => (Number.isFinite(value) ? value.toFixed(digits) : "–");

/** The end of an identifier, which is the part that differs. */
export const shortSid = (sid) => (sid.length > 10 ? `…${oneLine(sid).slice(-8)}` : oneLine(sid));

const STATUS = {
  "initiated": "Dialling",
  "ringing": "Ringing",
  "in-progress": "In progress",
  "on-hold": "On hold",
  "completed": "Completed",
  "failed": "Failed",
  "busy": "Busy",
  "no-answer": "No answer",
  "canceled": "Cancelled",
};

/** A call's status in words. One that is not known is shown as it is. */
export const statusWords = (status) => STATUS[status] ?? (oneLine(status) || "Unknown");

const AI = { connecting: "Connecting", connected: "Connected", ended: "Ended" };

/** The state of a call's AI in words; "" where it has none. */
export const aiWords = (ai) => (ai && ai.status && ai.status !== "none" ? AI[ai.status] ?? oneLine(ai.status) : "");

const ANSWERED_BY = {
  human: "A person",
  machine_start: "A machine (greeting)",
  machine_end_beep: "A machine (beep)",
  machine_end_silence: "A machine (silence)",
  fax: "A fax",
  unknown: "Unknown",
};

/** Who answered, in words. */
export const answeredByWords = (answeredBy) => ANSWERED_BY[answeredBy] ?? oneLine(answeredBy);

/** "no-answer" → "No answer": a word of the wire as a label. */
export function label(word) {
  const text = oneLine(word).replaceAll(/[_-]/g, " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** How good a MOS is: "good", "fair", "bad", or "" where there is none. */
export function grade(mos) {
  if (!Number.isFinite(mos)) return "";
  return mos >= 4 ? "good" : mos >= 3.6 ? "fair" : "bad";
}

/** Whether the metrics are such that somebody should look. */
export const isPoor = (metrics) => Boolean(metrics) && (metrics.mos < 3.6 || metrics.packetLossPct > 3 || metrics.jitterMs > 30);
