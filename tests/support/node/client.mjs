// The official Socket.IO client, driven by lines of JSON: each says what to emit; each line out says what came.
//   node client.mjs '{"url": …, "transports": […], "auth": {…}}'

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { io } = createRequire(process.cwd() + "/")("socket.io-client");
const { url, slow, ...options } = JSON.parse(process.argv[2]);
const say = (name, ...args) => console.log(JSON.stringify({ name, args, transport: socket.io.engine?.transport?.name }));

const socket = io(url, { autoConnect: false, reconnectionDelay: 50, reconnectionDelayMax: 100, randomizationFactor: 0, ...options });
socket.on("connect", () => say("connect", socket.id));
socket.on("connect_error", (error) => say("connect_error", error.message));
socket.on("disconnect", (reason, details) => say("disconnect", reason, details?.context?.code ?? null));
socket.io.on("open", () => socket.io.engine.on("upgrade", () => say("upgrade")));
socket.onAny((name, ...args) => say(name, ...args));
if (slow) socket.on("connect", () => socket.io.engine.transport.ws._socket.pause());

socket.connect();
createInterface({ input: process.stdin }).on("line", (line) => {
  const asked = JSON.parse(line);
  if (asked === "resume") socket.io.engine.transport.ws._socket.resume();
  else socket.emit(...asked, (answer) => say("ack", asked[0], answer));
}).on("close", () => process.exit(0));
