"""Ten thousand standing streams: resident memory of the proxy for each."""

import time

from rig import host, proxies, table


def run(options, programs):
    """Opens and holds the streams of each era; gate: 30 KiB each."""
    # A proxy needs two descriptors for each stream.
    fitting = host.files_max() // 2 - 600
    if options.streams > fitting:
        print(f"note: this machine's limit of open files allows {fitting:,} streams")
        options.streams = fitting
    rows = []
    for name in proxies.available(options.proxies, programs):
        for era in ("legacy", "modern"):
            rows.append(measure(options, programs, name, era))
    title = f"{options.streams:,} standing streams; gate: 30 KiB each"
    table.show(title, ["", "open", "cut", "RSS before MiB", "RSS held MiB", "KiB a stream", "CPU % of a core", "opened/s"], rows)
    bad = lambda row: row[5] > 30 or row[1] < options.streams or row[2] > 0
    return [f"{row[0]}: {row[1]} open, {row[2]} cut, {row[5]:.1f} KiB each" for row in rows if row[0].startswith("gateway") and bad(row)]


def measure(options, programs, name: str, era: str) -> list:
    with host.Rig(programs) as rig:
        upstreams = host.free_ports(2)
        rig.start_upstreams(upstreams)
        process, port = proxies.start(rig, name, upstreams)
        rig.load(port, "--era", era, "--connections", 16, "--count", 2000)
        before = host.rss_kib(process.pid)
        began = time.monotonic()
        load = rig.load(port, "--kind", "idle-streams", "--era", era, "--connections", options.streams, "--seconds", options.hold, popen=True)
        held = load.stderr.readline()
        took = time.monotonic() - began
        # The first seconds belong to the opening; the rest shows what standing costs.
        time.sleep(min(2.0, options.hold / 4))
        cpu, since = host.cpu_seconds(process.pid), time.monotonic()
        time.sleep(options.hold / 2)
        share = (host.cpu_seconds(process.pid) - cpu) / (time.monotonic() - since) * 100
        after = host.rss_kib(process.pid)
        report = host.report_of(load)
        if not held.startswith("held"):
            print(f"warning: {name} {era}: {held}")
        opened = report["opened"]
        return [f"{name} {era}", opened, report["cut"], before / 1024, after / 1024, (after - before) / max(opened, 1), share, round(opened / took)]
