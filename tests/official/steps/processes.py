"""Processes, ports and waiting, for the steps of tests/official/run.

Everything started here is ended here, by pid. Ports are free ones of loopback. No step
starts a process in any other way, and nothing waits without a deadline.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("REGATTA_OFFICIAL_CACHE", ROOT / ".cache" / "official"))
NODE = CACHE / "node" / "node"
SERVERS = ROOT / "tests" / "official" / "servers"
LOGS = Path(os.environ.get("REGATTA_OFFICIAL_LOGS", ROOT / ".cache" / "official-logs"))


def gateway_binary():
    """The binary under test: REGATTA_BIN, else the release build of this checkout."""
    if "REGATTA_BIN" in os.environ:
        return Path(os.environ["REGATTA_BIN"])
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "regatta"


def free_port():
    """A loopback port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listening(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
        return True
    except OSError:
        return False


def clean_environment():
    """This environment without the settings of a gateway, which a developer may have set for their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("REGATTA_")}


class StartFailed(Exception):
    """A process ended, or did not listen in time; the message carries the end of its log."""


class Processes:
    """What one step has started; `with` ends it all, last started first."""

    def __init__(self, step):
        self.step = step
        self.started = []
        self.ending = False

    def __enter__(self):
        LOGS.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_):
        self.ending = True
        for process in reversed(self.started):
            self._signal(process, signal.SIGTERM)
        deadline = time.monotonic() + 3
        for process in self.started:
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            self._signal(process, signal.SIGKILL)
            process.wait()

    @staticmethod
    def _signal(process, number):
        if process.poll() is None:
            process.send_signal(number)

    def start(self, name, command, port, cwd=None, within=20.0):
        """Starts `command` and waits until it listens on `port`; gives the process."""
        log = LOGS / f"{self.step}-{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=cwd,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.started.append(process)
        deadline = time.monotonic() + within
        while not listening(port):
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-1500:]
                raise StartFailed(f"{name} does not listen on port {port} (log {log}):\n{tail}")
            time.sleep(0.05)
        return process

    def python_server(self, major, *arguments):
        """A server of the Python SDK `major`: a module or script that takes --port; gives its URL."""
        port = free_port()
        command = [CACHE / f"python-{major}" / "bin" / "python", "-B", *arguments, "--port", port]
        self.start(f"python-{major}-{port}", command, port, cwd=CACHE / f"everything-{major}")
        return f"http://127.0.0.1:{port}/mcp"

    def demo(self):
        """A demo server of our own binary; gives (URL, process)."""
        port = free_port()
        process = self.start(f"demo-{port}", [gateway_binary(), "demo", "--port", port], port)
        return f"http://127.0.0.1:{port}/mcp", process

    def gateway(self, name, replicas):
        """A gateway over `replicas` (URLs) that is started again after a kill -9; gives (URL, process)."""
        port, admin = free_port(), free_port()
        folder = LOGS / f"{self.step}-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        listed = ", ".join(f'"{url}"' for url in replicas)
        (folder / "regatta.toml").write_text(
            f'[gateway]\nlisten = "127.0.0.1:{port}"\nadmin = "127.0.0.1:{admin}"\nstate_dir = "{folder}/state"\n'
            f'\n[[server]]\nname = "official"\nreplicas = [{listed}]\nbalance = "round-robin"\n'
        )
        command = [gateway_binary(), "serve", "--config", folder / "regatta.toml"]
        process = self.start(f"gateway-{name}", command, port, cwd=folder)
        again = lambda: self.start(f"gateway-{name}-again", command, port, cwd=folder)  # noqa: E731
        threading.Thread(target=self._revive, args=(process, again), daemon=True).start()
        return f"http://127.0.0.1:{port}/mcp", process

    def _revive(self, process, again):
        """Waits for the end of a process; starts it again if somebody else killed it."""
        if process.wait() == -signal.SIGKILL and not self.ending:
            again()


def run_bounded(command, seconds, log, env=None):
    """Runs `command` with its output in `log`; gives (exit code, output), 124 when time ran out."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(part) for part in command],
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = 124
    return code, log.read_text(errors="replace")


def port_of(url):
    return int(re.search(r":(\d+)/", url).group(1))
