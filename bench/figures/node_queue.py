"""A node that is full (regatta-node): goodput at 1, 2 and 10 times what it can do, how refusals fare, memory beside the bound it states.

Two ways: `refuse` and `caller-runs`, both with the queue of the defaults, and a tool so slow that a full queue is longer than a request may
take: what is begun too late would fail, and so would all behind it.
"""

import os
import re
import threading
import time
import urllib.request
from pathlib import Path

from figures.node import echo_server
from rig import host, table

# So many places and so long a call: what it can do is known beforehand. The queue of 1,000 is 4 s long, a request may take 5 s.
PLACES, DELAY_MS = 50, 200
CAPACITY = PLACES * 1000 // DELAY_MS
# More than the places and the queue, so that some are refused.
CONNECTIONS = 1_400
SETTINGS = {"CONCURRENT_MAX": PLACES, "REQUEST_BYTES_MAX": 65536, "CONNECTIONS_MAX": 2_000, "STREAMS_MAX": 1_000}
GOODPUT_LEAST = 0.8


def start(rig, server, when_full):
    [port] = host.free_ports(1)
    told = {f"REGATTA_NODE_{name}": str(value) for name, value in SETTINGS.items()}
    os.environ.update(told, REGATTA_NODE_ADDRESS=f"127.0.0.1:{port}", REGATTA_NODE_WHEN_FULL=when_full, ECHO_DELAY_MS=str(DELAY_MS))
    process = rig.start([server], host.CORE_OF_PROXY)
    rig.wait_for(port, process)
    return process, port


def bound(process, port) -> int:
    """Bytes, as the node tells them; what it prints at its start must be the same."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        told = int(re.search(r"^regatta_node_memory_max_bytes (\d+)$", answer.read().decode(), re.MULTILINE).group(1))
    printed = re.search(r"memory_max_mib\D*=\D*(\d+)", re.sub(r"\x1b\[\d*m", "", Path(process.log).read_text()))
    if not printed or int(printed.group(1)) != told >> 20:
        raise SystemExit(f"error: the node printed no bound, or another than {told}: {Path(process.log).read_text()}")
    return told


class Highest:
    """The most memory that a process had while this is open."""

    def __init__(self, pid):
        self.pid, self.bytes, self.over = pid, 0, threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.over.wait(0.05):
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            self.bytes = max(self.bytes, pages * os.sysconf("SC_PAGE_SIZE"))

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def run(options, programs):
    """Open loop, both ways; gates: goodput at 10 times at least 80 % of the peak, memory within the bound."""
    server, missed, rows = echo_server(), [], []
    for when_full in ("refuse", "caller-runs"):
        with host.Rig(programs) as rig:
            process, port = start(rig, server, when_full)
            told, at = bound(process, port), {}
            with Highest(process.pid) as highest:
                for times in (0.8, 1, 2, 10):
                    # Longer than a request may take: what a full queue does shows after its first round.
                    words = ["--kind", "open", "--era", "modern", "--rate", CAPACITY * times, "--connections", CONNECTIONS]
                    report = rig.load(port, *words, "--warm-up", 6, "--seconds", max(6, options.seconds))
                    at[times] = report["per_second"]
                    latency, refusals = report["latency"], report["refusals"]
                    rows.append([f"{when_full}, {times} x", report["per_second"], latency["p50_us"] / 1e3, latency["p99_us"] / 1e3,
                                 sum(report["statuses"].values()), refusals["p50_us"] / 1e3, refusals["p99_us"] / 1e3, report["broken"],
                                 highest.bytes / 2**20])
            share = at[10] / max(at.values())
            rows.append([f"{when_full}: bound stated, MiB", *[None] * 7, told / 2**20])
            if share < GOODPUT_LEAST:
                missed.append(f"{when_full}: goodput at 10 x is {share:.0%} of the peak, at least {GOODPUT_LEAST:.0%} wanted")
            if highest.bytes > told:
                missed.append(f"{when_full}: {highest.bytes >> 20} MiB, over the bound of {told >> 20}")
            time.sleep(0.2)
    title = f"A node of {PLACES} places, {DELAY_MS} ms a call = {CAPACITY}/s; queue of 1,000; open loop on {CONNECTIONS} connections"
    table.show(title, ["", "right/s", "p50 ms", "p99 ms", "refused", "refused p50 ms", "p99 ms", "broken", "RSS MiB"], rows)
    return missed
