"""A node (regatta-node) beside rmcp alone: user instructions and system calls a `tools/call` echo, one thread each; gate 1.15.

The same handler in the same program, the same client, four connections, no store. Instructions are counted by valgrind's callgrind, as in
bench/guard: two amounts of work, and the difference; they are those of user space, so the system calls stand beside them (strace). In the legacy
era rmcp is measured twice: with its sessions, as whoever needs sessions runs it (a task for each, answers as streams), and without any, which
answers in JSON as the node does and knows nothing of its client. The gate is for both. In the modern era both are the same.
"""

import contextlib
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
# How the example is told what to be; the node listens where the environment says.
RIVALS = {"legacy": ("--sessions", "--stateless"), "modern": ("--stateless",)}
NAMES = {"--sessions": "rmcp with sessions", "--stateless": "rmcp without"}


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


@contextlib.contextmanager
def served(server: Path, which: str, watched_by: list, said: list):
    """The server under a tool; what the tool says at the end is added to `said`."""
    [port] = free_ports(1)
    told = {"REGATTA_NODE_ADDRESS": f"127.0.0.1:{port}", "REGATTA_NODE_WORKER_THREADS": "1"}
    command = [*map(str, watched_by), str(server)] + ([] if which == "node" else [which, str(port)])
    process = subprocess.Popen(command, env={**os.environ, **told}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        end = time.monotonic() + 60
        while not listening(port):
            if time.monotonic() > end:
                sys.exit(f"error: {which} did not listen within 60 s")
            time.sleep(0.1)
        yield process, port
    finally:
        # strace passes no signal on: its child is asked.
        child = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        os.kill(int(child[0]) if child else process.pid, signal.SIGINT)
        said.append(process.communicate(timeout=60)[1])


def instructions(server: Path, load: Path, which: str, era: str, count: int) -> int:
    """What the server executes in user space for `count` calls, and for opening their connections and sessions."""
    with tempfile.TemporaryDirectory(prefix="regatta-node-") as folder:
        tool = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out"]
        said = []
        with served(server, which, tool, said) as (process, port):
            drive(load, port, era, WARM)
            control("on", process)
            drive(load, port, era, count)
            control("off", process)
        collected = re.search(r"Collected : (\d+)", said[0])
        if not collected:
            sys.exit(f"error: callgrind gave no count:\n{said[0][-800:]}")
        return int(collected.group(1))


def system_calls(server: Path, load: Path, which: str, era: str, count: int) -> int:
    """How often the server calls the kernel for `count` calls, start and end included."""
    with tempfile.TemporaryDirectory(prefix="regatta-node-") as folder:
        out, said = Path(folder) / "out", []
        with served(server, which, ["strace", "-f", "-c", "-o", out], said) as (_, port):
            drive(load, port, era, count)
        total = re.search(r"^100\.00\s.*?(\d+)\s+(?:\d+\s+)?total$", out.read_text(), re.MULTILINE)
        if not total:
            sys.exit(f"error: strace gave no count:\n{out.read_text()[-800:]}{said}")
        return int(total.group(1))


def a_call(count, *of) -> float:
    small, large = (count(*of, number) for number in (SMALL, LARGE))
    return (large - small) / (LARGE - SMALL)


def run(options, programs):
    """Counts all in both eras; gives what missed the gate."""
    for needed in ("valgrind", "strace"):
        if not shutil.which(needed):
            sys.exit(f"error: missing: {needed}\nhint: on Debian: apt-get install valgrind strace")
    server, load = echo_server(), Path(programs.load) if programs else ROOT / "target" / "debug" / "examples" / "load"
    rows, missed = [], []
    for era, rivals in RIVALS.items():
        node = a_call(instructions, server, load, "node", era)
        rows.append([f"{era}: node", round(node), None, a_call(system_calls, server, load, "node", era)])
        for which in rivals:
            rival = a_call(instructions, server, load, which, era)
            rows.append([f"{era}: {NAMES[which]}", round(rival), node / rival, a_call(system_calls, server, load, which, era)])
            if node / rival > GATE:
                missed.append(f"{era}: {node / rival:.2f} x {NAMES[which]}")
    table.show(f"A call at a node and at rmcp alone; gate {GATE}", ["", "user instructions", "node is x of it", "system calls"], rows)
    return missed
