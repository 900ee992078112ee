"""Counts instructions, kernel included, where the hardware has no counters to offer.

A small virtual machine runs under QEMU's `-icount shift=0`: its clock advances one nanosecond for each instruction that its
processor executes. So the run time that the guest's kernel accounts to a process (`/proc/PID/schedstat`, which includes system calls and
the network stack's work on the process's behalf) *is* the number of its instructions. The figure does not depend on how busy or
how fast the machine is. It is Debian's kernel, the same for every proxy; string instructions count once a repetition, so the guest's
processor is told to have no fast ones.

Needs: qemu-system-x86, busybox-static, and a Debian kernel image (`fetch_kernel`). Never touches the host's network.
"""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

PACKAGE = "linux-image-cloud-amd64"
# Fast string instructions would be counted once a byte; clearcpuid makes the kernel copy with plain loops.
KERNEL_WORDS = "console=ttyS0 panic=-1 tsc=reliable clearcpuid=erms,fsrm,rep_good quiet loglevel=3 random.trust_cpu=on"
PROCESSOR = "max,-erms,-fsrm"
MEMORY = "2G"

INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
ifconfig lo 127.0.0.1 up
ulimit -n 200000
echo 4096 > /proc/sys/net/core/somaxconn
chmod 1777 /tmp
sh /bench/script
echo GUEST-DONE
poweroff -f
"""


def missing() -> str | None:
    """What this machine lacks, as a hint for a person; None if nothing."""
    for tool, package in (("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static")):
        if not shutil.which(tool):
            return f"apt-get install --no-install-recommends {package}"
    return None


def fetch_kernel(cache: Path) -> Path:
    """The guest's kernel; downloaded once with apt into `cache`."""
    found = sorted(cache.glob("kernel/boot/vmlinuz-*"))
    if not found:
        cache.mkdir(parents=True, exist_ok=True)
        shown = subprocess.run(["apt-cache", "depends", PACKAGE], check=True, capture_output=True, text=True).stdout
        package = re.search(r"Depends: (linux-image-\S+)", shown).group(1)
        subprocess.run(["apt-get", "download", package], cwd=cache, check=True, capture_output=True)
        archive = next(cache.glob("linux-image-*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive, cache / "kernel"], check=True)
        found = sorted(cache.glob("kernel/boot/vmlinuz-*"))
    return found[-1]


class Image:
    """An initramfs in the `newc` format, written without root."""

    def __init__(self):
        self.parts = []
        self.names = set()
        for folder in ("bin", "proc", "sys", "dev", "tmp", "bench", "etc", "var", "var/run", "run"):
            self.folder(folder)

    def _entry(self, name: str, mode: int, data: bytes):
        if name in self.names:
            return
        self.names.add(name)
        fields = [len(self.names), mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        self.parts.append(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))

    def folder(self, name: str):
        parent = os.path.dirname(name)
        if parent and parent not in self.names:
            self.folder(parent)
        self._entry(name, stat.S_IFDIR | 0o755, b"")

    def text(self, name: str, content: str):
        self._entry(name, stat.S_IFREG | 0o755, content.encode())

    def program(self, path: str | Path, name: str | None = None):
        """A program of this machine and the libraries it is linked with."""
        path = Path(path).resolve()
        self._entry(f"bin/{name or path.name}", stat.S_IFREG | 0o755, path.read_bytes())
        linked = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+)", linked):
            inside = library.lstrip("/")
            self.folder(os.path.dirname(inside))
            self._entry(inside, stat.S_IFREG | 0o755, Path(library).read_bytes())

    def write(self, path: Path):
        self._entry("TRAILER!!!", 0, b"")
        path.write_bytes(b"".join(self.parts))


def run(cache: Path, programs: dict[str, Path], files: dict[str, str], script: str, timeout: float) -> str:
    """Boots a guest with these programs (in /bin) and files (in /bench), runs `script`, returns what it printed."""
    image = Image()
    image.program("/usr/bin/busybox", "busybox")
    for tool in ("sh", "mount", "ifconfig", "chmod", "poweroff", "cat", "echo", "sleep", "ls", "kill", "mkdir", "grep", "head", "seq", "awk"):
        image._entry(f"bin/{tool}", stat.S_IFLNK | 0o777, b"busybox")
    image.text("init", INIT)
    image.text("etc/passwd", "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    image.text("etc/group", "root:x:0:\nnogroup:x:65534:\n")
    image.text("bench/script", script)
    for name, path in programs.items():
        image.program(path, name)
    for name, content in files.items():
        image.text(f"bench/{name}", content)
    disk = cache / f"guest-{os.getpid()}.img"
    image.write(disk)
    command = ["qemu-system-x86_64", "-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", PROCESSOR, "-smp", "1", "-m", MEMORY]
    command += ["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]
    command += ["-kernel", str(fetch_kernel(cache)), "-initrd", str(disk), "-append", KERNEL_WORDS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        return done.stdout.replace("\r", "") + done.stderr
    finally:
        disk.unlink(missing_ok=True)
