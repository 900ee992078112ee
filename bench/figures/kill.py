"""kill -9 of a replica under 200 sessions in use: what each session sees, and what was executed twice."""

import collections
import json
import time

from rig import host, proxies, table

SESSIONS = 200
PAUSE_MS = 50


def run(options, programs):
    """Strict upstreams (a session is known only where it began), one killed; gate: all answered, p99 1 s, 0 x 404, 0 twice."""
    rows = []
    for name in proxies.available(options.proxies, programs):
        for round_ in range(options.repeats):
            rows.append(measure(options, programs, name, round_))
    title = f"kill -9 of one of two replicas under {SESSIONS} sessions, a call each {PAUSE_MS} ms"
    head = ["", "calls", "next call right", "p50 ms", "p99 ms", "max ms", "-31001", "other faults", "404", "other status", "wrong", "broken", "twice"]
    table.show(title, head, rows)
    bad = lambda row: row[0] == "gateway" and (row[2] != f"{SESSIONS}/{SESSIONS}" or not row[4] <= 1000 or any(row[column] for column in (8, 10, 12)))
    return [f"next calls right {row[2]}, p99 {row[4]:.0f} ms, {row[8]} x 404, {row[12]} twice" for row in rows if bad(row)]


def measure(options, programs, name: str, round_: int) -> list:
    with host.Rig(programs) as rig:
        ports = host.free_ports(2)
        words = ["--strict", "--delay-ms", "2", "--journal", str(rig.folder / "journal-{index}")]
        upstreams = rig.start_upstreams(ports, *words)
        _, port = proxies.start(rig, name, ports)
        record = rig.folder / "record"
        shape = ["--kind", "sessions", "--connections", SESSIONS, "--pause-ms", PAUSE_MS, "--seed", round_ + 1]
        load = rig.load(port, *shape, "--seconds", 8, "--record", record, popen=True)
        time.sleep(3)
        upstreams[round_ % 2].kill()
        # Until it is reaped, its sockets still take in what nobody will read.
        upstreams[round_ % 2].wait()
        killed = time.time()
        report = host.report_of(load)
        calls = [json.loads(line) for line in record.read_text().splitlines()]
        journals = [(rig.folder / f"journal-{index}").read_text().splitlines() for index in (0, 1)]
        return judge(name, calls, report, killed, journals)


def judge(name: str, calls: list[dict], report: dict, killed: float, journals) -> list:
    """`next call`: the first that a session sent after the kill. Times are from the kill to a session's first right answer."""
    following, recovered = {}, {}
    for call in sorted(calls, key=lambda call: call["sent"]):
        if call["sent"] >= killed:
            following.setdefault(call["session"], call["outcome"])
        if call["done"] >= killed and call["sent"] >= killed and call["outcome"] == "right":
            recovered.setdefault(call["session"], (call["done"] - killed) * 1000)
    times = sorted(recovered.values()) or [float("nan")]
    outcomes = collections.Counter(call["outcome"] for call in calls)
    faults = sum(count for outcome, count in outcomes.items() if outcome.startswith("fault") and outcome != "fault -31001")
    statuses = sum(count for outcome, count in outcomes.items() if outcome.startswith("status") and outcome != "status 404")
    # An upstream's own 404 carries a JSON-RPC error (-32001), which the loader tells by its code.
    unknown = outcomes["status 404"] + outcomes["fault -32001"]
    executed = collections.Counter(operation for journal in journals for operation in journal)
    twice = sum(1 for count in executed.values() if count > 1)
    answered = sum(1 for outcome in following.values() if outcome == "right")
    return [
        name, report["answers"], f"{answered}/{report['opened']}", times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))], times[-1],
        outcomes["fault -31001"], faults - outcomes["fault -32001"], unknown, statuses, outcomes["wrong"], outcomes["broken"], twice,
    ]
