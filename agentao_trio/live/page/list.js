// The list of calls: a grid of rows, one of which can be reached by Tab and the others by the arrow keys.
//
// Every call has its row, so that what is searched or read aloud is all there; but only rows on the screen are kept up
// to date. A row that scrolls into view is drawn then, and what is outside costs neither layout nor paint.

import { make, setAttribute, setText, show } from "./dom.js";
import { aiWords, duration, moment, oneLine, shortSid, statusWords } from "./format.js";
import { icon } from "./icons.js";
import { MEASURES, Spark } from "./plot.js";

/** Seconds that a call has lasted at `now`: since its answer, where it was answered. */
export function secondsOf(call, now) {
  if (call.endTime) return call.duration ?? (moment(call.endTime) - moment(call.answerTime ?? call.startTime)) / 1000;
  return (now - moment(call.answerTime ?? call.startTime)) / 1000;
}

/** The other end's number and ours, as the direction has them. */
export function partiesOf(call) {
  const [far, near] = call.direction === "inbound" ? [call.from, call.to] : [call.to, call.from];
  return { far: oneLine(far) || "Unknown number", near: oneLine(near) };
}

class Row {
  visible = false;
  #status = make("span", { class: "badge" });
  #direction = make("span", { class: "direction" });
  #far = make("bdi", { class: "far" });
  #about = make("bdi", { class: "about" });
  #ai = make("span", { class: "badge ai" });
  #aiAbout = make("bdi", { class: "about" });
  #sparks = Object.fromEntries(Object.keys(MEASURES).map((key) => [key, new Spark(key)]));
  #duration = make("span", { class: "duration" });
  #drawnDirection = "";

