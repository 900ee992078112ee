"""A hundred thousand sessions opened and left: how much the proxy's memory grows."""

from rig import host, proxies, table


def run(options, programs):
    """Opens sessions in steps over 64 connections and deletes none; gate: growth below 10 MiB."""
    rows = []
    steps = [1000, options.sessions // 2, options.sessions - options.sessions // 2]
    for name in proxies.available(options.proxies, programs):
        with host.Rig(programs) as rig:
            upstreams = host.free_ports(2)
            rig.start_upstreams(upstreams)
            process, port = proxies.start(rig, name, upstreams)
            sizes, opened, bad, rate = [host.rss_kib(process.pid)], 0, 0, 0.0
            for step in steps:
                report = rig.load(port, "--kind", "open-sessions", "--count", step, "--seconds", 300)
                opened += report["opened"]
                bad += report["answers"] - report["right"] + report["broken"]
                rate = report["per_second"]
                sizes.append(host.rss_kib(process.pid))
            grown = sizes[-1] - sizes[1]
            rows.append([name, opened, bad, *[size / 1024 for size in sizes], grown / 1024, grown * 1024 / max(opened, 1), round(rate)])
    title = f"{options.sessions:,} sessions opened and left; gate: growth below 10 MiB"
    head = ["", "opened", "not right", "RSS start MiB", "after 1,000", "half", "all", "growth MiB", "bytes a session", "opened/s"]
    table.show(title, head, rows)
    bad = lambda row: row[0] == "gateway" and (row[7] > 10 or row[2] > 0)
    return [f"{row[0]}: grew by {row[7]:.1f} MiB, {row[2]} not right" for row in rows if bad(row)]
