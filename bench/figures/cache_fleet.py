"""The result cache of three gateways over one Redis: executions of 500 equal misses and of Zipf's keys, purges, memory under churn."""

import collections
import http.client
import json
import random
import shutil
import threading
import time
import urllib.request

from rig import host, table
from rig.clients import Client, echo

GATEWAYS, MISSES = 3, 500
KEYS, CALLS, CALLERS = 1000, 20_000, 12
PURGES, PURGE_MAX_MS = 300, 100
CACHE_BYTES, CHURN, TEXT_BYTES, MEMORY_SHARE = 32 << 20, 10, 2000, 0.05

CONFIG = """
[gateway]
listen = "127.0.0.1:{listen}"
admin = "127.0.0.1:{admin}"
worker_threads = 1
log_filter = "error"
inflight_max = 2000
cache_bytes_max = "32MiB"
{store}
[[server]]
name = "bench"
replicas = ["http://127.0.0.1:{upstream}/mcp"]
[[cache]]
tool = "echo"
ttl = "1h"
"""


def run(options, programs):
    """Gates: one execution of each key in the fleet; a purge known everywhere within 100 ms; memory within a twentieth."""
    if shutil.which("redis-server") is None:
        return ["redis-server is not installed"]
    with host.Rig(programs) as rig:
        # Slow enough for all who ask at once to be there before the answer is.
        missed = misses(Fleet(rig, programs, delay_ms=2000))
    with host.Rig(programs) as rig:
        fleet = Fleet(rig, programs, delay_ms=2)
        missed += zipf(fleet) + purges(fleet)
    with host.Rig(programs) as rig:
        return missed + memory(rig)


class Fleet:
    """The gateways, and what their server executed."""

    def __init__(self, rig, programs, delay_ms: int):
        redis, upstream, *ports = host.free_ports(2 + 2 * GATEWAYS)
        self.rig, self.listens, self.admins = rig, ports[:GATEWAYS], ports[GATEWAYS:]
        rig.wait_for(redis, rig.start(["redis-server", "--bind", "127.0.0.1", "--port", redis, "--save", "", "--appendonly", "no"], host.CORE_OF_REST))
        rig.start_upstreams([upstream], "--delay-ms", str(delay_ms), "--journal", str(rig.folder / "journal"))
        self.gateways = []
        for index in range(GATEWAYS):
            path = rig.folder / f"gateway-{index}.toml"
            store = f'[store]\nurl = "redis://127.0.0.1:{redis}"'
            path.write_text(CONFIG.format(listen=self.listens[index], admin=self.admins[index], store=store, upstream=upstream))
            self.gateways.append(rig.start([programs.gateway, "serve", "--config", path], host.CORE_OF_PROXY))
            rig.wait_for(self.listens[index], self.gateways[-1])
        # Until each has compared its purges with the store's.
        time.sleep(1)

    def executed(self) -> collections.Counter:
        return collections.Counter((self.rig.folder / "journal").read_text().splitlines())

    def client(self) -> Client:
        return Client(self.listens, 0)


def ask(client: Client, gateway: int, text: str) -> dict:
    """The mark of the answer; raises unless the answer is the right one."""
    headers, body = echo(text, {})
    answer = client.send(gateway, "POST", headers, body)
    message = json.loads(answer.read())
    client.keep(gateway, answer)
    if message.get("result", {}).get("content", [{}])[0].get("text") != text:
        raise SystemExit(f"error: the answer to {text} is {message}")
    return message["result"]["_meta"]["io.regatta/cache"]


def together(count: int, work) -> None:
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def misses(fleet: Fleet) -> list[str]:
    told = collections.Counter()
    together(MISSES, lambda number: told.update([ask(fleet.client(), number % GATEWAYS, "miss")["status"]]))
    executed = fleet.executed()["miss"]
    table.show(f"{MISSES} equal misses at once over {GATEWAYS} gateways", ["answers", "executions"], [[sum(told.values()), executed]])
    good = executed == 1 and sum(told.values()) == MISSES
    return [] if good else [f"{MISSES} equal misses were executed {executed} times and answered {sum(told.values())} times"]


