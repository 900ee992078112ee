#!/usr/bin/env python3
"""A plain MCP server that is a node of a fleet: it joins the registry, heartbeats, drains on SIGTERM and leaves.

    pip install redis; node.py --port 3001 --redis redis://127.0.0.1:6379 --server shop --tool greet

With REGISTRY_SECRET in the environment the entry is signed. The schema: docs/registry.md.
"""

import argparse, base64, hashlib, hmac, json, os, secrets, signal, struct, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import redis

HEARTBEAT_S, ENTRY_TTL_S, DRAIN_MAX_S = 2, 30, 20

parser = argparse.ArgumentParser()
for name, default in [("port", "3001"), ("redis", "redis://127.0.0.1:6379"), ("server", "shop"), ("tool", "greet")]:
    parser.add_argument("--" + name, default=default)
typed = parser.parse_args()
running, stop = 0, threading.Event()  # `running` is for people and balance: a lost count does no harm


def answer(method, params):
    """The result of a request, or None."""
    if method == "initialize":
        info = {"name": "python-node", "version": "1"}
        return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return {"tools": [{"name": typed.tool, "inputSchema": {"type": "object"}}]}
    if method == "tools/call" and params.get("name") == typed.tool:
        return {"content": [{"type": "text", "text": "hello from python"}]}
    return {} if method == "ping" else None


class Mcp(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global running
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "id" not in message:
            return self.reply(202, b"")
        running += 1
        try:
            result = answer(message.get("method"), message.get("params") or {})
            said = {"result": result} if result is not None else {"error": {"code": -32602, "message": "no such thing"}}
            self.reply(200, json.dumps({"jsonrpc": "2.0", "id": message["id"], **said}).encode())
        finally:
            running -= 1

    def do_GET(self): self.reply(405, b"")

    def log_message(self, *_): pass

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Registration:
    def __init__(self):
        self.store = redis.Redis.from_url(typed.redis, socket_timeout=2)
        self.id, self.signed = f"python-{typed.port}", {
            "boot": secrets.token_hex(8), "url": f"http://127.0.0.1:{typed.port}/mcp", "server": typed.server,
            "tools": json.dumps([typed.tool]), "sessionState": "external"}
        if secret := os.environ.get("REGISTRY_SECRET"):
            parts = [self.id.encode()] + [value.encode() for value in self.signed.values()]
            text = b"".join(struct.pack(">I", len(part)) + part for part in parts)
            mac = hmac.new(secret.encode(), text, hashlib.sha256).digest()
            self.signed["sig"] = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()

    def beat(self, status):
        """Writes everything each time: so it is there again after the store was wiped."""
        key, fields = f"mcp:node:{self.id}", {"status": status, "lastHeartbeat": int(time.time()), "load": running, "maxLoad": 50}
        all_at_once = self.store.pipeline(transaction=False)  # in a cluster the two keys are at different places
        all_at_once.hset(key, mapping={**self.signed, **fields}).expire(key, ENTRY_TTL_S).sadd("mcp:nodes", self.id)
        all_at_once.execute()

    def leave(self):
        self.store.srem("mcp:nodes", self.id)
        self.store.delete(f"mcp:node:{self.id}")


registration = Registration()
http = ThreadingHTTPServer(("127.0.0.1", int(typed.port)), Mcp)
threading.Thread(target=http.serve_forever, daemon=True).start()
for sign in (signal.SIGTERM, signal.SIGINT):
    signal.signal(sign, lambda *_: stop.set())
draining = 0  # heartbeats since SIGTERM: gateways have read the second one before the node leaves
while draining < 3 or (running > 0 and draining * HEARTBEAT_S < DRAIN_MAX_S):
    try:
        registration.beat("stopping" if stop.is_set() else "running")
    except redis.RedisError as why:
        print("the registry is away:", why, flush=True)
    draining += stop.is_set()
    time.sleep(HEARTBEAT_S) if draining else stop.wait(HEARTBEAT_S)
registration.leave()
