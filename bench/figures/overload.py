"""More than a server can take (L5, L6): goodput, latency of who is admitted and who is refused, and recovery."""

from rig import host, table, tenants

# Two upstreams of so many workers, each call so long: what they can do is known beforehand.
WORKERS, DELAY_MS = 8, 50
CAPACITY = 2 * WORKERS * 1000 // DELAY_MS
SERVER = 'concurrency = "adaptive"\nqueue_wait_max = "500ms"\nqueue_max = 200'


def run(options, programs):
    """1, 2, 5 and 10 times the capacity; gates: goodput 90 % of peak at 2, 80 % at 10, admitted p99 1 s, refusals p99 20 ms."""
    with host.Rig(programs) as rig:
        upstreams = host.free_ports(2)
        rig.start_upstreams(upstreams, "--delay-ms", DELAY_MS, "--workers", WORKERS)
        process, port, _ = tenants.gateway(rig, upstreams, SERVER)
        rows, at = [], {}
        for times in (0.8, 1, 2, 5, 10):
            before = host.cpu_seconds(process.pid)
            report = load(rig, port, CAPACITY * times, options.seconds)
            cpu = host.cpu_seconds(process.pid) - before
            at[times] = report
            rows.append(row(f"{times} x", report, cpu))
        recovery = recover(rig, port, at[0.8], options.seconds)
    title = f"Overload: two upstreams of {WORKERS} workers, {DELAY_MS} ms a call = {CAPACITY}/s; open loop, {options.seconds:.0f} s each"
    table.show(title, ["demand", "asked", "right/s", "p50 ms", "p99 ms", "refused", "refused p99 ms", "us CPU a request"], rows)
    table.show("Recovery after 10 x: half the capacity, second by second", ["second", "success", "p99 ms"], recovery)
    return missed(at, recovery)


def load(rig, port, rate, seconds, warm_up=1):
    words = ["--kind", "open", "--era", "modern", "--rate", rate, "--connections", 800, "--warm-up", warm_up, "--seconds", seconds]
    return rig.load(port, *words)


def row(name, report, cpu):
    refused = sum(report["faults"].values())
    asked = report["answers"] + report["broken"]
    latency, refusals = report["latency"], report["refusals"]
    per_request = 1e6 * cpu / max(1, asked)
    return [name, asked, goodput(report), latency["p50_us"] / 1e3, latency["p99_us"] / 1e3, refused, refusals["p99_us"] / 1e3, per_request]


def goodput(report) -> float:
    return report["per_second"]


def recover(rig, port, calm, seconds):
    """Ten times the capacity, then half of it: how each of the next seconds goes."""
    load(rig, port, CAPACITY * 10, seconds)
    rows = []
    for second in range(1, 7):
        report = load(rig, port, CAPACITY / 2, 1, warm_up=0)
        rows.append([str(second), tenants.success(report), report["latency"]["p99_us"] / 1e3])
    rows.append(["calm, 0.8 x", tenants.success(calm), calm["latency"]["p99_us"] / 1e3])
    return rows


def missed(at, recovery) -> list[str]:
    peak = max(goodput(report) for report in at.values())
    said = []
    for times, least in ((2, 0.9), (5, 0.8), (10, 0.8)):
        share = goodput(at[times]) / peak
        if share < least:
            said.append(f"goodput at {times} x is {share:.0%} of the peak, at least {least:.0%} wanted")
        if at[times]["latency"]["p99_us"] > 1e6:
            said.append(f"p99 of the admitted at {times} x is {at[times]['latency']['p99_us'] / 1e3:.0f} ms, at most 1,000 wanted")
        if at[times]["refusals"]["p99_us"] > 20e3 :
            said.append(f"p99 of refusals at {times} x is {at[times]['refusals']['p99_us'] / 1e3:.0f} ms, at most 20 wanted")
    calm = [second for second, success, p99 in recovery[:-1] if success >= 0.99 and p99 <= 2 * recovery[-1][2]]
    if not calm or int(calm[0]) > 5:
        said.append("not recovered within 5 s")
    return said
