"""The official conformance suite on nodes (crates/regatta-node), check for check beside the same handler on rmcp alone.

Once on one node without a store, once on two nodes over Redis behind an nginx that hands out requests in turn and knows
nothing of sessions. Nothing that rmcp passes may fail on a node; what a node answers as JSON has no checks of its stream.
"""

import os
import re
import shutil
from pathlib import Path

from .conformance import Run, differences
from .processes import LOGS, ROOT, Processes, StartFailed, free_port

REQUIREMENTS = ("2025-11-25", "2026-07-28")
# Checks of the stream of an answer that is JSON where it can be: absent on a node, and allowed to be.
OF_STREAMS = {
    "server-sse-streams-functional",
    "server-sse-disconnect-resume",
    "server-sse-priming-event",
    "server-sse-retry-field",
}


class Trial:
    """What Run asks of a trial."""

    scenarios, scenario_ms = "", 10_000

    def __init__(self, requirements):
        self.requirements = requirements


def everything():
    """The example server: REGATTA_NODE_EVERYTHING, else the debug build of this checkout."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    binary = Path(os.environ.get("REGATTA_NODE_EVERYTHING", target / "debug" / "examples" / "everything"))
    if not binary.exists():
        raise StartFailed(f"no example server {binary}\nhint: cargo build --workspace --examples")
    return binary


def plain(processes):
    port = free_port()
    processes.start(f"rmcp-{port}", [everything(), "--plain", port], port)
    return f"http://127.0.0.1:{port}/mcp"


def node(processes, store=None):
    """One node; gives its port."""
    port = free_port()
    settings = {"REGATTA_NODE_ADDRESS": f"127.0.0.1:{port}"}
    if store:
        settings["REGATTA_NODE_STORE_URL"] = store
    command = ["env", *(f"{name}={value}" for name, value in settings.items()), everything()]
    processes.start(f"node-{port}", command, port)
    return port


def redis(processes):
    port = free_port()
    binary = shutil.which("redis-server", path=os.environ["PATH"] + ":/usr/sbin")
    processes.start("redis", [binary, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"], port)
    return f"redis://127.0.0.1:{port}"


def in_turn(processes, ports):
    """nginx that hands out requests to `ports` in turn; gives its URL."""
    folder, listen = LOGS / "runtime-nginx", free_port()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    text = (ROOT / "tests" / "official" / "nginx.conf").read_text()
    upstream = "upstream nodes { " + " ".join(f"server 127.0.0.1:{port};" for port in ports) + " }\n    server {"
    text = re.sub(r"server \{", upstream, text, count=1).replace("http://127.0.0.1:UPSTREAM", "http://nodes")
    # The nodes check Host themselves; a stream must not be buffered.
    passed = "proxy_set_header Host $http_host; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_buffering off;"
    text = text.replace("proxy_pass ", passed + " proxy_pass ")
    (folder / "nginx.conf").write_text(text.replace("FOLDER", str(folder)).replace("LISTEN", str(listen)))
    binary = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    processes.start("nginx", [binary, "-p", folder, "-c", folder / "nginx.conf"], listen)
    return f"http://127.0.0.1:{listen}/mcp"


def compare(requirements, reference, urls):
    """Runs one set on all of them; gives (passed, failed)."""
    trial, passed, failed = Trial(requirements), 0, 0
    first, second = (Run(reference, trial, f"runtime-{requirements}-rmcp-{at}") for at in (1, 2))
    print(f"conformance {requirements} on nodes\n  rmcp     {first.totals()} ({first.seconds:.1f} s, exit {first.code})")
    for label, url in urls.items():
        on_node = Run(url, trial, f"runtime-{requirements}-{label}")
        print(f"  {label:8} {on_node.totals()} ({on_node.seconds:.1f} s, exit {on_node.code})")
        rows = [row for row in differences(first, second, on_node) if row[0].split(" / ")[1] not in OF_STREAMS or row[2]]
        for check, direct, seen, words in rows:
            print(f"  DIFFERS {check}\n    rmcp {' '.join(direct) or '(absent)'}\n    node {' '.join(seen) or '(absent)'}\n    {words[:400]}")
        exit_differs = on_node.code != first.code and not rows
        if exit_differs or not on_node.verdicts:
            print(f"  FAIL exit code {on_node.code}, rmcp {first.code}:\n{on_node.output[-800:]}")
        passed += len(on_node.verdicts) - len(rows)
        failed += len(rows) + (exit_differs or not on_node.verdicts)
    if first.code != 0:
        print(f"  FAIL rmcp itself does not pass (exit {first.code})")
        failed += 1
    return passed, failed


def run(direct_only=False):
    """Runs both sets; gives (passed, failed)."""
    if direct_only:
        return 0, 0
    passed = failed = 0
    with Processes("runtime") as processes:
        store = redis(processes)
        reference = plain(processes)
        urls = {
            "one": f"http://127.0.0.1:{node(processes)}/mcp",
            "in-turn": in_turn(processes, [node(processes, store), node(processes, store)]),
        }
        for requirements in REQUIREMENTS:
            more_passed, more_failed = compare(requirements, reference, urls)
            passed, failed = passed + more_passed, failed + more_failed
    return passed, failed
