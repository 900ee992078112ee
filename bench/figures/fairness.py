"""Who gets what when there is too little (L9, L10, L11): priorities, equal tenants, and one that is greedy."""

from rig import host, table, tenants

WORKERS, DELAY_MS = 8, 50
CAPACITY = 2 * WORKERS * 1000 // DELAY_MS
SERVER = 'concurrency = "adaptive"\nqueue_wait_max = "500ms"\nqueue_max = 200\n[[server.class]]\ntool = "echo_sse"\npriority = "background"'


def run(options, programs):
    """Gates: interactive 99 % beside background at 10 times the capacity; Jain 0.98; victims 99 %, p99 1.5 x alone + 5 ms."""
    with host.Rig(programs) as rig:
        upstreams = host.free_ports(2)
        rig.start_upstreams(upstreams, "--delay-ms", DELAY_MS, "--workers", WORKERS)
        _, port, _ = tenants.gateway(rig, upstreams, SERVER)
        return [
            *priority(rig, port, options),
            *equals(rig, port, options),
            *noisy(rig, port, options),
        ]


def priority(rig, port, options):
    loads = {"interactive": (CAPACITY * 0.5, "echo"), "background": (CAPACITY * 10, "echo_sse")}
    found = tenants.run(rig, port, loads, options.seconds, 1, connections=400)
    rows = [[name, loads[name][0], report["per_second"], tenants.success(report), report["latency"]["p99_us"] / 1e3] for name, report in found.items()]
    table.show(f"Priority: capacity {CAPACITY}/s", ["", "asked/s", "right/s", "success", "p99 ms"], rows)
    share = tenants.success(found["interactive"])
    return [f"interactive calls succeed to {share:.2%}, 99 % wanted"] if share < 0.99 else []


def equals(rig, port, options):
    loads = {f"tenant-{at}": (CAPACITY * 0.3, "echo") for at in range(10)}
    found = tenants.run(rig, port, loads, options.seconds, 2)
    got = [report["per_second"] for report in found.values()]
    jain = sum(got) ** 2 / (len(got) * sum(each * each for each in got))
    rows = [[name, report["per_second"], tenants.success(report), report["latency"]["p99_us"] / 1e3] for name, report in found.items()]
    table.show(f"Ten tenants, each asks for 0.3 x {CAPACITY}/s; Jain index {jain:.4f}", ["", "right/s", "success", "p99 ms"], rows)
    return [f"Jain index {jain:.3f}, 0.98 wanted"] if jain < 0.98 else []


def noisy(rig, port, options):
    victims = {f"victim-{at}": (CAPACITY * 0.05, "echo") for at in range(9)}
    alone = tenants.run(rig, port, victims, options.seconds, 3, connections=32)
    beside = tenants.run(rig, port, victims | {"greedy": (CAPACITY * 10, "echo")}, options.seconds, 4, connections=400)
    asked = lambda found: sum(report["answers"] + report["broken"] for name, report in found.items() if name != "greedy")
    right = lambda found: sum(report["right"] for name, report in found.items() if name != "greedy")
    p99 = lambda found: max(report["latency"]["p99_us"] for name, report in found.items() if name != "greedy") / 1e3
    rows = [
        ["victims alone", asked(alone), right(alone) / max(1, asked(alone)), p99(alone)],
        ["victims beside", asked(beside), right(beside) / max(1, asked(beside)), p99(beside)],
        ["the greedy one", beside["greedy"]["answers"], tenants.success(beside["greedy"]), beside["greedy"]["latency"]["p99_us"] / 1e3],
    ]
    table.show(f"Nine tenants at 0.05 x {CAPACITY}/s beside one at 10 x; p99 of the worst victim", ["", "asked", "success", "p99 ms"], rows)
    said = []
    if rows[1][2] < 0.99:
        said.append(f"victims succeed to {rows[1][2]:.2%}, 99 % wanted")
    if rows[1][3] > 1.5 * rows[0][3] + 5:
        said.append(f"p99 of the worst victim is {rows[1][3]:.0f} ms beside and {rows[0][3]:.0f} alone, 1.5 x + 5 wanted")
    return said
