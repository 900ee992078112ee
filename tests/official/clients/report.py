"""What the walks of this folder share: a line a check, waiting without sleeping blindly, what was heard."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

CHECK_SECONDS_MAX = 20


class Report:
    """Prints `ok …` or `FAIL …: why` for each check and remembers whether one failed."""

    def __init__(self, client):
        self.client = client
        self.failed = 0

    async def check(self, what, body):
        label = f"{self.client}: {what}"
        try:
            async with asyncio.timeout(CHECK_SECONDS_MAX):
                await body()
            print(f"ok {label}", flush=True)
        except Exception as error:
            self.failed += 1
            why = " ".join(f"{type(error).__name__} {error}".split())[:400]
            print(f"FAIL {label}: {why}", flush=True)


class Heard:
    """A list that grows from elsewhere, and a way to wait for an entry."""

    def __init__(self):
        self.entries = []
        self._grew = asyncio.Event()

    def push(self, entry):
        self.entries.append(entry)
        self._grew.set()

    async def until(self, fits, start=0, seconds=5):
        """The first entry at or after `start` that fits."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self._grew.clear()
                    for entry in self.entries[start:]:
                        if fits(entry):
                            return entry
                    await self._grew.wait()
        except TimeoutError:
            raise AssertionError(f"not heard within {seconds} s; heard {self.entries[start:]}"[:300]) from None


class Ears:
    """What a session heard besides answers."""

    def __init__(self):
        self.logs, self.tools, self.clock = Heard(), Heard(), Heard()


async def silence(cutter, quiet_seconds, seconds):
    """Waits until no byte went down for `quiet_seconds`."""
    seen = -1
    async with asyncio.timeout(seconds):
        while seen != cutter.down_bytes:
            seen = cutter.down_bytes
            await asyncio.sleep(quiet_seconds)


def equal(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def replica_pids():
    """The replicas that the runner started; none without a gateway."""
    return [int(pid) for pid in os.environ.get("REGATTA_REPLICA_PIDS", "").split(",") if pid]


def kill_replica(told):
    """kill -9 for a replica that the runner started; `told` is what whoami said. Gives its port and pid."""
    port, pid = (json.loads(told)[key] for key in ("port", "pid"))
    assert pid in replica_pids(), f"whoami names process {pid}, which is not one of the replicas {replica_pids()}"
    os.kill(pid, signal.SIGKILL)
    return port, pid


async def listens(host, port, wanted, seconds):
    """Waits until the port accepts connections, or until it does not."""
    async with asyncio.timeout(seconds):
        while accepts(host, port) != wanted:
            await asyncio.sleep(0.01)


async def kill_gateway(host, port):
    """kill -9 for the gateway, which the runner starts again; waits until the new one listens."""
    pid = int(os.environ["REGATTA_GATEWAY_PID"])
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(2):
        # The old one is gone when the runner has seen its end.
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.01)
    await listens(host, port, True, 5)


def accepts(host, port):
    try:
        socket.create_connection((host, port), timeout=0.5).close()
        return True
    except OSError:
        return False
