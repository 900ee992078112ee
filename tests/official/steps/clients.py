"""The official clients, each through a gateway of its own over three demo replicas.

The walk itself is in tests/official/clients; each script prints `ok …` and `FAIL …` lines. A gateway a client,
because a walk kills replicas, and once the gateway, which is then started again. The walks run at the same time: most of their time is waiting.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor

from .processes import CACHE, LOGS, NODE, ROOT, Processes, run_bounded

WALK_SECONDS_MAX = 150
REPLICAS = 3
WALKS = [
    ("ts_v1.mjs", "legacy"),
    ("ts_v2.mjs", "legacy"),
    ("ts_v2.mjs", "modern"),
    ("py_v1.py", "legacy"),
    ("py_v2.py", "legacy"),
    ("py_v2.py", "modern"),
]


def interpreter(script):
    """The command that runs a script: beside the npm packages for Node, in its SDK's venv for Python."""
    if script.endswith(".mjs"):
        return [NODE, CACHE / "node" / "clients" / script]
    return [CACHE / f"python-{script[4]}" / "bin" / "python", "-B", ROOT / "tests" / "official" / "clients" / script]


def walk(script, era, url, replicas, gateway):
    """One client's walk, which may kill these processes; gives (passed, failed, what it printed)."""
    command = [*interpreter(script), url, era]
    env = {"REGATTA_REPLICA_PIDS": ",".join(str(replica.pid) for replica in replicas)}
    if gateway:
        env["REGATTA_GATEWAY_PID"] = str(gateway.pid)
    code, output = run_bounded(command, WALK_SECONDS_MAX, LOGS / f"clients-{script}-{era}.log", env)
    lines = output.splitlines()
    passed = sum(line.startswith("ok ") for line in lines)
    failed = sum(line.startswith("FAIL ") for line in lines)
    # A script that ends early, or says nothing, has failed too.
    if (code != 0 and failed == 0) or passed == 0:
        output += f"FAIL {script} {era}: exit code {code} after {passed} checks\n"
        failed += 1
    return passed, failed, output


def run(direct_only=False):
    """Runs all walks; gives (passed, failed)."""
    # Node finds packages from where a script lies.
    shutil.rmtree(CACHE / "node" / "clients", ignore_errors=True)
    shutil.copytree(ROOT / "tests" / "official" / "clients", CACHE / "node" / "clients")
    passed = failed = 0
    with Processes("clients") as processes, ThreadPoolExecutor(len(WALKS)) as pool:
        waiting = []
        for script, era in WALKS:
            replicas = [processes.demo() for _ in range(1 if direct_only else REPLICAS)]
            url, gateway = replicas[0][0], None
            if not direct_only:
                url, gateway = processes.gateway(f"{script}-{era}", [replica for replica, _ in replicas])
            killable = [] if direct_only else [process for _, process in replicas]
            waiting.append(pool.submit(walk, script, era, url, killable, gateway))
        for done in waiting:
            more_passed, more_failed, output = done.result()
            print(output, end="", flush=True)
            passed, failed = passed + more_passed, failed + more_failed
    return passed, failed
