"""SSE pass-through: instructions a proxy spends on each event of a long stream.

Paced: events come one by one, as a working tool sends them; each must go out at once. Burst: the upstream writes as fast as it can, and
what arrives together may be handled together. How much does is the scheduler's throw, so a burst counts by the median of several.
"""

from rig import instructions, proxies, table

STREAMS = 32
SIZES = (50, 250)
GATE = 1.3
BURSTS = 3


def words(era: str, pause_ms: int) -> list[str]:
    """The loader's words but for the number of events."""
    shape = ["--kind", "sse-events", "--tool", "events", "--era", era, "--connections", str(STREAMS)]
    return [*shape, "--count", str(STREAMS), "--event-every-ms", str(pause_ms)]


def run(options, programs):
    """Counts paced and burst events for all proxies; gate: 1.3 x nginx."""
    names = proxies.available(options.proxies, programs)
    works, throws = [], {}
    for name, pause_ms in (("paced", 4), ("burst", 0)):
        for era in ("legacy", "modern"):
            shape = words(era, pause_ms)
            sizes = SIZES if pause_ms else tuple(size * 4 for size in SIZES)
            small, large = ([*shape, "--events", str(size)] for size in sizes)
            throws[f"{name}-{era}"] = [f"{name}-{era}-{throw}" for throw in range(1 if pause_ms else BURSTS)]
            works += [instructions.Work(throw, small, large, STREAMS * (sizes[1] - sizes[0])) for throw in throws[f"{name}-{era}"]]
    counts, source = instructions.count(names, works, programs, options.cache, options.source)
    middle = lambda name, work: sorted(counts[name, throw] for throw in throws[work])[len(throws[work]) // 2]
    rows = []
    for name in names:
        for work in throws:
            total, user = middle(name, work)
            ratio = total / middle("nginx", work)[0] if "nginx" in names else None
            rows.append([f"{name} {work}", round(total), round(total * user) if user else None, ratio])
    title = f"Instructions an event of 200 bytes, kernel included; {source}; {STREAMS} streams; gate: 1.30 x nginx"
    table.show(title, ["", "instructions", "of them user", "x nginx"], rows)
    return [f"{name}: {ratio:.2f} x nginx an event" for name, _, _, ratio in rows if name.startswith("gateway") and ratio and ratio > GATE]
