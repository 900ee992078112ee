"""Plain MCP clients of several gateways: they go to another one when one refuses, and they note everything they hear."""

import contextlib
import http.client
import json
import threading
import time

VERSION = "2025-11-25"
MODERN = "2026-07-28"
ACCEPT = "application/json, text/event-stream"


class Client:
    """One client with a kept connection to each gateway."""

    def __init__(self, ports: list[int], number: int):
        self.ports, self.number = ports, number
        self.connections = {}

    def send(self, gateway: int, verb: str, headers: dict, body=None):
        """The head of an answer; OSError or HTTPException if there is none."""
        sent = {"Accept": ACCEPT, "Content-Type": "application/json", **headers}
        connection = self.connections.pop(gateway, None) or http.client.HTTPConnection("127.0.0.1", self.ports[gateway], timeout=30)
        connection.request(verb, "/mcp", json.dumps(body) if body else None, sent)
        answer = connection.getresponse()
        answer.kept = connection
        return answer

    def keep(self, gateway: int, answer):
        """Gives a connection back whose answer was read."""
        self.connections[gateway] = answer.kept

    def open(self, gateway: int) -> dict:
        """Headers of a new legacy session."""
        params = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        answer = self.send(gateway, "POST", {}, request(0, "initialize", params))
        session = {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"], "MCP-Protocol-Version": VERSION}
        answer.read()
        self.keep(gateway, answer)
        answer = self.send(gateway, "POST", session, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        answer.read()
        self.keep(gateway, answer)
        return session

    def call(self, gateway: int, headers: dict, body: dict, operation: str) -> str:
        """One call of `echo`; what came of it in a word."""
        try:
            answer = self.send(gateway, "POST", headers, body)
        except ConnectionRefusedError:
            return "refused"
        except (OSError, http.client.HTTPException):
            return "cut"
        try:
            text = answer.read()
            self.keep(gateway, answer)
            return outcome(answer.status, json.loads(text), operation)
        except (OSError, http.client.HTTPException, ValueError):
            return "cut"


def outcome(status: int, message: dict, operation: str) -> str:
    """What an answer to `echo` says."""
    error = message.get("error")
    if status == 404 or (error and error["code"] == -32001):
        return "404"
    if error:
        return "refused" if (error.get("data") or {}).get("executed") == "no" else f"fault {error['code']}"
    return "right" if message["result"]["content"][0]["text"] == operation else "wrong"


def request(number, method, params):
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def echo(operation: str, headers: dict) -> tuple[dict, dict]:
    """Headers and body of a call, in the session of `headers` or, if there is none, modern."""
    params = {"name": "echo", "arguments": {"text": operation}}
    if headers:
        return headers, request(1, "tools/call", params)
    meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "echo"}
    return headers, request(1, "tools/call", {**params, "_meta": meta})


class Caller(threading.Thread):
    """Calls again and again, at one gateway after the other; a call that nobody ran is sent to the next one."""

    def __init__(self, client: Client, session: dict, pause: float, until: float):
        super().__init__(daemon=True)
        self.client, self.session, self.pause, self.until = client, session, pause, until
        self.calls = []

    def run(self):
        turn = 0
        while time.time() < self.until:
            turn += 1
            operation = f"{'legacy' if self.session else 'modern'}-{self.client.number}-{turn}"
            headers, body = echo(operation, self.session)
            sent, word, tries = time.time(), "refused", 0
            while word == "refused" and tries < 200:
                word = self.client.call((turn + tries) % len(self.client.ports), headers, body, operation)
                tries += 1
                if word == "refused":
                    time.sleep(0.02)
            self.calls.append((sent, time.time(), word))
            time.sleep(self.pause)


class Listener(threading.Thread):
    """Calls `events` again and again; cuts each stream in the middle, and goes on at the other gateway until its end."""

    def __init__(self, client: Client, session: dict, count: int, every_ms: int, until: float):
        super().__init__(daemon=True)
        self.client, self.session, self.count, self.every_ms, self.until = client, session, count, every_ms, until
        self.streams = []

    def run(self):
        turn = 0
        while time.time() < self.until:
            turn += 1
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.streams.append(self.stream(turn % 2))

    def stream(self, gateway: int) -> dict:
        """Progress heard, ids seen, and how it ended."""
        arguments = {"count": self.count, "every_us": self.every_ms * 1000}
        params = {"name": "events", "arguments": arguments, "_meta": {"progressToken": "t"}}
        heard = {"progress": [], "ids": [], "end": None, "cuts": 0}
        answer = self.client.send(gateway, "POST", self.session, request(1, "tools/call", params))
        while heard["end"] is None and heard["cuts"] < 8:
            cut_after = self.count // 2 if heard["cuts"] == 0 else None
            read(answer, heard, cut_after)
            if heard["end"] is None:
                heard["cuts"] += 1
                answer = self.resume(gateway := 1 - gateway, heard)
                if answer is None:
                    heard["end"] = "never primed" if not heard["ids"] else "no gateway"
        return heard

    def resume(self, gateway: int, heard: dict):
        if not heard["ids"]:
            return None
        headers = {**self.session, "Last-Event-ID": heard["ids"][-1]}
        for turn in range(100):
            try:
                answer = self.client.send((gateway + turn) % 2, "GET", headers)
                if answer.status == 200:
                    return answer
                heard["end"] = f"status {answer.status}"
                return answer
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
        return None


def read(answer, heard: dict, cut_after):
    """Reads events until the stream ends, breaks, or has to be cut."""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        while line := answer.readline():
            field, _, value = line.decode().rstrip("\r\n").partition(": ")
            if field == "id":
                heard["ids"].append(value)
            elif field == "data" and value.strip():
                message = json.loads(value)
                if "method" in message:
                    heard["progress"].append(message["params"]["progress"])
                else:
                    heard["end"] = "result" if "result" in message else f"fault {message['error']['code']}"
            if cut_after and len(heard["progress"]) >= cut_after and field == "":
                break
    answer.kept.close()
