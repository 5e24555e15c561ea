// The opened call: who, how it stands, and one of five views of it.

import { make, setAttribute, setText, show } from "./dom.js";
import { aiWords, duration, oneLine, statusWords } from "./format.js";
import { icon } from "./icons.js";
import { ConversationView } from "./conversation.js";
import { EventLog, Overview, Tools } from "./details.js";
import { partiesOf, secondsOf } from "./list.js";
import { QualityPlot } from "./plot.js";
import { toolsOf } from "./calls.js";

export class Pane {
  #element;
  #entry = null;
  #transcript = null;
  #views = { overview: new Overview(), conversation: new ConversationView(), quality: new QualityPlot(), tools: new Tools(), events: new EventLog() };
  #tabs = new Map();
  #tab = "overview";
  #title = make("bdi", {});
  #heading = make("h2", { tabindex: "-1" }, this.#title);
  #near = make("bdi", { class: "about" });
  #status = make("span", { class: "badge" });
  #ai = make("span", { class: "badge ai" });
  #duration = make("span", { class: "duration" });
  #copied = make("button", { type: "button", class: "quiet small", onclick: () => this.#copy() });
  #none;
  #some;

  /** In `element`; `onClose()` is called when somebody is done with the call. */
  constructor(element, onClose) {
    this.#element = element;
    const names = { overview: "Overview", conversation: "Conversation", quality: "Quality", tools: "Tools", events: "Events" };
    const panels = [];
    for (const [key, name] of Object.entries(names)) {
      const number = make("span", { class: "tab-count", hidden: true });
      const tab = make("button", { "type": "button", "role": "tab", "id": `tab-${key}`, "aria-controls": `view-${key}`, "aria-selected": "false", "tabindex": "-1", "onclick": () => this.#turnTo(key) }, name, number);
      const panel = make("div", { "class": `view ${key}`, "role": "tabpanel", "id": `view-${key}`, "aria-labelledby": `tab-${key}`, "hidden": true }, this.#views[key].element);
      if (key === "quality") this.#views.quality.element.classList.add("scroller", "padded");
      this.#tabs.set(key, { tab, panel, number });
      panels.push(panel);
    }
    const tabs = make("div", { "class": "tabs", "role": "tablist", "aria-label": "Views of the call", "onkeydown": (event) => this.#key(event) }, ...[...this.#tabs.values()].map(({ tab }) => tab));
    const leave = (name, words) => make("button", { "type": "button", "class": `quiet ${name}`, "aria-label": words, "onclick": onClose }, icon(name));
    this.#some = make(
      "div",
      { class: "opened", hidden: true },
      make(
        "div",
        { class: "pane-head" },
        leave("back", "Back to the list"),
        this.#heading,
        this.#copied,
        this.#duration,
        leave("close", "Close the call"),
        make("div", { class: "pane-about" }, this.#status, this.#ai, this.#near),
      ),
      tabs,
      ...panels,
    );
    const key = (name, words) => make("div", {}, make("kbd", {}, name), words);
    this.#none = make(
      "div",
      { class: "empty" },
      make("h2", {}, "No call is open"),
      make("p", {}, "Choose one to see its conversation, quality and events."),
      make("div", { "class": "keys", "aria-hidden": "true" }, key("↑ ↓", "move"), key("Enter", "open"), key("Esc", "close"), key("/", "search")),
    );
    element.append(this.#none, this.#some);
    element.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#entry) onClose();
    });
    this.#turnTo("overview");
  }

  /** Open a call, with its conversation; null closes. */
  open(entry, transcript) {
    this.#entry = entry;
    this.#transcript = transcript;
    show(this.#none, !entry);
    show(this.#some, Boolean(entry));
    if (!entry) return;
    this.#views.quality.reset();
    this.#views.conversation.reset();
    this.#tellCopied("copy", "Copy the call id");
    this.#turnTo(entry.hasAI ? "conversation" : "overview");
  }

  focus() {
    this.#heading.focus();
  }

  /** Draw what can be seen of the call. */
  draw(now) {
    const entry = this.#entry;
    if (!entry) return;
    const { call } = entry;
    const { far, near } = partiesOf(call);
    setText(this.#title, far);
    const about = [call.direction === "inbound" ? "Inbound" : "Outbound", near && `${call.direction === "inbound" ? "to" : "from"} ${near}`, oneLine(call.codec)];
    setText(this.#near, about.filter(Boolean).join(" · "));
    setText(this.#status, statusWords(call.status));
    setAttribute(this.#status, "data-status", call.status);
    const ai = aiWords(call.ai);
    show(this.#ai, ai !== "");
    setText(this.#ai, ai && `AI ${ai.toLowerCase()}`);
    setAttribute(this.#ai, "data-ai", call.ai?.status);
    this.tick(now);
    this.#count("conversation", this.#transcript.size);
    this.#count("tools", toolsOf(entry.log).length);
    this.#count("events", entry.log.length);
    const drawing = {
      overview: () => this.#views.overview.draw(entry),
      conversation: () => this.#views.conversation.draw(this.#transcript, entry),
      quality: () => this.#views.quality.draw(entry.series),
      tools: () => this.#views.tools.draw(entry),
      events: () => this.#views.events.draw(entry),
    };
    drawing[this.#tab]();
  }

  tick(now) {
    if (this.#entry) setText(this.#duration, duration(secondsOf(this.#entry.call, now)));
  }

  /** The time, for a view that is turned to; set by the page. */
  now = () => Date.now();

  #count(key, number) {
    const { number: element } = this.#tabs.get(key);
    show(element, number > 0);
    setText(element, String(number));
  }

  #turnTo(chosen) {
    this.#tab = chosen;
    for (const [key, { tab, panel }] of this.#tabs) {
      setAttribute(tab, "aria-selected", key === chosen);
      setAttribute(tab, "tabindex", key === chosen ? "0" : "-1");
      show(panel, key === chosen);
    }
    this.draw(this.now());
  }

  #key(event) {
    const keys = [...this.#tabs.keys()];
    const at = keys.indexOf(this.#tab);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1 + keys.length, Home: 0, End: keys.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const key = keys[next % keys.length];
    this.#turnTo(key);
    this.#tabs.get(key).tab.focus();
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.#entry.sid);
      this.#tellCopied("check", "Copied");
    } catch {
      this.#tellCopied("warning", "The browser does not allow it"); // off loopback, only over HTTPS
    }
  }

  #tellCopied(drawing, words) {
    this.#copied.replaceChildren(icon(drawing));
    this.#copied.title = words;
    setAttribute(this.#copied, "aria-label", words);
  }
}