  constructor(entry) {
    this.entry = entry;
    const cell = (name, ...children) => make("div", { role: "gridcell", class: `cell ${name}` }, ...children);
    const plots = Object.entries(MEASURES).map(([key, { name, unit }]) =>
      cell(`plotted ${key}`, make("span", { class: "plot-name" }, name), this.#sparks[key].element, unit ? make("span", { class: "unit" }, unit) : null),
    );
    this.element = make(
      "div",
      { "role": "row", "class": "row", "tabindex": "-1", "data-sid": entry.sid, "aria-selected": "false" },
      cell("status", this.#status),
      cell("parties", this.#direction, make("span", { class: "two-lines" }, this.#far, this.#about)),
      cell("with-ai", this.#ai, this.#aiAbout),
      ...plots,
      cell("lasted", this.#duration),
    );
  }

  draw(now) {
    const { call, series, poor, over } = this.entry;
    setAttribute(this.element, "data-status", call.status);
    setAttribute(this.element, "data-poor", poor && !over ? "" : null);
    setText(this.#status, statusWords(call.status));
    setAttribute(this.#status, "data-status", call.status);
    const { far, near } = partiesOf(call);
    const inbound = call.direction === "inbound";
    if (this.#drawnDirection !== call.direction) {
      this.#drawnDirection = call.direction;
      this.#direction.replaceChildren(icon(inbound ? "inbound" : "outbound"), make("span", { class: "only-heard" }, inbound ? "Inbound" : "Outbound"));
    }
    setText(this.#far, far);
    setText(this.#about, [oneLine(call.codec), near && `${inbound ? "to" : "from"} ${near}`, shortSid(this.entry.sid)].filter(Boolean).join(" · "));
    const ai = aiWords(call.ai);
    show(this.#ai, ai !== "");
    setText(this.#ai, ai);
    setAttribute(this.#ai, "data-ai", call.ai?.status);
    setText(this.#aiAbout, ai ? oneLine(call.ai.model ?? call.ai.provider) : "");
    for (const spark of Object.values(this.#sparks)) spark.draw(series);
    this.tick(now);
  }

  tick(now) {
    setText(this.#duration, duration(secondsOf(this.entry.call, now)));
  }
}

const COLUMNS = ["Status", "Call", "AI", "MOS", "Jitter, ms", "Loss, %", "Time"];

export class List {
  #rows = new Map();
  #element;
  #live = make("div", { "role": "rowgroup", "class": "rows" });
  #ended = make("div", { "role": "rowgroup", "class": "rows", "aria-label": "Ended calls" });
  #endedHead = make("div", { "class": "group-head", "aria-hidden": "true" }, "Ended");
  #empty = make("div", { class: "empty", hidden: true });
  #grid;
  #filters;
  #onOpen;
  #stop = null; // the row that Tab reaches
  #opened = "";
  #watcher;

  /** In `element`, the calls that `filters` lets through; `onOpen(sid)` is called for the one that is chosen. */
  constructor(element, filters, onOpen) {
    this.#element = element;
    this.#filters = filters;
    this.#onOpen = onOpen;
    const head = make("div", { role: "row", class: "row head" }, ...COLUMNS.map((name) => make("div", { "role": "columnheader", "class": "cell" }, name)));
    this.#grid = make(
      "div",
      { "role": "grid", "class": "grid", "aria-label": "Calls", "aria-describedby": "list-keys" },
      make("div", { role: "rowgroup", class: "head-group" }, head),
      this.#live,
      this.#endedHead,
      this.#ended,
    );
    element.append(this.#grid, this.#empty, make("p", { id: "list-keys", class: "only-heard" }, "Arrow keys move, Enter opens a call, Escape closes it."));
    this.#grid.addEventListener("click", (event) => this.#choose(event.target.closest("[data-sid]")));
    this.#grid.addEventListener("keydown", (event) => this.#key(event));
    this.#grid.addEventListener("focusin", (event) => this.#stopAt(event.target.closest("[data-sid]")));
    this.#watcher = new IntersectionObserver((changes) => this.#seen(changes), { root: element, rootMargin: "200px" });
  }

  /** Draw what changed: `dirty` and `gone` hold sids, `calls` the model. */
  draw(calls, dirty, gone) {
    const now = calls.now();
    for (const sid of gone) this.#remove(sid);
    for (const sid of dirty) {
      const entry = calls.get(sid);
      if (!entry) continue;
      const row = this.#rows.get(sid) ?? this.#add(entry);
      if (row.entry !== entry) row.entry = entry; // the same sid of another server
      this.#place(row);
      show(row.element, this.#filters.shows(entry));
      if (row.visible) row.draw(now);
    }
    this.#settle();
  }

  /** Other filters: see which rows are shown. */
  filter() {
    for (const row of this.#rows.values()) show(row.element, this.#filters.shows(row.entry));
    this.#settle();
  }

  /** A second has passed. */
  tick(now) {
    for (const row of this.#rows.values()) if (row.visible && !row.entry.over) row.tick(now);
  }

  /** Mark the call that is open; "" for none. */
  mark(sid) {
    this.#rows.get(this.#opened)?.element.setAttribute("aria-selected", "false");
    this.#opened = sid;
    this.#rows.get(sid)?.element.setAttribute("aria-selected", "true");
  }

  /** Put the focus on a call's row, or on the first that there is. */
  focus(sid) {
    const row = this.#rows.get(sid)?.element;
    const target = row && !row.hidden ? row : this.#shown()[0];
    (target ?? this.#element).focus();
  }

  #add(entry) {
    const row = new Row(entry);
    this.#rows.set(entry.sid, row);
    row.element.setAttribute("aria-selected", String(entry.sid === this.#opened));
    this.#watcher.observe(row.element);
    row.draw(0);
    return row;
  }

  #remove(sid) {
    const row = this.#rows.get(sid);
    if (!row) return;
    this.#watcher.unobserve(row.element);
    if (this.#stop === row.element) this.#stop = null;
    row.element.remove();
    this.#rows.delete(sid);
  }

  /** Newest first; below them those that are over, the latest end first. */
  #place(row) {
    const { over } = row.entry;
    const group = over ? this.#ended : this.#live;
    if (row.element.parentNode === group) return;
    const time = ({ call }) => moment(over ? call.endTime : call.startTime) || 0;
    const own = time(row.entry);
    let next = group.firstChild;
    while (next && time(this.#rows.get(next.dataset.sid).entry) > own) next = next.nextSibling;
    const focused = row.element.contains(document.activeElement);
    group.insertBefore(row.element, next);
    if (focused) row.element.focus({ preventScroll: true });
  }

  #settle() {
    let shown = 0;
    let ended = 0;
    for (const { element, entry } of this.#rows.values()) {
      if (element.hidden) continue;
      shown += 1;
      if (entry.over) ended += 1;
    }
    show(this.#endedHead, ended > 0);
    show(this.#grid, shown > 0);
    this.#explain(shown);
    if (!this.#stop?.isConnected || this.#stop.hidden) this.#stopAt(this.#shown()[0] ?? null);
  }

  #explain(shown) {
    const why = shown ? "" : this.#rows.size ? "filtered" : "none";
    show(this.#empty, why !== "");
    if (this.#empty.dataset.why === why) return;
    this.#empty.dataset.why = why;
    const words = {
      "": [],
      "none": [make("div", { "class": "waves", "aria-hidden": "true" }, ...Array.from({ length: 7 }, () => make("i"))), make("h2", {}, "No calls right now"), make("p", {}, "A call appears here the moment it begins to ring.")],
      "filtered": [make("h2", {}, "No call matches"), make("p", {}, "None of the calls is what the filters ask for."), make("button", { type: "button", class: "main", onclick: () => this.#filters.clear() }, "Clear filters")],
    };
    this.#empty.replaceChildren(...words[why]);
  }

  #seen(changes) {
    for (const { target, isIntersecting } of changes) {
      const row = this.#rows.get(target.dataset.sid);
      if (!row || row.visible === isIntersecting) continue;
      row.visible = isIntersecting;
      if (isIntersecting) row.draw(this.now());
    }
  }

  /** The time, for rows that come into view; set by the page. */
  now = () => Date.now();

  #shown() {
    return [...this.#grid.querySelectorAll("[data-sid]")].filter((element) => !element.hidden);
  }

  #stopAt(element) {
    if (element === this.#stop) return;
    this.#stop?.setAttribute("tabindex", "-1");
    this.#stop = element;
    element?.setAttribute("tabindex", "0");
  }

  #choose(element) {
    if (!element) return;
    this.#stopAt(element);
    this.#onOpen(element.dataset.sid);
  }

  #key(event) {
    const row = event.target.closest("[data-sid]");
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.#choose(row);
      return;
    }
    const shown = this.#shown();
    const steps = { ArrowUp: -1, ArrowDown: 1, PageUp: -8, PageDown: 8, Home: -shown.length, End: shown.length };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const index = Math.min(shown.length - 1, Math.max(0, shown.indexOf(row) + steps[event.key]));
    shown[index].focus();
  }
}
