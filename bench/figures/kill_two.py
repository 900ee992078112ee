"""kill -9 of one of two gateways and one of three nodes at once, under 200 legacy sessions, modern calls and streams."""

import collections
import shutil
import time

from rig import host, table
from rig.clients import Caller, Client, Listener

SESSIONS, MODERN, STREAMS = 200, 10, 20
PAUSE, SECONDS, KILL_AT = 0.25, 14.0, 4.0
# The lease of a gateway, the beat by which it is renewed, and a second.
FIRST_SUCCESS_MAX_MS = (3.0 + 1.0 + 1.0) * 1000

CONFIG = """
[gateway]
listen = "127.0.0.1:{listen}"
admin = "127.0.0.1:{admin}"
worker_threads = 1
log_filter = "error"
initialize_per_minute_max = 1000000
[store]
url = "redis://127.0.0.1:{redis}"
[[server]]
name = "bench"
replicas = [{replicas}]
"""


def run(options, programs):
    """Strict upstreams behind two gateways over one Redis; gate: 0 x 404, nothing twice, no event doubled or lost in silence."""
    if shutil.which("redis-server") is None:
        return ["redis-server is not installed"]
    rows = []
    for round_ in range(options.repeats):
        # A round takes some twenty seconds: who waits should see that it goes on.
        print(f"round {round_ + 1} of {options.repeats}", flush=True)
        rows.append(measure(options, programs, round_))
    title = f"kill -9 of one of two gateways and one of three nodes under {SESSIONS} sessions, {MODERN} modern clients, {STREAMS} streams"
    head = ["round", "calls", "next right", "p50 ms", "p99 ms", "max ms", "-31001", "cut", "404", "other", "twice", "streams", "whole", "told unknown", "event lost", "event twice", "silent"]
    table.show(title, head, rows)
    bad = lambda row: row[2] != f"{SESSIONS + MODERN}/{SESSIONS + MODERN}" or not row[5] <= FIRST_SUCCESS_MAX_MS or any(row[column] for column in (8, 9, 10, 14, 15, 16))
    return [f"round {row[0]}: next right {row[2]}, max {row[5]:.0f} ms, {row[8]} x 404, {row[10]} twice, {row[14]} lost, {row[15]} doubled, {row[16]} silent" for row in rows if bad(row)]


def measure(options, programs, round_: int) -> list:
    with host.Rig(programs) as rig:
        redis, *ports = host.free_ports(8)
        nodes, listens, admins = ports[:3], ports[3:5], ports[5:7]
        rig.wait_for(redis, rig.start(["redis-server", "--bind", "127.0.0.1", "--port", redis, "--save", "", "--appendonly", "no"], host.CORE_OF_REST))
        upstreams = rig.start_upstreams(nodes, "--strict", "--delay-ms", "2", "--journal", str(rig.folder / "journal-{index}"))
        gateways = [start(rig, programs, index, listens, admins, redis, nodes) for index in (0, 1)]
        until = time.time() + SECONDS
        callers, listeners = begin(listens, until)
        time.sleep(max(0.0, until - SECONDS + KILL_AT - time.time()))
        for process in (gateways[round_ % 2], upstreams[round_ % 3]):
            process.kill()
        killed = time.time()
        for process in (gateways[round_ % 2], upstreams[round_ % 3]):
            process.wait()
        for thread in callers + listeners:
            thread.join()
        executed = collections.Counter(line for index in range(3) for line in (rig.folder / f"journal-{index}").read_text().splitlines())
        return judge(round_, callers, listeners, executed, killed)


def start(rig, programs, index: int, listens, admins, redis: int, nodes):
    folder = rig.folder / f"gateway-{index}"
    folder.mkdir()
    replicas = ", ".join(f'"http://127.0.0.1:{port}/mcp"' for port in nodes)
    (folder / "regatta.toml").write_text(CONFIG.format(listen=listens[index], admin=admins[index], redis=redis, replicas=replicas))
    process = rig.start([programs.gateway, "serve", "--config", folder / "regatta.toml"], host.CORE_OF_PROXY)
    rig.wait_for(listens[index], process)
    return process


def begin(listens, until):
    clients = [Client(listens, number) for number in range(SESSIONS + MODERN + STREAMS)]
    sessions = [client.open(client.number % 2) for client in clients[:SESSIONS]]
    callers = [Caller(client, session, PAUSE, until) for client, session in zip(clients, sessions)]
    callers += [Caller(client, {}, PAUSE, until) for client in clients[SESSIONS : SESSIONS + MODERN]]
    listeners = [Listener(client, client.open(client.number % 2), 60, 50, until - 8) for client in clients[SESSIONS + MODERN :]]
    for thread in callers + listeners:
        thread.start()
    return callers, listeners


def judge(round_: int, callers, listeners, executed, killed: float) -> list:
    """`next right`: clients whose calls sent after the kill came to a right answer. Times are from the kill to the first."""
    recovered = []
    for caller in callers:
        done = [done for sent, done, word in caller.calls if sent >= killed and word == "right"]
        if done:
            recovered.append((min(done) - killed) * 1000)
    times = sorted(recovered) or [float("nan")]
    words = collections.Counter(word for caller in callers for _, _, word in caller.calls)
    other = sum(count for word, count in words.items() if word not in ("right", "cut", "404", "fault -31001"))
    streams = [stream for listener in listeners for stream in listener.streams]
    whole = [stream for stream in streams if stream["end"] == "result"]
    unknown = sum(stream["end"] == "fault -31001" for stream in streams)
    # Progress counts up by one: what is missing before a result was lost in silence.
    lost = sum(sorted(set(stream["progress"])) != list(range(min(stream["progress"]), min(stream["progress"]) + 60)) for stream in whole)
    doubled = sum(len(set(stream["ids"])) != len(stream["ids"]) or stream["progress"] != sorted(set(stream["progress"])) for stream in streams)
    twice = sum(count > 1 for count in executed.values())
    return [
        round_ + 1, sum(words.values()), f"{len(recovered)}/{len(callers)}", times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))], times[-1],
        words["fault -31001"], words["cut"], words["404"], other, twice, len(streams), len(whole), unknown, lost, doubled, len(streams) - len(whole) - unknown,
    ]
