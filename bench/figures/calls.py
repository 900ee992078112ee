"""Closed loop, 200-byte `tools/call`, 64 keep-alive connections, 2 replicas, one worker: instructions, CPU time, rate, latency."""

import statistics

from rig import host, instructions, proxies, table

SHAPES = [(era, tool) for era in ("legacy", "modern") for tool in ("echo", "echo_sse")]
CONNECTIONS = 64
GATE = 80_000


def words(era: str, tool: str) -> list[str]:
    """The loader's words for one shape."""
    expected = "sse" if tool == "echo_sse" else "json"
    return ["--era", era, "--tool", tool, "--expect", expected, "--connections", str(CONNECTIONS)]


def name_of(era: str, tool: str) -> str:
    return f"{era}-{'sse' if tool == 'echo_sse' else 'json'}"


def run(options, programs):
    """Counts, then times, then prints both side by side."""
    names = proxies.available(options.proxies, programs)
    works = []
    for era, tool in SHAPES:
        small, large = options.calls // 8, options.calls + options.calls // 8
        shape = words(era, tool)
        works.append(instructions.Work(name_of(era, tool), [*shape, "--count", str(small)], [*shape, "--count", str(large)], large - small))
    counts, source = instructions.count(names, works, programs, options.cache, options.source)
    times = {} if options.no_times else measure(options, programs, names)
    print_counts(names, works, counts, source)
    if times:
        print_times(names, works, times)
    return [f"{work.name}: {counts['gateway', work.name][0]:,.0f} instructions a call" for work in works if counts.get(("gateway", work.name), (0,))[0] > GATE]


def measure(options, programs, names) -> dict:
    """Rate, latency and CPU time on this machine: printed, but not the gate."""
    found = {}
    for name in [*names, "direct"]:
        with host.Rig(programs) as rig:
            upstreams = host.free_ports(2)
            rig.start_upstreams(upstreams)
            process, port = (None, upstreams[0]) if name == "direct" else proxies.start(rig, name, upstreams)
            for era, tool in SHAPES:
                rig.load(port, *words(era, tool), "--seconds", 1)
                found[name, name_of(era, tool)] = [timed(rig, process, port, era, tool, options) for _ in range(options.repeats)]
    return found


def timed(rig, process, port, era, tool, options) -> dict:
    before = host.cpu_seconds(process.pid) if process else 0
    report = rig.load(port, *words(era, tool), "--seconds", options.seconds)
    spent = host.cpu_seconds(process.pid) - before if process else 0
    report["cpu_us"] = spent * 1e6 / max(report["right"], 1)
    report["bad"] = report["answers"] - report["right"] + report["broken"]
    return report


def print_counts(names, works, counts, source):
    rows = []
    for name in names:
        for work in works:
            total, user = counts[name, work.name]
            ratios = [total / counts[peer, work.name][0] if peer in names else None for peer in ("nginx", "haproxy")]
            rows.append([f"{name} {work.name}", round(total), round(total * user) if user else None, *ratios])
    title = f"Instructions a call, kernel included; {source}; {CONNECTIONS} connections, 2 replicas, 1 worker; gate: 80,000"
    table.show(title, ["", "instructions", "of them user", "x nginx", "x haproxy"], rows)


def print_times(names, works, times):
    rows = []
    for name in [*names, "direct"]:
        for work in works:
            runs = times[name, work.name]
            middle = lambda of: statistics.median(of(each) for each in runs)
            rate = middle(lambda each: each["per_second"])
            spread = (max(each["per_second"] for each in runs) - min(each["per_second"] for each in runs)) / rate
            latency = [middle(lambda each: each["latency"][which]) for which in ("p50_us", "p99_us")]
            bad = sum(each["bad"] for each in runs)
            rows.append([f"{name} {work.name}", round(rate), f"{spread:.0%}", middle(lambda each: each["cpu_us"]) or None, *latency, bad])
    title = f"Rates and times on this machine (medians; they flip with the neighbours and are no gate)"
    table.show(title, ["", "calls/s", "range", "CPU us/call", "p50 us", "p99 us", "not right"], rows)