def zipf(fleet: Fleet) -> list[str]:
    """Keys by Zipf's law with exponent 1, within one ttl."""
    weights = [1 / rank for rank in range(1, KEYS + 1)]
    began = time.time()

    def work(number: int):
        client, dice = fleet.client(), random.Random(number)
        for key in dice.choices(range(KEYS), weights, k=CALLS // CALLERS):
            ask(client, dice.randrange(GATEWAYS), f"key-{key}")

    together(CALLERS, work)
    counts = [count for text, count in fleet.executed().items() if text.startswith("key-")]
    rows = [[CALLERS * (CALLS // CALLERS), len(counts), sum(counts), max(counts), time.time() - began]]
    table.show(f"Zipf(1.0) over {KEYS} keys, {GATEWAYS} gateways, one ttl", ["calls", "keys asked", "executions", "most of one key", "s"], rows)
    return [] if max(counts) == 1 else [f"a key was executed {max(counts)} times in one ttl"]


def purges(fleet: Fleet) -> list[str]:
    """From the wish until no gateway gives out the old: right after the answer, each is asked for the age of what it has."""
    client, took, old = fleet.client(), [], 0
    for turn in range(PURGES):
        for gateway in range(GATEWAYS):
            ask(client, gateway, "key-0")
        began = time.monotonic()
        purge(fleet.admins[turn % GATEWAYS], {"server": "bench", "tool": "echo"})
        took.append((time.monotonic() - began) * 1000)
        for gateway in range(GATEWAYS):
            mark = ask(client, (turn + 1 + gateway) % GATEWAYS, "key-0")
            old += mark["ageMs"] > (time.monotonic() - began) * 1000 + 5
    took.sort()
    p50, p99 = took[len(took) // 2], took[min(len(took) - 1, int(len(took) * 0.99))]
    table.show("a purge at one gateway, until none gives out the old", ["purges", "p50 ms", "p99 ms", "max ms", "old after it"], [[len(took), p50, p99, took[-1], old]])
    missed = [f"a purge took {p99:.0f} ms, p99"] if p99 > PURGE_MAX_MS else []
    return missed + ([f"{old} old answers after a purge"] if old else [])


def purge(admin: int, wish: dict):
    request = urllib.request.Request(f"http://127.0.0.1:{admin}/cache/purge", json.dumps(wish).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=10).read()


def memory(rig) -> list[str]:
    """Ten times as many bytes as may be kept, by a gateway of its own; what it keeps after that, by its own count."""
    upstream, listen, admin = host.free_ports(3)
    rig.start_upstreams([upstream])
    path = rig.folder / "regatta.toml"
    path.write_text(CONFIG.format(listen=listen, admin=admin, store="", upstream=upstream))
    process = rig.start([rig.programs.gateway, "serve", "--config", path], host.CORE_OF_PROXY)
    rig.wait_for(listen, process)
    words = ["--era", "modern", "--tool", "echo", "--expect", "json", "--connections", 16]
    rig.load(listen, *words, "--text-bytes", TEXT_BYTES - 1, "--count", 2000)
    purge(admin, {"server": "bench"})
    rows, before = [], host.rss_kib(process.pid)
    for turn in range(CHURN):
        # Texts of another length are other texts.
        rig.load(listen, *words, "--text-bytes", TEXT_BYTES + turn, "--count", CACHE_BYTES // TEXT_BYTES)
        kept = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{admin}/cache").read())
        rows.append([kept["results"], kept["bytes"] / (1 << 20), (host.rss_kib(process.pid) - before) / 1024])
    table.show(f"{CHURN} times {CACHE_BYTES >> 20} MiB of results of {TEXT_BYTES} bytes come by; at most {CACHE_BYTES >> 20} MiB are kept", ["results", "kept MiB", "RSS grown MiB"], rows)
    share = rows[-1][1] / (CACHE_BYTES >> 20)
    grown = rows[-1][2] / (CACHE_BYTES >> 20)
    missed = [] if 1 - MEMORY_SHARE <= share <= 1 else [f"{share:.2f} of the bytes are kept"]
    return missed + ([f"the process grew to {grown:.2f} of the bytes"] if grown > 1 + MEMORY_SHARE else [])
