"""Processes of one run on this machine: started, pinned to a core, measured, and always ended. Ends only what it started."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

# The gateway or peer alone on one core; the loader and the upstreams on the other (RELIABILITY D).
CORE_OF_PROXY = 0
CORE_OF_REST = 1
FILES_WANTED = 200_000


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def files_max() -> int:
    """How many descriptors a process may have here; raised as far as this machine lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (FILES_WANTED, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            break
        except (ValueError, PermissionError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Rig:
    """The processes of one figure, in a folder of their own."""

    def __init__(self, programs):
        self.programs = programs
        self.processes = []

    def __enter__(self):
        files_max()
        self._folder = tempfile.TemporaryDirectory(prefix="regatta-bench-")
        self.folder = Path(self._folder.name)
        # nginx drops root before it opens its temporary folders.
        self.folder.chmod(0o777)
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        self._folder.cleanup()

    def start(self, command: list, core: int) -> subprocess.Popen:
        """Starts a program pinned to `core`; what it prints goes to a file in the folder."""
        log = open(self.folder / f"log-{len(self.processes)}", "w+b")
        command = ["taskset", "-c", str(core % os.cpu_count()), *map(str, command)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        process.log = log.name
        self.processes.append(process)
        return process

    def start_upstreams(self, ports: list[int], *words, core: int = CORE_OF_REST) -> list[subprocess.Popen]:
        """One upstream on each port."""
        found = []
        for index, port in enumerate(ports):
            own = [str(word).format(index=index) for word in words]
            found.append(self.start([self.programs.upstream, "--listen", f"127.0.0.1:{port}", *own], core))
        for port, process in zip(ports, found):
            self.wait_for(port, process)
        return found

    def wait_for(self, port: int, process: subprocess.Popen, timeout: float = 10.0):
        """Until somebody accepts on `port`."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.02)
        raise SystemExit(f"error: {process.args} does not listen on {port}:\n{Path(process.log).read_text()}")

    def load(self, port: int, *words, popen=False):
        """Runs the load generator to its end and returns its report (or the running process)."""
        command = ["taskset", "-c", str(CORE_OF_REST % os.cpu_count()), str(self.programs.load)]
        command += [f"http://127.0.0.1:{port}/mcp", "--json", *map(str, words)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process if popen else report_of(process)

    def keep_awake(self):
        """Lowest-priority spinners on both cores: a core that halts makes a virtual machine pay a wake-up at each hop."""
        for core in (CORE_OF_PROXY, CORE_OF_REST):
            self.start(["chrt", "--idle", "0", "sh", "-c", "while :; do :; done"], core)


def report_of(process: subprocess.Popen) -> dict:
    """The JSON report of a load generator."""
    import json

    out, err = process.communicate(timeout=900)
    if not out.strip():
        raise SystemExit(f"error: {process.args}: {err}")
    return json.loads(out)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, as precise as the scheduler keeps it."""
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def user_share(pid: int) -> tuple[int, int]:
    """Ticks in user space and in the kernel so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return int(fields[11]), int(fields[12])


def rss_kib(pid: int) -> int:
    """Resident memory now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
