// Which calls are shown. The counts at the top are the filter of the state: press one to see only those.

import { byId, make, setAttribute, setText, show } from "./dom.js";

/** The states to choose from, and which calls each of them shows. */
const STATES = {
  active: { words: "Active", shows: (entry) => !entry.over },
  ringing: { words: "Ringing", shows: (entry) => !entry.over && ["ringing", "initiated"].includes(entry.call.status) },
  talking: { words: "In progress", shows: (entry) => !entry.over && !["ringing", "initiated", "on-hold"].includes(entry.call.status) },
  held: { words: "On hold", shows: (entry) => !entry.over && entry.call.status === "on-hold" },
  ended: { words: "Ended", shows: (entry) => entry.over },
};
/** What may be asked for besides. */
const MARKS = {
  ai: { words: "With AI", shows: (entry) => entry.hasAI },
  poor: { words: "Poor quality", shows: (entry) => entry.poor },
};

const digits = (text) => text.replaceAll(/[^\d]/g, "");

export class Filters {
  #state = "";
  #marks = new Set();
  #text = "";
  #direction = "";
  #tiles = new Map();
  #onChange;

  /** `onChange()` is called when other calls are to be shown. */
  constructor(onChange) {
    this.#onChange = onChange;
    const tile = (key, words, press) => {
      const number = make("span", { class: "count" }, "0");
      const button = make("button", { "type": "button", "class": "tile", "data-key": key, "aria-pressed": "false", "onclick": press }, number, make("span", { class: "tile-words" }, words));
      this.#tiles.set(key, { button, number });
      return button;
    };
    const state = ([key, { words }]) => tile(key, words, () => this.#set(() => (this.#state = this.#state === key ? "" : key)));
    const mark = ([key, { words }]) => tile(key, words, () => this.#set(() => this.#marks.delete(key) || this.#marks.add(key)));
    byId("counts").append(
      make("div", { "class": "tiles", "role": "group", "aria-label": "State" }, ...Object.entries(STATES).map(state)),
      make("div", { "class": "tiles", "role": "group", "aria-label": "Only calls" }, ...Object.entries(MARKS).map(mark)),
    );
    byId("search").addEventListener("input", (event) => this.#set(() => (this.#text = event.target.value.trim().toLowerCase())));
    byId("direction").addEventListener("change", (event) => this.#set(() => (this.#direction = event.target.value)));
    byId("clear").addEventListener("click", () => this.clear());
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
  }

  /** Whether any filter is set. */
  get set() {
    return Boolean(this.#state || this.#marks.size || this.#text || this.#direction);
  }

  clear() {
    byId("search").value = "";
    byId("direction").value = "";
    this.#set(() => {
      this.#state = this.#text = this.#direction = "";
      this.#marks.clear();
    });
  }

  /** Whether a call is shown. */
  shows(entry) {
    if (this.#state && !STATES[this.#state].shows(entry)) return false;
    for (const mark of this.#marks) if (!MARKS[mark].shows(entry)) return false;
    const { call } = entry;
    if (this.#direction && call.direction !== this.#direction) return false;
    if (!this.#text) return true;
    if ([call.from, call.to, entry.sid].some((text) => String(text ?? "").toLowerCase().includes(this.#text))) return true;
    // Numbers are found however they are written: "555 0100" is in +15550100001.
    const wanted = /^[\d\s()+./-]+$/.test(this.#text) ? digits(this.#text) : "";
    return wanted !== "" && [call.from, call.to].some((text) => digits(String(text ?? "")).includes(wanted));
  }

  /** Show how many there are of what. */
  count(counts) {
    for (const [key, { button, number }] of this.#tiles) {
      setText(number, String(counts[key]));
      setAttribute(button, "data-none", counts[key] ? null : "");
    }
  }

  #set(change) {
    change();
    for (const [key, { button }] of this.#tiles) setAttribute(button, "aria-pressed", key === this.#state || this.#marks.has(key));
    show(byId("clear"), this.set);
    this.#onChange();
  }
}
