"""Several callers at once: each a load generator of its own, with a bearer token of its own."""

from . import host


def run(rig: host.Rig, port: int, loads: dict, seconds: float, seed: int, connections: int = 100) -> dict:
    """Runs `loads` (name: (calls a second, tool)) side by side to their end. Returns a report for each name."""
    running = {}
    for at, (name, (rate, tool)) in enumerate(loads.items()):
        words = ["--kind", "open", "--era", "modern", "--rate", rate, "--seed", seed * 1000 + at, "--tool", tool]
        words += ["--bearer", name, "--connections", connections, "--warm-up", 1, "--seconds", seconds]
        running[name] = rig.load(port, *words, popen=True)
    return {name: host.report_of(process) for name, process in running.items()}


def success(report: dict) -> float:
    """Right answers of all that was asked."""
    return report["right"] / max(1, report["answers"] + report["broken"])


def gateway(rig: host.Rig, upstreams: list, server: str = "", tables: str = "", gateway: str = ""):
    """A gateway with lines of its own in its config. Returns its process, its port and its admin port."""
    listen, admin = host.free_ports(2)
    replicas = [f"http://127.0.0.1:{port}/mcp" for port in upstreams]
    path = rig.folder / f"gateway-{listen}.toml"
    path.write_text(f"""
[gateway]
listen = "127.0.0.1:{listen}"
admin = "127.0.0.1:{admin}"
state_dir = "{rig.folder}/state-{listen}"
worker_threads = 1
log_filter = "error"
{gateway}
[[server]]
name = "bench"
replicas = {replicas}
request_timeout = "5s"
{server}
{tables}
""".replace("'", '"'))
    process = rig.start([rig.programs.gateway, "serve", "--config", path], host.CORE_OF_PROXY)
    rig.wait_for(listen, process)
    return process, listen, admin
