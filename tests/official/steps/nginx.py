"""nginx with default buffering in front of the gateway: every event must still reach the client at once.

nginx buffers an answer unless it says `X-Accel-Buffering: no`, and speaks HTTP/1.0 to what is behind it,
so this also covers streams whose end is the end of the connection.
"""

import http.client
import json
import os
import shutil
import time

from .processes import LOGS, ROOT, Processes, free_port, port_of

AT_ONCE_SECONDS = 0.6
CALL_MS = 1500
ACCEPT = "application/json, text/event-stream"


class Stream:
    """One request and its SSE answer, with the moment each event arrived (seconds after the request)."""

    def __init__(self, port, method, headers, body=None):
        self.began = time.monotonic()
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        sent = {"Accept": ACCEPT, "Content-Type": "application/json", **headers}
        self.connection.request(method, "/mcp", json.dumps(body) if body else None, sent)
        self.answer = self.connection.getresponse()
        assert self.answer.status in (200, 202), f"HTTP {self.answer.status}: {self.answer.read()[:200]}"

    def event(self):
        """(seconds, id line or None, data) of the next event; data is None at the end."""
        data, identity = [], None
        while line := self.answer.readline():
            field, _, value = line.decode().rstrip("\r\n").partition(":")
            if field == "data":
                data.append(value.strip())
            elif field == "id":
                identity = value.strip()
            elif not field and not value and (data or identity):
                return time.monotonic() - self.began, identity, "\n".join(data)
        return time.monotonic() - self.began, None, None

    def close(self):
        self.connection.close()


def request(number, method, params):
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def legacy_session(port):
    """Headers of a new legacy session."""
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "official-nginx", "version": "1"}}
    first = Stream(port, "POST", {}, request(1, "initialize", params))
    headers = {"Mcp-Session-Id": first.answer.headers["Mcp-Session-Id"], "MCP-Protocol-Version": "2025-11-25"}
    first.answer.read()
    first.close()
    Stream(port, "POST", headers, {"jsonrpc": "2.0", "method": "notifications/initialized"}).close()
    return headers


def modern(method, params, name=None):
    """Headers and params of a modern request."""
    version = "2026-07-28"
    meta = {"io.modelcontextprotocol/protocolVersion": version, "io.modelcontextprotocol/clientCapabilities": {}}
    headers = {"MCP-Protocol-Version": version, "Mcp-Method": method, **({"Mcp-Name": name} if name else {})}
    return headers, {**params, "_meta": {**meta, **params.get("_meta", {})}}


def progress_arrives(stream):
    """The first progress comes at once, the result last and not before the call is done."""
    events = []
    while not events or '"result"' not in (events[-1][2] or ""):
        events.append(stream.event())
        assert events[-1][2] is not None, f"the stream ended without a result after {events}"
    progress = [seconds for seconds, _, data in events if "notifications/progress" in data]
    assert progress and progress[0] < AT_ONCE_SECONDS, f"first progress after {progress[:1]} s"
    assert events[-1][0] >= CALL_MS / 1000, "the result came before the call was done"
    stream.close()


def call_legacy(port):
    params = {"name": "sleep", "arguments": {"ms": CALL_MS}, "_meta": {"progressToken": "p"}}
    progress_arrives(Stream(port, "POST", legacy_session(port), request(2, "tools/call", params)))


def call_modern(port):
    call = {"name": "sleep", "arguments": {"ms": CALL_MS}, "_meta": {"progressToken": "p"}}
    headers, params = modern("tools/call", call, "sleep")
    progress_arrives(Stream(port, "POST", headers, request(3, "tools/call", params)))


def standing_stream(port):
    stream = Stream(port, "GET", legacy_session(port))
    seconds, identity, data = stream.event()
    assert identity and data == "" and seconds < AT_ONCE_SECONDS, f"first event {data!r}, id {identity!r}, after {seconds:.2f} s"
    stream.close()


def listen(port):
    headers, params = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    stream = Stream(port, "POST", headers, request(4, "subscriptions/listen", params))
    seconds, _, data = stream.event()
    assert "acknowledged" in data and seconds < AT_ONCE_SECONDS, f"{data!r} after {seconds:.2f} s"
    stream.close()


CHECKS = [
    ("a legacy call's progress arrives at once", call_legacy),
    ("a modern call's progress arrives at once", call_modern),
    ("a standing stream is primed at once", standing_stream),
    ("a subscription is acknowledged at once", listen),
]


def start_nginx(processes, upstream):
    """nginx in front of the port of `upstream`; gives its own port."""
    folder, port = LOGS / "nginx", free_port()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    text = (ROOT / "tests" / "official" / "nginx.conf").read_text()
    filled = text.replace("FOLDER", str(folder)).replace("LISTEN", str(port)).replace("UPSTREAM", str(port_of(upstream)))
    (folder / "nginx.conf").write_text(filled)
    binary = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    processes.start("nginx", [binary, "-p", folder, "-c", folder / "nginx.conf"], port)
    return port


def run(direct_only=False):
    """Runs the checks; gives (passed, failed)."""
    # A demo server does not prime its standing stream; the gateway does.
    checks = [check for check in CHECKS if not (direct_only and check[1] is standing_stream)]
    failed = 0
    with Processes("nginx") as processes:
        replicas = [processes.demo()[0] for _ in range(2)]
        upstream = replicas[0] if direct_only else processes.gateway("behind", replicas)[0]
        port = start_nginx(processes, upstream)
        for what, check in checks:
            try:
                check(port)
                print(f"ok nginx: {what}")
            except (AssertionError, OSError, http.client.HTTPException, TypeError) as why:
                failed += 1
                print(f"FAIL nginx: {what}: {type(why).__name__} {why}")
    return len(checks) - failed, failed
