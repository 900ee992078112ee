"""Kept answers beside calls through the gateway to a tool that takes no time on servers of the official SDKs, calls a second by the clock."""

import os
from pathlib import Path

from rig import host, proxies, table

OFFICIAL = Path(os.environ.get("REGATTA_OFFICIAL_CACHE", Path(__file__).resolve().parents[2] / ".cache" / "official"))
CONNECTIONS = 64
# A kept answer is given so many times as often as one that the server is asked for.
TIMES = 5
WORDS = ["--era", "legacy", "--tool", "echo", "--expect", "json", "--texts", "16", "--connections", CONNECTIONS]
SERVERS = {
    "TypeScript SDK 1.x": ([OFFICIAL / "node" / "node", proxies.PEERS / "instant.mjs"], OFFICIAL / "node"),
    "Python SDK 2.x": ([OFFICIAL / "python-2" / "bin" / "python", "-B", proxies.PEERS / "instant.py"], OFFICIAL),
}


def run(options, programs):
    """For each server the same load, through a gateway that keeps nothing and then through one that keeps the tool's results."""
    rows, missed = [], []
    for name, (command, folder) in SERVERS.items():
        if not Path(command[0]).exists():
            return [f"{command[0]} does not exist; tests/official/setup installs it"]
        direct, through, kept = (rate(options, programs, command, folder, proxy) for proxy in (None, "gateway", "cached"))
        rows.append([name, round(direct), round(through), round(kept), kept / through])
        if kept < TIMES * through:
            missed.append(f"{name}: {kept:,.0f} kept answers a second, {through:,.0f} through")
    table.show(f"Right answers a second, {CONNECTIONS} sessions, 16 different calls, best of the repeats", ["server", "direct", "through", "kept", "kept/through"], rows)
    return missed


def rate(options, programs, command, folder, proxy) -> float:
    """Two servers on the loader's core, a gateway with one worker on the other. Raises unless every answer was right."""
    with host.Rig(programs) as rig:
        ports = host.free_ports(2)
        for port in ports:
            server = rig.start(["env", "-C", folder, *command, port], host.CORE_OF_REST)
            rig.wait_for(port, server, timeout=30)
        port = proxies.start(rig, proxy, ports)[1] if proxy else ports[0]
        rig.load(port, *WORDS, "--seconds", 1)
        reports = [rig.load(port, *WORDS, "--seconds", options.seconds) for _ in range(options.repeats)]
    for report in reports:
        if report["answers"] != report["right"] or report["broken"]:
            raise SystemExit(f"error: not every answer was right: {report}")
    return max(report["per_second"] for report in reports)
