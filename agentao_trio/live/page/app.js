// Live calls: the page's parts, put together.
//
// Events change the model at once and are drawn with the next frame, so that a thousand of them a second cost no more
// than one drawing each sixtieth of it. What cannot be seen is not drawn at all.

import { Calls } from "./calls.js";
import { Connection, keepToken, takeToken } from "./connection.js";
import { byId, setText, show } from "./dom.js";
import { Filters } from "./filters.js";
import { statusWords } from "./format.js";
import { List, partiesOf } from "./list.js";
import { Pane } from "./pane.js";
import { switchThemesWith } from "./theme.js";
import { Transcript } from "./transcript.js";

let token = takeToken();
let connection = null;
let opened = "";
let transcript = new Transcript();
let frame = 0;
let announcedStatus = "";

const calls = new Calls(() => connection.resync());
const filters = new Filters(() => list.filter());
const list = new List(byId("list"), filters, open);
const pane = new Pane(byId("pane"), leave);
list.now = pane.now = () => calls.now();

function wake() {
  if (!frame) frame = requestAnimationFrame(drawFrame);
}

function drawFrame() {
  frame = 0;
  const { dirty, gone } = calls;
  if (opened && gone.has(opened) && !calls.get(opened)) close();
  list.draw(calls, dirty, gone);
  filters.count(calls.counts());
  if (opened) {
    pane.draw(calls.now());
    announceOpened();
  }
  dirty.clear();
  gone.clear();
}

/** Say to a screen reader what is worth interrupting for, and nothing else. */
function announce(words) {
  setText(byId("announcer"), words);
}

function announceOpened() {
  const { call } = calls.get(opened);
  if (call.status === announcedStatus) return;
  announcedStatus = call.status;
  announce(`Call with ${partiesOf(call).far}: ${statusWords(call.status)}`);
}

function open(sid) {
  const entry = calls.get(sid);
  if (!entry) return;
  if (sid !== opened) {
    opened = sid;
    announcedStatus = entry.call.status;
    transcript = new Transcript();
    connection.open(sid);
    list.mark(sid);
    pane.open(entry, transcript);
  }
  document.body.dataset.view = "call";
  if (!history.state?.call) history.pushState({ call: true }, "");
  pane.draw(calls.now());
  pane.focus();
}

/** Back to the list: the same way as the browser's own button, which on a phone is the one at hand. */
function leave() {
  if (history.state?.call) history.back();
  else close();
}

function close() {
  if (!opened) return;
  const sid = opened;
  opened = "";
  connection.open("");
  pane.open(null, null);
  list.mark("");
  delete document.body.dataset.view;
  list.focus(sid);
}

const ofOpened = (handle) => (payload) => {
  if (payload.callSid !== opened) return;
  handle(payload);
  wake();
};

const handlers = {
  active_calls(snapshot, meta) {
    if (calls.snapshot(snapshot, meta)) close();
    wake();
  },
  call_update(envelope) {
    calls.update(envelope);
    wake();
  },
  // Of a call that is subscribed to, updates come under this name, too, with their type; call_update has told them.
  call_data(payload) {
    if (payload.type) return;
    calls.full(payload);
    wake();
  },
  quality_history(samples) {
    calls.history(samples);
    wake();
  },
  call_transcript: ofOpened((payload) => transcript.load(payload)),
  transcript_message: ofOpened((payload) => {
    if (transcript.message(payload) === "gap") connection.resync();
  }),
  transcript_update: ofOpened((payload) => transcript.update(payload)),
};

function connectionIs(state, words) {
  const element = byId("connection");
  const before = element.dataset.state;
  element.dataset.state = state;
  setText(byId("connection-words"), { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting", refused: "Refused" }[state]);
  const away = state === "reconnecting" || (state === "connecting" && words !== "Connecting");
  show(byId("banner"), away);
  setText(byId("banner-words"), away ? words : "");
  show(byId("board"), state !== "refused");
  show(byId("gate"), state === "refused");
  if (state === "refused") {
    setText(byId("gate-title"), token ? "This token is not accepted" : "This page needs a token");
    setText(byId("gate-words"), token ? "The server refused it. It may be from an earlier run of the program." : "The server shows its calls only to those who have its token.");
    byId("token").focus();
  }
  if (state !== before) announce({ live: "Connected", reconnecting: "Connection lost, reconnecting", refused: "The token was refused" }[state] ?? "");
}

function connect() {
  connection?.stop();
  connection = new Connection(token, connectionIs, handlers);
  connection.open(opened);
  connection.start();
}

byId("gate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  byId("token").value = "";
  keepToken(token);
  connect();
});
if (history.state?.call) history.replaceState(null, "");
addEventListener("popstate", () => {
  if (!history.state?.call) close();
});
for (const link of document.querySelectorAll(".skip")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    if (link.hash === "#list") list.focus(opened);
    else byId("pane").focus();
  });
}
addEventListener("hashchange", () => {
  if (!location.hash.includes("token=")) return;
  token = takeToken();
  connect();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    byId("search").focus();
  } else if (event.key === "Escape" && event.target === byId("search")) {
    if (!byId("search").value) list.focus(opened);
  }
});
setInterval(() => {
  list.tick(calls.now());
  pane.tick(calls.now());
}, 1000);
setInterval(() => {
  calls.sweep();
  wake();
}, 10_000);

switchThemesWith(byId("theme"));
setText(byId("session"), location.host);
wake();
connect();
