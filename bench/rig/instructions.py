"""Instructions of a proxy while it carries work, kernel included.

Two sources, the first that works: hardware counters (`perf stat`), or a guest whose clock counts instructions (`guest.py`). In both
the same work is done twice in different amounts and the difference counts, so that connecting and shaking hands fall out.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import guest, host, proxies


@dataclass
class Work:
    """One kind of work: a name, the loader's words for a smaller and a larger amount, and the units between them."""

    name: str
    small: list[str]
    large: list[str]
    units: int


def hardware() -> bool:
    """Whether this machine shows its counters."""
    try:
        command = ["perf", "stat", "-x,", "-e", "instructions:u,instructions:k", "true"]
        return "<not" not in subprocess.run(command, capture_output=True, text=True).stderr
    except OSError:
        return False


def count(names: list[str], works: list[Work], programs, cache: Path, source: str) -> tuple[dict, str]:
    """Instructions a unit: {(proxy, work): (all, user share if the source knows it)}, and the source's name."""
    if source == "hardware" or (source == "auto" and hardware()):
        return by_hardware(names, works, programs), "hardware counters"
    lack = guest.missing()
    if lack:
        raise SystemExit(f"error: no hardware counters here, and the counting guest lacks tools\nhint: {lack}")
    return by_guest(names, works, programs, cache), "counting guest (QEMU icount)"


def by_hardware(names, works, programs) -> dict:
    """With `perf stat` around each run of the loader."""
    found = {}
    for name in names:
        with host.Rig(programs) as rig:
            upstreams = host.free_ports(2)
            rig.start_upstreams(upstreams)
            process, port = proxies.start(rig, name, upstreams)
            for work in works:
                rig.load(port, *work.small)
                small, large = (perf_stat(rig, process.pid, port, words) for words in (work.small, work.large))
                user, kernel = ((b - a) / work.units for a, b in zip(small, large))
                found[name, work.name] = (user + kernel, user / (user + kernel))
    return found


def perf_stat(rig, pid: int, port: int, words: list[str]) -> tuple[int, int]:
    """User and kernel instructions of `pid` while the loader runs."""
    command = ["perf", "stat", "-x,", "-e", "instructions:u,instructions:k", "-p", str(pid), "--"]
    command += [str(rig.programs.load), f"http://127.0.0.1:{port}/mcp", "--json", *words]
    lines = subprocess.run(command, capture_output=True, text=True).stderr.splitlines()
    counts = [int(line.split(",")[0]) for line in lines if "instructions" in line]
    return counts[0], counts[1]


SCRIPT_HEAD = """
upstream --listen 127.0.0.1:3001 > /dev/null &
upstream --listen 127.0.0.1:3002 > /dev/null &
spent() {
  cat /proc/$1/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f", sum }'
}
measure() {
  name=$1; work=$2; size=$3; port=$4; pid=$5; shift 5
  before=$(spent $pid)
  load http://127.0.0.1:$port/mcp --json --seconds 100000 "$@" > /tmp/report 2> /tmp/trouble
  after=$(spent $pid)
  echo "REPORT $name $work $(cat /tmp/report /tmp/trouble)"
  echo "COUNT $name $work $size $before $after"
}
"""


def by_guest(names, works, programs, cache: Path) -> dict:
    """One guest for all proxies and all work."""
    files, script = {}, SCRIPT_HEAD
    for index, name in enumerate(names):
        listen, admin = 8000 + index, 9000 + index
        files[proxies.CONFIGS[name]] = proxies.config(name, dir="/tmp", listen=listen, admin=admin, upstream_1=3001, upstream_2=3002)
        words = " ".join(map(str, proxies.command(name, InGuest, f"/bench/{proxies.CONFIGS[name]}", listen)))
        script += f"{words} > /tmp/{name}.log 2>&1 &\nPID_{name}=$!\nsleep 3\n"
        for work in works:
            line = f"measure {name} {work.name} %s {listen} $PID_{name} %s\n"
            script += line % ("warm", " ".join(work.small))
            script += line % ("small", " ".join(work.small)) + line % ("large", " ".join(work.large))
        script += f"kill -9 $PID_{name}; head -c 2000 /tmp/{name}.log\n"
    binaries = {"upstream": programs.upstream, "load": programs.load}
    binaries |= {name_in_guest(name): getattr(programs, name) for name in names if name != "instant"}
    out = guest.run(cache, binaries, files, script, timeout=60 + 120 * len(names) * len(works))
    (cache / "guest.log").write_text(out)
    return _read_counts(out, names, works)


def _read_counts(out: str, names, works) -> dict:
    counts = {}
    for line in out.splitlines():
        if line.startswith("COUNT "):
            name, work, size, *numbers = line.split()[1:]
            before, after = map(int, numbers)
            counts[name, work, size] = after - before
        elif line.startswith("REPORT ") and not all(f'"{bad}":0' in line for bad in ("wrong", "broken")):
            print(f"warning: {line}")
        elif line.startswith("REPORT ") and '"faults":{}' not in line:
            print(f"warning: {line}")
    found = {}
    for name in names:
        for work in works:
            try:
                small, large = counts[name, work.name, "small"], counts[name, work.name, "large"]
            except KeyError:
                raise SystemExit(f"error: the guest did not finish {name} {work.name}:\n{out[-3000:]}") from None
            # The guest's clock cannot tell user from kernel finely enough; `bench/run profile` samples it.
            found[name, work.name] = ((large - small) / work.units, None)
    return found


class InGuest:
    """The programs' paths inside the guest."""

    gateway, nginx, haproxy, upstream = "/bin/regatta", "/bin/nginx", "/bin/haproxy", "/bin/upstream"


def name_in_guest(name: str) -> str:
    return {"gateway": "regatta", "cached": "regatta", "instant": "upstream"}.get(name, name)
