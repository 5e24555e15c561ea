// The conversation of one call: what was said, what is being said, and who is speaking.
//
// Final messages are numbered (`tseq`); deltas are not. Each message has an id, and its final text replaces whatever
// deltas came, before or after it.

/** Messages kept. */
const MOST = 500;

export class Transcript {
  #items = new Map();
  #tseq = 0;
  /** Who is speaking now. */
  speaking = { user: false, assistant: false };
  conversationId = "";

  /** Messages in order: {itemId, order, role, text, partial, interrupted, at}. */
  items() {
    return [...this.#items.values()].sort((a, b) => a.order - b.order);
  }

  get size() {
    return this.#items.size;
  }

  /** `call_transcript`: all final messages so far. What is being said now stays, unless its final text is among them. */
  load({ transcript, tseq }) {
    this.#tseq = tseq ?? 0;
    this.conversationId = transcript.conversationId ?? "";
    for (const [itemId, item] of this.#items) if (!item.partial) this.#items.delete(itemId);
    for (const message of transcript.messages) this.#settle(message);
  }

  /** `transcript_message`: a final text. Returns "applied", "old" or "gap"; after a gap, ask for all of it. */
  message({ message, tseq }) {
    if (tseq <= this.#tseq) return "old";
    if (tseq > this.#tseq + 1) return "gap";
    this.#tseq = tseq ?? this.#tseq;
    this.#settle(message);
    return "applied";
  }

  /** `transcript_update`: a part of a text, or somebody starts or stops speaking. */
  update(change) {
    if (change.type === "typing_indicator") {
      if (change.speaker in this.speaking) this.speaking[change.speaker] = Boolean(change.active);
      return;
    }
    const known = this.#items.get(change.itemId);
    if (known && !known.partial) return;
    this.#keep({
      itemId: change.itemId,
      order: change.order ?? known?.order ?? Infinity,
      role: change.speaker,
      text: change.text ?? (known?.text ?? "") + (change.delta ?? ""),
      partial: change.isPartial !== false,
      interrupted: false,
      at: known?.at ?? change.timestamp,
    });
  }

  #settle({ itemId, order, role, message, timestamp, interrupted }) {
    this.#keep({
      itemId,
      order: order ?? Infinity,
      role,
      text: message,
      partial: false,
      interrupted: Boolean(interrupted),
      at: timestamp,
    });
  }

  #keep(item) {
    this.#items.set(item.itemId, item);
    if (this.#items.size > MOST) this.#items.delete(this.items()[0].itemId);
  }
}
