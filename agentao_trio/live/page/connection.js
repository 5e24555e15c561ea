// The token and the Socket.IO connection: what state it is in, and what the page is subscribed to.
//
// The token comes in the address's fragment, which no server and no log ever sees, and is taken out of the address bar
// before anything else happens. For this tab's reloads it is kept in the tab's own storage.

/* global io */

const KEY = "agentao-live-token";
/** How soon to come back after the server closed the connection, which Socket.IO takes as final. */
const RETURN_MS = 1500;
/** How often at most a lost number may ask for a fresh snapshot. */
const RESYNC_MS = 1000;

/** The token of the address or of this tab; "" where there is none. */
export function takeToken() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get("token");
  if (token !== null) {
    history.replaceState(null, "", location.pathname + location.search);
    keepToken(token);
    return token;
  }
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

/** Remember a token for this tab. */
export function keepToken(token) {
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // a reload will ask for it again
  }
}

export class Connection {
  #socket;
  #onState;
  #opened = "";
  #everLive = false;
  #resyncAt = 0;
  #resyncTimer = 0;

  /**
   * `onState(state, words)` is told of "connecting", "live", "reconnecting" and "refused"; `handlers` are the
   * Socket.IO events by name.
   */
  constructor(token, onState, handlers) {
    this.#onState = onState;
    const socket = io({
      auth: { token },
      transports: ["websocket", "polling"],
      tryAllTransports: true,
      reconnectionDelay: 500,
      reconnectionDelayMax: 5000,
      autoConnect: false,
    });
    this.#socket = socket;
    for (const [name, handler] of Object.entries(handlers)) socket.on(name, handler);
    socket.on("connect", () => this.#connected());
    socket.on("disconnect", (reason) => {
      onState("reconnecting", "Connection lost. Reconnecting…");
      if (reason === "io server disconnect") setTimeout(() => socket.connect(), RETURN_MS);
    });
    socket.on("connect_error", (error) => {
      if (socket.active) this.#waiting();
      else onState("refused", error.message);
    });
    socket.io.on("reconnect_attempt", () => this.#waiting());
  }

  start() {
    this.#onState("connecting", "Connecting");
    this.#socket.connect();
  }

  stop() {
    clearTimeout(this.#resyncTimer);
    this.#socket.removeAllListeners();
    this.#socket.io.removeAllListeners("reconnect_attempt");
    this.#socket.disconnect();
  }

  /** Ask for everything about one call, and for its conversation; of the call before, ask for no more. */
  open(sid) {
    if (this.#opened && this.#opened !== sid) this.#ask("unsubscribe_from_call", this.#opened);
    this.#opened = sid;
    if (sid) this.#subscribeToOpened();
  }

  /** Numbers are missing: ask for the state again, but not once for each of a hundred calls. */
  resync() {
    if (this.#resyncTimer) return;
    const wait = Math.max(0, this.#resyncAt + RESYNC_MS - performance.now());
    this.#resyncTimer = setTimeout(() => {
      this.#resyncTimer = 0;
      this.#resyncAt = performance.now();
      this.#subscribe();
    }, wait);
  }

  #connected() {
    this.#everLive = true;
    this.#onState("live", "Live");
    this.#subscribe();
  }

  #waiting() {
    if (this.#everLive) this.#onState("reconnecting", "Connection lost. Reconnecting…");
    else this.#onState("connecting", "The server does not answer. Trying again…");
  }

  #subscribe() {
    this.#ask("subscribe_to_calls");
    if (this.#opened) this.#subscribeToOpened();
  }

  #subscribeToOpened() {
    this.#ask("subscribe_to_call", this.#opened);
    this.#ask("subscribe_to_call_transcript", this.#opened);
  }

  #ask(event, ...args) {
    // What is asked while away would be sent late and twice: coming back subscribes anew.
    if (this.#socket.connected) this.#socket.emit(event, ...args, () => {});
  }
}
