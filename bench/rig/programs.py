"""The programs of a run: ours from Cargo's target folder, the peers from the system."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Programs:
    """Where the programs are; the gateway may be missing while only peers are measured."""

    load: Path
    upstream: Path
    gateway: Path
    nginx: Path
    haproxy: Path

    @property
    def cached(self) -> Path:
        """The gateway with a result cache is the same program."""
        return self.gateway


def find(build: bool) -> Programs:
    """Builds what is ours (release profile) unless told not to."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    if build:
        subprocess.run(["cargo", "build", "-q", "--release", "-p", "regatta-tools", "--examples"], cwd=ROOT, check=True)
        subprocess.run(["cargo", "build", "-q", "--release", "-p", "regatta"], cwd=ROOT, check=True)
    release = target / "release"
    system = {name: Path(shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin") or f"/usr/sbin/{name}") for name in ("nginx", "haproxy")}
    examples = release / "examples"
    for needed in ("load", "upstream"):
        if not (examples / needed).exists():
            raise SystemExit(f"error: {examples / needed} does not exist\nhint: run without --no-build")
    return Programs(examples / "load", examples / "upstream", Path(os.environ.get("REGATTA", release / "regatta")), **system)


def versions(programs: Programs) -> list[str]:
    """What a figure must say of its surroundings (STYLE 22)."""

    def first_line(command, stream="stdout"):
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError:
            return f"{command[0]}: missing"
        return (getattr(done, stream) or "?").splitlines()[0]

    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return [
        f"machine   {model}, {os.cpu_count()} cores, kernel {os.uname().release}",
        f"commit    {first_line(['git', '-C', str(ROOT), 'describe', '--always', '--dirty'])}",
        f"nginx     {first_line([programs.nginx, '-v'], 'stderr')}",
        f"haproxy   {first_line([programs.haproxy, '-v'])}",
        f"gateway   {first_line([programs.gateway, '--version'])}",
    ]
