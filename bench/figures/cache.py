"""The result cache, all hits: instructions and latency of a kept answer beside a call through the gateway to an instant upstream."""

from rig import host, instructions, proxies, table

ERAS = ("legacy", "modern")
CONNECTIONS = 64
# A kept answer costs at most a fifth of a call that goes to the server, and takes at most so long.
SHARE, P50_US = 5, 60


def words(era: str, connections: int) -> list[str]:
    return ["--era", era, "--tool", "echo", "--expect", "json", "--texts", "16", "--connections", str(connections)]


def run(options, programs):
    """Counts both, then times both on one connection."""
    small, large = options.calls // 8, options.calls + options.calls // 8
    works = [
        instructions.Work(f"{era}-hit", [*words(era, CONNECTIONS), "--count", str(small)], [*words(era, CONNECTIONS), "--count", str(large)], large - small)
        for era in ERAS
    ]
    counts, source = instructions.count(["gateway", "cached", "instant"], works, programs, options.cache, options.source)
    rows, missed = [], []
    for work in works:
        through, kept, instant = (counts[name, work.name][0] for name in ("gateway", "cached", "instant"))
        rows.append([work.name, round(through), round(kept), round(instant), through / kept, kept / instant])
        if through < SHARE * kept:
            missed.append(f"{work.name}: {kept:,.0f} instructions, a call through takes {through:,.0f}")
    table.show(f"Instructions, kernel included; {source}; {CONNECTIONS} connections, 16 different calls", ["", "through", "kept", "instant", "through/kept", "kept/instant"], rows)
    if not options.no_times:
        missed += times(options, programs)
    return missed


def times(options, programs) -> list[str]:
    rows, missed = [], []
    for era in ERAS:
        row = [era]
        for name in ("direct", "gateway", "cached"):
            with host.Rig(programs) as rig:
                upstreams = host.free_ports(2)
                rig.start_upstreams(upstreams)
                port = upstreams[0] if name == "direct" else proxies.start(rig, name, upstreams)[1]
                rig.load(port, *words(era, 1), "--seconds", 1)
                reports = [rig.load(port, *words(era, 1), "--seconds", options.seconds) for _ in range(options.repeats)]
                row.append(min(report["latency"]["p50_us"] for report in reports))
        rows.append(row)
        if row[3] > P50_US:
            missed.append(f"{era}: p50 of a kept answer {row[3]} us")
    table.show("p50 in us, one connection, best of the repeats", ["", "direct", "through", "kept"], rows)
    return missed
