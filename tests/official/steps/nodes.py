"""Nodes in Python and Node.js (examples/) in the registry of a real Redis, behind a gateway.

Each joins by itself, signed; each specialises in one tool, so every call shows who took it. They are stopped, drained
and killed; what is forged stays out.
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import time

from .nginx import request
from .processes import CACHE, LOGS, NODE, ROOT, Processes, free_port, gateway_binary

SECRET = "a secret of these tests"
LEASE_SECONDS, HEARTBEAT_SECONDS = 4, 2


def call(port, method, params):
    """One legacy request without a session, as these servers have none; gives (status, message)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    connection.request("POST", "/mcp", json.dumps(request(1, method, params)), headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text)


def said(port, tool):
    """What a tool says; the error's code if it fails."""
    _, message = call(port, "tools/call", {"name": tool, "arguments": {}})
    return message["result"]["content"][0]["text"] if "result" in message else message["error"]["code"]


def eventually(what, within, look):
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.05)
    return found


class Fleet:
    """Redis, a gateway over it, and what joins."""

    def __init__(self, processes):
        self.processes = processes
        self.redis = free_port()
        binary = shutil.which("redis-server", path=os.environ["PATH"] + ":/usr/sbin")
        arguments = ["--port", self.redis, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        processes.start("redis", [binary, *arguments], self.redis)
        self.port, admin = free_port(), free_port()
        folder = LOGS / "nodes"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "regatta.toml").write_text(
            f'[gateway]\nlisten = "127.0.0.1:{self.port}"\nadmin = "127.0.0.1:{admin}"\nstate_dir = "{folder}/state"\n'
            f'[store]\nurl = "redis://127.0.0.1:{self.redis}"\nregistry_poll = "500ms"\nregistry_lease = "{LEASE_SECONDS}s"\n'
            f'registry_secret = "{SECRET}"\n[[server]]\nname = "shop"\nregistry = true\nbalance = "round-robin"\n'
        )
        processes.start("gateway", [gateway_binary(), "serve", "--config", folder / "regatta.toml"], self.port)

    def join(self, language, tool, secret=SECRET):
        """A node of examples/; gives its process."""
        port = free_port()
        command = {
            "python": [CACHE / "python-1" / "bin" / "python", "-B", ROOT / "examples" / "python" / "node.py"],
            "node": [NODE, CACHE / "node" / "node.mjs"],
        }[language]
        # Node.js looks for packages beside the script.
        shutil.copy(ROOT / "examples" / "node" / "node.mjs", CACHE / "node" / "node.mjs")
        os.environ["REGISTRY_SECRET"] = secret
        try:
            more = ["--port", port, "--redis", f"redis://127.0.0.1:{self.redis}", "--server", "shop", "--tool", tool]
            return self.processes.start(f"{language}-{port}", [*command, *more], port)
        finally:
            del os.environ["REGISTRY_SECRET"]

    def cli(self, *words):
        command = ["redis-cli", "-p", str(self.redis), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()


def join_and_serve(fleet, nodes):
    nodes["python"], nodes["node"] = fleet.join("python", "hello_python"), fleet.join("node", "hello_node")
    for language in ("python", "node"):
        eventually(f"{language} serves", 15, lambda: said(fleet.port, f"hello_{language}") == f"hello from {language}")


def one_list(fleet, _):
    names = lambda: [tool["name"] for tool in call(fleet.port, "tools/list", {})[1]["result"]["tools"]]  # noqa: E731
    eventually("both tools are listed", 15, lambda: names() == ["hello_node", "hello_python"])


def forged(fleet, _):
    stranger = fleet.join("python", "steal", secret="another secret, as long")
    eventually("it is in the registry", 10, lambda: fleet.cli("SCARD", "mcp:nodes") == "3")
    time.sleep(2)
    assert said(fleet.port, "steal") == -32602, "a forged node got a call"
    stranger.kill()
    stranger.wait()
    fleet.cli("FLUSHALL")


def stopped(fleet, nodes):
    second = fleet.join("python", "hello_node")
    eventually("a second one serves", 15, lambda: said(fleet.port, "hello_node") == "hello from python")
    nodes["node"].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    eventually("the stopped one is left out", 20, lambda: all(said(fleet.port, "hello_node") == "hello from python" for _ in range(6)))
    print(f"   all calls elsewhere {time.monotonic() - began:.1f} s after SIGSTOP (lease {LEASE_SECONDS} s, heartbeat {HEARTBEAT_SECONDS} s)")
    nodes["node"].send_signal(signal.SIGCONT)
    eventually("it is back", 20, lambda: said(fleet.port, "hello_node") == "hello from node")
    second.terminate()
    assert second.wait(timeout=30) == 0
    assert said(fleet.port, "hello_node") == "hello from node"


def drained(fleet, nodes):
    nodes["python"].terminate()
    eventually("it says so", 10, lambda: "stopping" in fleet.cli("HGET", "mcp:node:" + python_id(nodes), "status"))
    assert nodes["python"].wait(timeout=30) == 0
    assert fleet.cli("SISMEMBER", "mcp:nodes", python_id(nodes)) == "0"
    assert said(fleet.port, "hello_python") == -31004, "its tool is refused, and nothing else"
    assert said(fleet.port, "hello_node") == "hello from node"


def python_id(nodes):
    arguments = [str(part) for part in nodes["python"].args]
    return "python-" + arguments[arguments.index("--port") + 1]


CHECKS = [
    ("nodes in Python and Node.js join and serve their tools", join_and_serve),
    ("clients are shown one list of both", one_list),
    ("a forged node gets no call", forged),
    ("a stopped node is left out and taken back", stopped),
    ("a terminated node drains, leaves and is missed", drained),
]


def run(direct_only=False):
    """Runs the checks; gives (passed, failed)."""
    if direct_only:
        return 0, 0
    failed, nodes = 0, {}
    with Processes("nodes") as processes:
        fleet = Fleet(processes)
        for what, check in CHECKS:
            try:
                check(fleet, nodes)
                print(f"ok nodes: {what}")
            except (AssertionError, OSError, http.client.HTTPException, KeyError, ValueError, subprocess.SubprocessError) as why:
                failed += 1
                print(f"FAIL nodes: {what}: {type(why).__name__} {why}")
    return len(CHECKS) - failed, failed
