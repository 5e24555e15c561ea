// The conversation of the opened call, as it is spoken. Bubbles are kept and changed, never made anew, so that nothing
// flickers and what somebody has marked with the mouse stays marked.

import { make, setAttribute, setText, show } from "./dom.js";
import { clock, label, visible } from "./format.js";

const SPEAKERS = { user: "Caller", assistant: "Assistant", system: "System" };

class Bubble {
  #text = make("p", { class: "said", dir: "auto" });
  #note = make("span", { class: "note" });
  #at = make("time", {});
  #who = make("span", { class: "who" });

  constructor() {
    this.element = make("li", { class: "bubble" }, make("div", { class: "byline" }, this.#who, this.#at, this.#note), this.#text);
  }

  draw(item, over) {
    const partial = item.partial && !over; // what a call ended with is never finished
    setAttribute(this.element, "data-role", item.role);
    setAttribute(this.element, "data-partial", partial ? "" : null);
    setText(this.#who, SPEAKERS[item.role] ?? label(item.role));
    setText(this.#at, item.at ? clock(item.at) : "");
    setText(this.#note, item.interrupted ? "Interrupted" : partial ? "Speaking…" : "");
    setText(this.#text, visible(item.text));
  }
}

export class ConversationView {
  #bubbles = new Map();
  #list = make("ol", { class: "bubbles" });
  #typing = Object.fromEntries(
    ["user", "assistant"].map((who) => [who, make("div", { class: "typing", hidden: true }, make("span", { "class": "dots", "aria-hidden": "true" }, make("i"), make("i"), make("i")), `${SPEAKERS[who]} is speaking`)]),
  );
  #empty = make("p", { class: "quiet-words" });
  #follow = true;
  #jump = make("button", { type: "button", class: "jump", hidden: true, onclick: () => this.#toEnd() }, "Jump to the latest");

  constructor() {
    // What is said changes many times a second: a screen reader reads it on request and not by itself.
    this.#scroller = make("div", { "class": "scroller", "role": "log", "aria-live": "off", "aria-label": "Transcript", "tabindex": "0" }, this.#empty, this.#list, ...Object.values(this.#typing));
    this.#scroller.addEventListener("scroll", () => {
      const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
      this.#follow = scrollHeight - scrollTop - clientHeight < 40;
      show(this.#jump, !this.#follow);
    });
    this.element = make("div", { class: "conversation" }, this.#scroller, this.#jump);
  }

  #scroller;

  draw(transcript, entry) {
    const items = transcript.items();
    const kept = new Set();
    let before = null;
    for (const item of items) {
      kept.add(item.itemId);
      let bubble = this.#bubbles.get(item.itemId);
      if (!bubble) this.#bubbles.set(item.itemId, (bubble = new Bubble()));
      bubble.draw(item, entry.over);
      const place = before ? before.nextSibling : this.#list.firstChild;
      if (bubble.element !== place) this.#list.insertBefore(bubble.element, place);
      before = bubble.element;
    }
    for (const [itemId, bubble] of this.#bubbles) {
      if (kept.has(itemId)) continue;
      bubble.element.remove();
      this.#bubbles.delete(itemId);
    }
    for (const [who, element] of Object.entries(this.#typing)) {
      // Text that is being written shows that somebody speaks better than dots do.
      show(element, !entry.over && transcript.speaking[who] && !items.some((item) => item.partial && item.role === who));
    }
    show(this.#empty, items.length === 0);
    setText(this.#empty, entry.hasAI ? "Nothing has been said yet." : "This call has no AI conversation.");
    if (this.#follow) this.#toEnd();
  }

  /** Another call. */
  reset() {
    this.#follow = true;
    show(this.#jump, false);
  }

  #toEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }
}
