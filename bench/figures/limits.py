"""What the limiter costs and what it lets through (L12, one gateway): CPU a call with and without rules, and ten times the limit."""

import statistics

from rig import host, table, tenants

RULES = """
[[limit]]
name = "caller"
allow = 1000000
within = "1s"
[[limit]]
name = "caller-and-tool"
per = ["principal", "tool"]
algorithm = "gcra"
allow = 1000000
within = "1s"
burst = 1000000
[[limit]]
name = "address"
per = "ip"
allow = 1000000
within = "1s"
"""
LIMIT = 100


def run(options, programs):
    """Gates: three rules cost at most 3 us of CPU a call each round; at 10 x the limit the mean is within 2 %."""
    return [*cost(options, programs), *share(options, programs)]


def cost(options, programs):
    found = {"no rule": [], "one rule": [], "three rules": []}
    tables = {"no rule": "", "one rule": RULES.split("[[limit]]\nname = \"caller-and-tool\"")[0], "three rules": RULES}
    with host.Rig(programs) as rig:
        upstreams = host.free_ports(2)
        rig.start_upstreams(upstreams)
        gateways = {name: tenants.gateway(rig, upstreams, tables=lines)[:2] for name, lines in tables.items()}
        for _ in range(max(3, options.repeats)):
            for name, (process, port) in gateways.items():
                before = host.cpu_seconds(process.pid)
                report = rig.load(port, "--era", "modern", "--connections", 32, "--count", 20000, "--seconds", 60)
                found[name].append(1e6 * (host.cpu_seconds(process.pid) - before) / max(1, report["right"]))
    base = statistics.median(found["no rule"])
    rows = [[name, statistics.median(each), min(each), max(each), statistics.median(each) - base] for name, each in found.items()]
    table.show(f"CPU of the gateway, us a call; median of {max(3, options.repeats)} rounds of 20,000", ["", "median", "least", "most", "added"], rows)
    return [f"{row[0]} add {row[4]:.1f} us a call, at most 3 wanted" for row in rows if row[4] > 3]


def share(options, programs):
    seconds = max(10.0, options.seconds)
    rows, said = [], []
    with host.Rig(programs) as rig:
        upstreams = host.free_ports(2)
        rig.start_upstreams(upstreams)
        for name, more in (("sliding-window", ""), ("gcra", 'algorithm = "gcra"\nburst = 10')):
            process, port, _ = tenants.gateway(rig, upstreams, tables=f'[[limit]]\nallow = {LIMIT}\nwithin = "1s"\n{more}')
            before = host.cpu_seconds(process.pid)
            words = ["--kind", "open", "--era", "modern", "--rate", LIMIT * 10, "--connections", 64, "--seconds", seconds]
            report = rig.load(port, *words)
            cpu = host.cpu_seconds(process.pid) - before
            mean = report["right"] / seconds
            rows.append([name, report["answers"], mean, mean / LIMIT, report["refusals"]["p99_us"] / 1e3, 1e6 * cpu / report["answers"]])
            # The first window's worth comes at once, so a run of n seconds may have one more.
            if not 0.98 * LIMIT <= mean <= LIMIT * (1 + 1 / seconds) * 1.02:
                said.append(f"{name}: {mean:.1f} a second, {LIMIT} within 2 % wanted")
    title = f"{LIMIT} in 1 s for one caller, who asks ten times as much for {seconds:.0f} s; one gateway"
    table.show(title, ["", "asked", "granted/s", "of the rule", "refused p99 ms", "us CPU a request"], rows)
    return said
