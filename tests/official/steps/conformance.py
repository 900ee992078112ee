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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .processes import CACHE, LOGS, NODE, SERVERS, Processes, run_bounded

SUITE = CACHE / "node" / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"


EVERYTHING = ("-m", "mcp_everything_server", "--log-level", "WARNING")


@dataclass(frozen=True)
class Trial:
    """A reference server, the requirement set that it is tried with, and which of the scenarios count."""

    name: str
    requirements: str
    # The SDK's major version, and what Python is to run.
    server: tuple
    scenarios: str = ""
    # False: the server lacks things that the set asks for; what it gives directly is still what counts.
    passes: bool = True
    # What a server leaves unanswered, it leaves unanswered for this long.
    scenario_ms: int = 30_000


TRIALS = [
    # mcp 1.30 knows the legacy era only.
    Trial("everything-server of mcp 1.x", "2025-11-25", ("1", *EVERYTHING)),
    Trial("everything-server of mcp 2.x", "2025-11-25", ("2", *EVERYTHING)),
    Trial("everything-server of mcp 2.x", "2026-07-28", ("2", *EVERYTHING)),
    # The everything-server has no tasks; this one has nothing else.
    Trial("tasks server", "2026-07-28", ("2", SERVERS / "tasks.py"), scenarios="tasks-"),
    # Shapes of the first that are met in the wild. They cannot ask the client, so four scenarios never end.
    Trial("session-less server", "2025-11-25", ("1", SERVERS / "everything.py", "stateless_http"), passes=False, scenario_ms=2500),
    Trial("server of JSON answers", "2025-11-25", ("1", SERVERS / "everything.py", "json_response"), passes=False, scenario_ms=2500),
]
RUN_SECONDS_MAX = 90


class Run:
    """One run of the suite: exit code, seconds, and per check the list of verdicts in order."""

    def __init__(self, url, trial, name):
        folder = LOGS / "conformance" / name
        shutil.rmtree(folder, ignore_errors=True)
        command = [NODE, SUITE, "server", "--url", url, "--requirements", trial.requirements, "-o", folder]
        command += ["--timeout", trial.scenario_ms]
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
    """What to say of one trial; gives (passed, failed, lines)."""
    lines = [f"conformance {trial.requirements} over the {trial.name}"]
    for label, one in (("direct ", first), ("direct ", second), ("gateway", through)):
        lines.append(f"  {label}  {one.totals()} ({one.seconds:.1f} s)")
    # A part of a set has no exit code of its own; then no check may fail.
    passes = first.failures() == 0 if trial.scenarios else first.code == 0
    if (trial.passes and not passes) or not first.verdicts:
        lines.append(f"  FAIL the reference server does not pass directly (exit {first.code}):\n{first.output[-800:]}")
        return 0, 1, lines
    rows = differences(first, second, through)
    for check, direct, seen, words in rows:
        lines.append(f"  DIFFERS {check}\n    direct  {' '.join(direct) or '(absent)'}")
        lines.append(f"    gateway {' '.join(seen) or '(absent)'}\n    {words[:400]}")
    same = len({*first.verdicts, *through.verdicts}) - len(rows)
    unsteady = sum(first.verdicts.get(key) != second.verdicts.get(key) for key in {*first.verdicts, *second.verdicts})
    beside = notes(first, second, through)
    (LOGS / "conformance" / f"{name}-notes.txt").write_text("\n".join(beside) + "\n")
    lines.append(f"  {same} checks the same, {len(rows)} differ, {unsteady} unsteady by themselves; {len(beside)} notes")
    exit_differs = through.code != first.code and not rows
    if exit_differs:
        lines.append(f"  FAIL exit code {through.code} through the gateway, {first.code} directly:\n{through.output[-800:]}")
    return same, len(rows) + exit_differs, lines


def attempt(trial, direct_only):
    """One trial; gives (passed, failed, lines)."""
    name = f"{trial.name.replace(' ', '-')}-{trial.requirements}"
    with Processes("conformance") as processes:
        replicas = [processes.python_server(*trial.server) for _ in range(2)]
        first = Run(replicas[0], trial, f"{name}-direct-1")
        second = Run(replicas[0], trial, f"{name}-direct-2")
        through = second
        if not direct_only:
            gateway, _ = processes.gateway(name, replicas)
            through = Run(gateway, trial, f"{name}-gateway")
    return report(trial, name, first, second, through)


def run(direct_only=False):
    """Runs every trial, three at a time, because most of their time is waiting; gives (passed, failed)."""
    passed = failed = 0
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(attempt, trial, direct_only) for trial in TRIALS]
        for done in waiting:
            more_passed, more_failed, lines = done.result()
            print("\n".join(lines), flush=True)
            passed, failed = passed + more_passed, failed + more_failed
    return passed, failed
