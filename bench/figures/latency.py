"""Latency added over direct at 2,000 calls a second, open loop, counted from the intended send time."""

import itertools
import statistics

from rig import host, proxies, table

RATE = 2000
CONNECTIONS = 32
# Each timed run is cut into so many, in turn with the others': what the neighbours do changes by the second, and is the same for all of a round.
SHARES = 4
# The core of the upstreams; the loader has the one that is not the proxy's. Apart from the proxy, a call through it wakes another
# core twice more often than a direct one; beside it, as often: what a virtual machine takes for that is not the proxy's work.
PLACES = {"apart": host.CORE_OF_REST, "beside": host.CORE_OF_PROXY}


def run(options, programs):
    """Direct and each proxy in turn, several rounds in one run; gate: p50 +25 us, p99 +1 ms."""
    names = proxies.available(options.proxies, programs)
    if "gateway" in names:
        # The same with `busy_poll_max`: a thread that looks for work rather than to be woken.
        names.insert(names.index("gateway") + 1, "polling")
    missed = []
    for place, era in itertools.product(PLACES, ("legacy", "modern")):
        found = measure(options, programs, names, era, PLACES[place])
        missed += show(place, era, found, options)
    return missed


def measure(options, programs, names: list, era: str, core: int) -> dict:
    """The loader's reports of each round, by who answered."""
    found = {name: [] for name in ["direct", *names]}
    with host.Rig(programs) as rig:
        if not options.sleepy:
            rig.keep_awake()
        upstreams = host.free_ports(2)
        rig.start_upstreams(upstreams, core=core)
        ports = {"direct": upstreams[0]} | {name: proxies.start(rig, name, upstreams)[1] for name in names}
        for round_, (name, port) in itertools.product(range(options.repeats * SHARES), ports.items()):
            shape = ["--kind", "open", "--era", era, "--rate", RATE, "--connections", CONNECTIONS, "--seed", round_ + 1]
            found[name].append(rig.load(port, *shape, "--warm-up", 0.5, "--seconds", options.seconds / SHARES))
    return found


def values(runs: list, which: str) -> list[float]:
    """A p50 of each share; of p99 the worst share of each run, so that what happens once a run counts."""
    found = [each["latency"][which] for each in runs]
    return found if which == "p50_us" else [max(found[at : at + SHARES]) for at in range(0, len(found), SHARES)]


def added(found: dict, name: str, which: str) -> float:
    """The median of what `name` has more than direct calls at the same time."""
    return statistics.median(more - direct for more, direct in zip(values(found[name], which), values(found["direct"], which)))


def show(place: str, era: str, found: dict, options) -> list[str]:
    middle = lambda name, which: statistics.median(values(found[name], which))
    rows = []
    for name, runs in found.items():
        p50, p99 = middle(name, "p50_us"), middle(name, "p99_us")
        more = [None, None] if name == "direct" else [added(found, name, which) for which in ("p50_us", "p99_us")]
        bad = sum(each["answers"] - each["right"] + each["broken"] for each in runs)
        rows.append([name, round(statistics.median(each["per_second"] for each in runs)), p50, p99, *more, bad])
    how = "cores may halt" if options.sleepy else "cores kept awake"
    where = f"upstreams {place} {'from' if place == 'apart' else ''} the proxy".replace("  ", " ")
    title = f"Latency, {era}, {where}, open loop {RATE}/s, us, medians of {options.repeats * SHARES} rounds, {how}; gate: +25 p50, +1,000 p99"
    table.show(title, ["", "calls/s", "p50", "p99", "added p50", "added p99", "not right"], rows)
    slow = lambda row: row[0] == "gateway" and (row[4] > 25 or row[5] > 1000)
    return [f"{era}, {where}: adds {row[4]:.0f} us p50, {row[5]:.0f} us p99" for row in rows if slow(row)]
