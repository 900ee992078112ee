"""A node (regatta-node) beside rmcp alone: user instructions a `tools/call` echo, the same handler and one thread each; gate 1.15.

Counted by valgrind's callgrind, as in bench/guard: two amounts of work, and the difference. Without a store. Both answer in JSON where they
can; rmcp alone answers a legacy call with a stream, and keeps a task a session.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rig import table
from rig.host import free_ports

GATE = 1.15
WARM, SMALL, LARGE = 40, 200, 1_000
ROOT = Path(__file__).resolve().parents[2]


def echo_server() -> Path:
    """The example, built for release: REGATTA_NODE_ECHO, or built now."""
    if "REGATTA_NODE_ECHO" in os.environ:
        return Path(os.environ["REGATTA_NODE_ECHO"])
    subprocess.run(["cargo", "build", "--release", "-p", "regatta-node", "--example", "echo"], cwd=ROOT, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "examples" / "echo"


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def control(switch: str, process) -> None:
    """Starts or stops counting: what a start costs differs from run to run by more than all calls."""
    subprocess.run(["callgrind_control", "-i", switch, str(process.pid)], capture_output=True, check=True)


def drive(load: Path, port: int, era: str, count: int) -> None:
    words = [load, f"http://127.0.0.1:{port}/mcp", "--kind", "closed", "--era", era, "--connections", "4", "--count", str(count)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    if "0 wrong, 0 broken" not in done.stdout:
        sys.exit(f"error: the load did not run well:\n{done.stdout}{done.stderr}")


def instructions(server: Path, load: Path, which: str, era: str, count: int) -> int:
    """What the server executes in user space for `count` calls, and for opening their connections and sessions."""
    with tempfile.TemporaryDirectory(prefix="regatta-node-") as folder:
        [port] = free_ports(1)
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out", server]
        told = {"REGATTA_NODE_ADDRESS": f"127.0.0.1:{port}", "REGATTA_NODE_WORKER_THREADS": "1"}
        if which == "rmcp":
            command += ["--plain", str(port)]
        process = subprocess.Popen(command, env={**os.environ, **told}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            end = time.monotonic() + 60
            while not listening(port):
                if time.monotonic() > end:
                    sys.exit(f"error: {which} did not listen within 60 s")
                time.sleep(0.1)
            drive(load, port, era, WARM)
            control("on", process)
            drive(load, port, era, count)
            control("off", process)
        finally:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        collected = re.search(r"Collected : (\d+)", said)
        if not collected:
            sys.exit(f"error: callgrind gave no count:\n{said[-800:]}")
        return int(collected.group(1))


def run(options, programs):
    """Counts both in both eras; gives what missed the gate."""
    if not shutil.which("valgrind"):
        sys.exit("error: missing: valgrind\nhint: on Debian: apt-get install valgrind")
    server, load = echo_server(), Path(programs.load) if programs else ROOT / "target" / "debug" / "examples" / "load"
    rows, missed = [], []
    for era in ("legacy", "modern"):
        each = {}
        for which in ("rmcp", "node"):
            small, large = (instructions(server, load, which, era, count) for count in (SMALL, LARGE))
            each[which] = (large - small) / (LARGE - SMALL)
        ratio = each["node"] / each["rmcp"]
        rows.append([era, round(each["rmcp"]), round(each["node"]), ratio])
        if ratio > GATE:
            missed.append(f"{era}: {ratio:.2f} x rmcp")
    table.show(f"User instructions a call, node beside rmcp alone; gate {GATE}", ["", "rmcp", "node", "x rmcp"], rows)
    return missed
