// An ordinary Socket.IO server that shows what workers put into Redis: node front.mjs <port of Redis>
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { createClient } = require("redis");
const { Server } = require("socket.io");
const { createAdapter } = require("@socket.io/redis-adapter");

const redis = await createClient({ url: `redis://127.0.0.1:${process.argv[2]}` }).connect();
const io = new Server(0, { adapter: createAdapter(redis, await redis.duplicate().connect()) });

async function everyCall() {
  const workers = await redis.sMembers("agentao-live:workers");
  const found = await Promise.all(workers.map((worker) => redis.hVals(`agentao-live:calls:${worker}`)));
  return found.flat().map((call) => JSON.parse(call));
}

io.on("connection", (socket) => {
  socket.on("subscribe_to_calls", async (done) => {
    await socket.join("call-updates");
    const epoch = await redis.get("agentao-live:epoch");
    socket.emit("active_calls", await everyCall(), { epoch, serverTime: new Date().toISOString() });
    done({ ok: true });
  });
});
console.log(JSON.stringify({ port: io.httpServer.address().port }));
