"""What stands between load and upstreams: the gateway and its peers, each with its config from `peers/`."""

from pathlib import Path

from . import host

PEERS = Path(__file__).resolve().parents[1] / "peers"
CONFIGS = {"gateway": "regatta.toml", "nginx": "nginx.conf", "haproxy": "haproxy.cfg", "cached": "regatta-cached.toml", "polling": "regatta-polling.toml", "instant": "instant.conf"}
NAMES = ["gateway", "nginx", "haproxy"]


def config(name: str, **words) -> str:
    """The config of a proxy with ports and folder filled in."""
    if name == "instant":
        return ""
    files = host.FILES_WANTED if words["dir"] == "/tmp" else host.files_max()
    bounds = {"files_max": files, "connections_max": files // 2 - 100}
    bounds["busy_poll_max"] = "5ms" if name == "polling" else "0s"
    text = (PEERS / CONFIGS["gateway" if name in ("cached", "polling") else name]).read_text()
    if name == "cached":
        text += (PEERS / "cache.toml").read_text()
    return text.format(**words, **bounds)


def command(name: str, programs, path, listen: int = 0) -> list:
    """How a proxy is started with the config at `path`; `instant` is the upstream itself, in a proxy's place."""
    return {
        "instant": [programs.upstream, "--listen", f"127.0.0.1:{listen}"],
        "gateway": [programs.gateway, "serve", "--config", path],
        "cached": [programs.gateway, "serve", "--config", path],
        "polling": [programs.gateway, "serve", "--config", path],
        "nginx": [programs.nginx, "-c", path],
        "haproxy": [programs.haproxy, "-f", path, "-db"],
    }[name]


def start(rig: host.Rig, name: str, upstreams: list[int]):
    """Starts a proxy on its core. Returns its process and its port."""
    listen, admin = host.free_ports(2)
    path = rig.folder / CONFIGS[name]
    path.write_text(config(name, dir=rig.folder, listen=listen, admin=admin, upstream_1=upstreams[0], upstream_2=upstreams[1]))
    process = rig.start(command(name, rig.programs, path, listen), host.CORE_OF_PROXY)
    rig.wait_for(listen, process)
    return process, listen


def available(names: list[str], programs) -> list[str]:
    """Those whose program exists; says which do not."""
    found = []
    for name in names:
        if Path(getattr(programs, name)).exists():
            found.append(name)
        else:
            print(f"note: {name} is left out: {getattr(programs, name)} does not exist")
    return found
