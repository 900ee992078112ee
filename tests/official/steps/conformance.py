"""The official conformance suite, server mode: through the gateway it must give what it gives directly.

For each trial the suite runs twice directly, once through a gateway over two replicas, and every check's
verdict (warnings and skips too) is compared. A check that differs between the two direct runs is unsteady by
itself and may show either verdict. INFO entries are traces of the suite, not verdicts: never compared.
"""

import json
import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass

from .processes import CACHE, LOGS, NODE, Processes, run_bounded

SUITE = CACHE / "node" / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"


@dataclass(frozen=True)
class Trial:
    """A reference server that passes a requirement set directly, and which of its scenarios count."""

    name: str
    requirements: str
    # Starts one replica: Processes -> URL.
    start: object
    scenarios: str = ""


TRIALS = [
    # mcp 1.30 knows the legacy era only.
    Trial("everything-server of mcp 1.x", "2025-11-25", lambda processes: processes.everything_server("1")),
    Trial("everything-server of mcp 2.x", "2025-11-25", lambda processes: processes.everything_server("2")),
    Trial("everything-server of mcp 2.x", "2026-07-28", lambda processes: processes.everything_server("2")),
    # The everything-server has no tasks; this one has nothing else.
    Trial("tasks server", "2026-07-28", lambda processes: processes.tasks_server(), "tasks-"),
]
RUN_SECONDS_MAX = 90


class Run:
    """One run of the suite: exit code, seconds, and per check the list of verdicts in order."""

    def __init__(self, url, trial, name):
        folder = LOGS / "conformance" / name
        shutil.rmtree(folder, ignore_errors=True)
        command = [NODE, SUITE, "server", "--url", url, "--requirements", trial.requirements, "-o", folder]
        began = time.monotonic()
        self.code, self.output = run_bounded(command, RUN_SECONDS_MAX, LOGS / "conformance" / f"{name}.log")
        self.seconds = time.monotonic() - began
        self.verdicts, self.details, self.messages = {}, {}, {}
        host = url.split("/")[2]
        for file in sorted(folder.glob("*/checks.json")):
            scenario = re.sub(r"-\d{4}-\d\d-\d\dT.*", "", file.parent.name).removeprefix("server-")
            for check in json.loads(file.read_text()) if scenario.startswith(trial.scenarios) else []:
                self._add(scenario, check, host)

    def _add(self, scenario, check, host):
        key = (scenario, check["id"], check["name"])
        message = check.get("errorMessage") or ""
        detail = json.dumps(check.get("details"), sort_keys=True).replace(host, "HOST")
        self.details.setdefault(key, []).append((check["status"], message.replace(host, "HOST"), detail))
        if check["status"] != "INFO":
            self.verdicts.setdefault(key, []).append(check["status"])
            self.messages.setdefault(key, message)

    def failures(self):
        return sum(verdicts.count("FAILURE") for verdicts in self.verdicts.values())

    def totals(self):
        count = Counter(status for verdicts in self.verdicts.values() for status in verdicts)
        return "{SUCCESS} ok, {FAILURE} failed, {WARNING} warned, {SKIPPED} skipped".format(
            **{status: count[status] for status in ("SUCCESS", "FAILURE", "WARNING", "SKIPPED")}
        )


def differences(first, second, through):
    """Rows (check, direct verdicts, gateway verdicts, the suite's words) that need an explanation."""
    rows = []
    for key in sorted({*first.verdicts, *second.verdicts, *through.verdicts}):
        direct = [run.verdicts.get(key, []) for run in (first, second)]
        seen = through.verdicts.get(key, [])
        if seen not in direct:
            words = through.messages.get(key) or first.messages.get(key, "")
            rows.append((" / ".join(key[:2]), direct[0], seen, words))
    return rows


def notes(first, second, through):
    """Checks with the same verdict whose details were steady directly and differ through the gateway."""
    lines = []
    for key in sorted(first.details):
        direct, seen = first.details[key], through.details.get(key, [])
        if direct == second.details.get(key) and direct != seen:
            lines.append(f"{' / '.join(key[:2])}\n  direct  {direct}\n  gateway {seen}")
    return lines


def report(trial, name, first, second, through):
    """Prints one trial's lines; gives (passed, failed)."""
    print(f"conformance {trial.requirements} over the {trial.name}")
    print(f"  direct   {first.totals()} ({first.seconds:.1f} s)")
    print(f"  direct   {second.totals()} ({second.seconds:.1f} s)")
    print(f"  gateway  {through.totals()} ({through.seconds:.1f} s)")
    # A part of a set has no exit code of its own; then no check may fail.
    passes = first.failures() == 0 if trial.scenarios else first.code == 0
    if not passes or not first.verdicts:
        print(f"  FAIL the reference server does not pass directly (exit {first.code}):\n{first.output[-800:]}")
        return 0, 1
    rows = differences(first, second, through)
    unsteady = sum(first.verdicts.get(key) != second.verdicts.get(key) for key in {*first.verdicts, *second.verdicts})
    for check, direct, seen, words in rows:
        print(f"  DIFFERS {check}\n    direct  {' '.join(direct) or '(absent)'}\n    gateway {' '.join(seen) or '(absent)'}\n    {words[:400]}")
    same = len({*first.verdicts, *through.verdicts}) - len(rows)
    beside = notes(first, second, through)
    (LOGS / "conformance" / f"{name}-notes.txt").write_text("\n".join(beside) + "\n")
    print(f"  {same} checks the same, {len(rows)} differ, {unsteady} unsteady by themselves; {len(beside)} notes")
    exit_differs = through.code != first.code and not rows
    if exit_differs:
        print(f"  FAIL exit code {through.code} through the gateway, {first.code} directly:\n{through.output[-800:]}")
    return same, len(rows) + exit_differs


def run(direct_only=False):
    """Runs every trial; gives (passed, failed)."""
    passed = failed = 0
    for trial in TRIALS:
        name = f"{trial.name.replace(' ', '-')}-{trial.requirements}"
        with Processes("conformance") as processes:
            replicas = [trial.start(processes) for _ in range(2)]
            first = Run(replicas[0], trial, f"{name}-direct-1")
            second = Run(replicas[0], trial, f"{name}-direct-2")
            through = second
            if not direct_only:
                gateway, _ = processes.gateway(name, replicas)
                through = Run(gateway, trial, f"{name}-gateway")
        more_passed, more_failed = report(trial, name, first, second, through)
        passed, failed = passed + more_passed, failed + more_failed
    return passed, failed
