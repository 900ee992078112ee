// A plain MCP server that is a node of a fleet: it joins the registry, heartbeats, drains on SIGTERM and leaves.
//
//   npm install redis
//   node node.mjs --port 3002 --redis redis://127.0.0.1:6379 --server shop --tool greet
//
// With REGISTRY_SECRET in the environment the entry is signed. The schema: docs/registry.md.

import { createHmac, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { createClient } from "redis";

const HEARTBEAT_MS = 2000, ENTRY_TTL_S = 30, DRAIN_MAX_MS = 20000;
const options = {
  port: { type: "string", default: "3002" },
  redis: { type: "string", default: "redis://127.0.0.1:6379" },
  server: { type: "string", default: "shop" },
  tool: { type: "string", default: "greet" },
};
const typed = parseArgs({ options }).values;
let running = 0;

/** The result of a request, or undefined. */
function answer(method, params) {
  if (method === "initialize") {
    const serverInfo = { name: "node-node", version: "1" };
    return { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo };
  }
  if (method === "tools/list") return { tools: [{ name: typed.tool, inputSchema: { type: "object" } }] };
  if (method === "tools/call" && params?.name === typed.tool) {
    return { content: [{ type: "text", text: "hello from node" }] };
  }
  return method === "ping" ? {} : undefined;
}

const http = createServer(async (request, response) => {
  if (request.method !== "POST") return response.writeHead(405, { allow: "POST" }).end();
  running += 1;
  response.once("close", () => (running -= 1));
  let text = "";
  for await (const chunk of request) text += chunk;
  const { id, method, params } = JSON.parse(text);
  if (id === undefined) return response.writeHead(202).end();
  const result = answer(method, params);
  const said = result ? { result } : { error: { code: -32602, message: "no such thing" } };
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify({ jsonrpc: "2.0", id, ...said }));
});

const id = `node-${typed.port}`, key = `mcp:node:${id}`;
const signed = {
  boot: randomBytes(8).toString("hex"),
  url: `http://127.0.0.1:${typed.port}/mcp`,
  server: typed.server,
  tools: JSON.stringify([typed.tool]),
  sessionState: "external",
};
if (process.env.REGISTRY_SECRET) {
  const mac = createHmac("sha256", process.env.REGISTRY_SECRET);
  for (const part of [id, ...Object.values(signed)]) {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(Buffer.byteLength(part));
    mac.update(length).update(part);
  }
  signed.sig = mac.digest("base64url");
}

const store = createClient({ url: typed.redis, disableOfflineQueue: true });
store.on("error", (why) => console.log("the registry is away:", why.message));

/** Writes everything each time: so it is there again after the store was wiped. */
async function beat(status) {
  const fields = { status, lastHeartbeat: Math.floor(Date.now() / 1000), load: running, maxLoad: 50 };
  // Pipelined, no transaction: in a cluster the two keys are at different places.
  await Promise.all([store.hSet(key, { ...signed, ...fields }), store.expire(key, ENTRY_TTL_S), store.sAdd("mcp:nodes", id)]);
}

let stopping = false, wake = () => {};
for (const sign of ["SIGTERM", "SIGINT"]) process.on(sign, () => { stopping = true; wake(); });
const pause = () => new Promise((done) => { if (!stopping) wake = done; setTimeout(done, HEARTBEAT_MS); });

http.listen(Number(typed.port), "127.0.0.1");
await Promise.race([store.connect().catch(() => {}), pause()]);
// `draining` counts heartbeats since SIGTERM: gateways have read the second one before the node leaves.
for (let draining = 0; draining < 3 || (running && draining * HEARTBEAT_MS < DRAIN_MAX_MS); draining += stopping) {
  await beat(stopping ? "stopping" : "running").catch((why) => console.log("no heartbeat:", why.message));
  await pause();
}
await Promise.all([store.sRem("mcp:nodes", id), store.del(key)]).catch(() => {});
process.exit(0);
