"""Where a proxy's instructions go: user space or kernel, and the functions with the largest shares.

`perf` samples the proxy inside the counting guest, where a sample every so many nanoseconds is a sample every so many instructions. Shares
are of self cost; what the compiler inlined counts for the function it went into.
"""

from pathlib import Path

from figures import calls, events
from rig import guest, instructions, proxies

EVERY = 20_000


def run(options, programs):
    """Prints one profile for each proxy and shape that was asked for."""
    for name in proxies.available(options.proxies, programs):
        for shape, words in shapes(options.calls).items():
            if options.shape in (shape, "all"):
                print(f"\n{name} {shape}: shares of instructions")
                print(profile(options, programs, name, words))


def shapes(count: int) -> dict[str, list[str]]:
    """The loader's words for every shape: calls, and streams of events that come one by one."""
    found = {calls.name_of(era, tool): [*calls.words(era, tool), "--count", str(count)] for era, tool in calls.SHAPES}
    return found | {f"events-{era}": [*events.words(era, pause_ms=4), "--events", "250"] for era in ("legacy", "modern")}


def profile(options, programs, name: str, words: list[str]) -> str:
    files = {proxies.CONFIGS[name]: proxies.config(name, dir="/tmp", listen=8000, admin=9000, upstream_1=3001, upstream_2=3002)}
    command = " ".join(map(str, proxies.command(name, instructions.InGuest, f"/bench/{proxies.CONFIGS[name]}")))
    load = f"load http://127.0.0.1:8000/mcp --seconds 100000 {' '.join(words)}"
    script = f"""
upstream --listen 127.0.0.1:3001 > /dev/null &
upstream --listen 127.0.0.1:3002 > /dev/null &
{command} > /tmp/log 2>&1 &
PID=$!
sleep 3
{load} > /dev/null
perf record -e cpu-clock -c {EVERY} -p $PID -o /tmp/perf.data -- {load} > /dev/null 2>&1
echo REPORT-BEGIN
perf report -i /tmp/perf.data --stdio --no-children -s dso 2> /dev/null | grep %
echo
perf report -i /tmp/perf.data --stdio --no-children -s dso,sym 2> /dev/null | grep % | head -n {options.lines}
echo REPORT-END
"""
    binaries = {"upstream": programs.upstream, "load": programs.load, "perf": Path("/usr/bin/perf")}
    binaries[instructions.name_in_guest(name)] = getattr(programs, name)
    out = guest.run(options.cache, binaries, files, script, timeout=600)
    if "REPORT-END" not in out:
        raise SystemExit(f"error: the guest did not finish:\n{out[-3000:]}")
    return out.split("REPORT-BEGIN\n", 1)[1].split("REPORT-END", 1)[0]
