"""One walk through the protocol with an official client, the same for both Python SDKs and either era.

`open_session(url)` is an async context manager that gives a session: era, heard (`Ears`), id(), connected(), tools(),
call(name, arguments, on_progress), set_level(level), watch(), unwatch(), cancelled_call(name, arguments, on_progress,
began). A call gives (text, _meta) and raises `session.fault` for a JSON-RPC error; both SDKs end a legacy session when
the context is left. Needs the demo server behind the URL.
"""

import asyncio
import contextlib
import json
import os
import urllib.error
import urllib.request

from cutter import Cutter
from report import Report, equal, kill_gateway, kill_replica, listens, replica_pids, silence

BUILT_IN = ["echo", "add", "sleep", "whoami", "counter", "ask", "sample", "log", "toggle_tool"]
# What the elicitation and sampling callbacks of the clients answer.
ANSWER = "blue, of course"
SAMPLED = "a model said this"
OUTCOME_UNKNOWN = -31001
RESUMED = "io.regatta/sessionResumed"


async def walk(name, url, open_session):
    """Walks through everything; gives the number of failed checks."""
    report = Report(name)
    async with Cutter(url) as cutter:
        try:
            async with open_session(cutter.url) as session:
                await report.check("connects", session.connected)
                await calls(report, session)
                await questions(report, session)
                await notifications(report, session)
                if session.era == "legacy":
                    await resume(report, session, cutter)
                else:
                    await modern_cut(report, session, cutter)
                await cancel(report, session, cutter)
                left = session.id() if session.era == "legacy" else None
            if left:
                await ended(report, url, left)
            # Without a gateway there is one replica, which cannot be killed. In a session of its own, because
            # these SDKs open a standing stream that was cut again only once.
            if len(replica_pids()) > 1:
                async with open_session(cutter.url) as session:
                    await restart(report, session, cutter.target)
                    await loss(report, session)
        except BaseException as error:
            # What a client raises while it opens or closes; its groups hide the reason one level down.
            async def failed():
                raise AssertionError(f"{error!r} {getattr(error, 'exceptions', '')}")

            await report.check("opens and closes", failed)
    return report.failed


async def calls(report, session):
    async def lists():
        names = await session.tools()
        assert set(BUILT_IN) <= set(names), f"not all of {BUILT_IN} in {names}"

    async def one():
        equal((await session.call("echo", {"text": 'straße ✓ "quoted"'}))[0], 'straße ✓ "quoted"')

    async def unknown():
        equal(await code_of(session, session.call("no_such_tool", {})), -32602)

    async def many():
        answers = await asyncio.gather(*(session.call("add", {"a": index, "b": 1000}) for index in range(20)))
        equal([answer for answer, _ in answers], [str(index + 1000) for index in range(20)])

    async def counter():
        equal([(await session.call("counter", {}))[0] for _ in range(3)], ["1", "2", "3"])

    async def progress():
        equal(await sleep_and_hear(session, 550), [100, 200, 300, 400, 500])

    await report.check("lists the tools", lists)
    await report.check("calls a tool", one)
    await report.check("is told that an unknown tool does not exist", unknown)
    await report.check("makes 20 calls at once and gets each its own answer", many)
    if session.era == "legacy":
        await report.check("keeps its own counter", counter)
    await report.check("hears progress, each step once and in order", progress)


async def code_of(session, call):
    """The code of the JSON-RPC error that a call ends with."""
    try:
        answer = await call
    except session.fault as error:
        return error.error.code
    raise AssertionError(f"no error but {answer}")


async def sleep_and_hear(session, ms, on_first=lambda: None):
    """Sleeps at the server; gives the progress values heard. `on_first` runs at the first one."""
    steps = []

    async def on_progress(progress, _total, _message):
        steps.append(int(progress))
        if len(steps) == 1:
            on_first()

    equal((await session.call("sleep", {"ms": ms}, on_progress))[0], f"slept {ms} ms")
    return steps


async def questions(report, session):
    async def elicitation():
        # Six times: over several replicas a sealed requestState must find its maker again.
        for turn in range(6):
            equal((await session.call("ask", {"question": f"Colour {turn}?"}))[0], f"answer: {ANSWER}")

    async def sampling():
        equal((await session.call("sample", {"prompt": "Say something"}))[0], f"model: {SAMPLED}")

    await report.check("answers elicitation", elicitation)
    await report.check("answers sampling", sampling)


async def notifications(report, session):
    async def logs():
        await session.set_level("warning")
        await session.call("log", {"level": "info", "text": "too quiet"})
        await session.call("log", {"level": "error", "text": "loud"})
        await session.heard.logs.until(lambda data: data == "loud")
        assert "too quiet" not in session.heard.logs.entries, "the level is ignored"

    async def clock():
        await session.heard.clock.until(lambda _: True)

    await report.check("hears log messages of the level it asked for", logs)
    await report.check("opens its stream of changes", session.watch)
    await report.check("hears that the tools changed", lambda: toggle(session, "a"))
    await report.check("hears that a resource changed", clock)


async def toggle(session, suffix, seconds=5):
    name, start = f"official_{os.getpid()}_{suffix}", len(session.heard.tools.entries)
    await session.call("toggle_tool", {"name": name})
    await session.heard.tools.until(lambda _: True, start, seconds)
    if session.era == "legacy":
        assert name in await session.tools(), f"{name} is not listed"


async def still_here(session):
    equal((await session.call("echo", {"text": "still here"}))[0], "still here")


async def resume(report, session, cutter):
    """Legacy: a connection cut in mid-call is resumed with Last-Event-ID, with no gap and no repeat."""

    async def cut():
        equal(await sleep_and_hear(session, 2550, cutter.cut), [step * 100 for step in range(1, 26)])

    await report.check("resumes a call after its connection was cut", cut)
    await report.check("goes on after the cut", lambda: still_here(session))


async def modern_cut(report, session, cutter):
    """Modern: a cut connection is a cancelled call; the client learns it and goes on."""

    async def cut():
        try:
            await asyncio.wait_for(sleep_and_hear(session, 10_000, cutter.cut), 5)
        except session.fault:
            return await still_here(session)
        raise AssertionError("the call went on")

    await report.check("goes on after its connections were cut in mid-call", cut)


async def cancel(report, session, cutter):
    async def cancelled():
        began = asyncio.Event()

        async def on_progress(*_):
            began.set()

        await session.cancelled_call("sleep", {"ms": 30_000}, on_progress, began)
        await silence(cutter, 0.4, 3)
        await still_here(session)

    # Changes stop first: then silence on the wire means that the call ended at the server.
    await report.check("closes its stream of changes", session.unwatch)
    await report.check("cancels a call, and the server stops talking about it", cancelled)


async def restart(report, session, target):
    """kill -9 of the gateway, which comes back: the session and what its replica knows of it are still there."""
    before = session.id()

    async def killed():
        count = int((await session.call("counter", {}))[0])
        await kill_gateway(target.hostname, target.port)
        after = int((await asyncio.wait_for(session.call("counter", {}), 5))[0])
        if session.era == "legacy":
            equal(after, count + 1)
        equal(session.id(), before)

    # A standing stream that was never open is not opened again.
    if session.era == "legacy":
        await report.check("hears changes in a new session", lambda: changes(session, "b"))
    await report.check("keeps its session when the gateway is killed and comes back", killed)
    if session.era == "legacy":
        await report.check("still hears changes once its stream is open again", lambda: changes(session, "c"))


async def changes(session, suffix):
    """Changes the tools until it is heard: what changes while a stream is not open (yet, or again) is not repeated."""
    for turn in range(4):
        with contextlib.suppress(AssertionError):
            return await toggle(session, f"{suffix}{turn}", 1.5)
    raise AssertionError("no change was heard")


async def loss(report, session):
    """kill -9 of the replica that holds the session, idle first, then in the middle of a call."""
    before = session.id()

    async def idle():
        port, pid = kill_replica((await session.call("whoami", {}))[0])
        # A call that it had read before it died would be lost, and the client told so.
        await listens("127.0.0.1", port, False, 2)
        told, meta = await asyncio.wait_for(session.call("whoami", {}), 5)
        assert json.loads(told)["pid"] != pid, "the killed replica answered"
        equal(session.id(), before)
        assert session.era == "modern" or RESUMED in (meta or {}), f"no {RESUMED} in the first answer"

    async def watched():
        await session.watch()
        await toggle(session, "d")

    async def in_call():
        told = (await session.call("whoami", {}))[0]
        if session.era == "legacy":
            call = sleep_and_hear(session, 8000, lambda: kill_replica(told))
            equal(await asyncio.wait_for(code_of(session, call), 6), OUTCOME_UNKNOWN)
            # As above: the next call could be read by who is dying.
            await listens("127.0.0.1", json.loads(told)["port"], False, 2)
        await asyncio.wait_for(still_here(session), 5)
        equal(session.id(), before)

    await report.check("keeps its session when its replica is killed", idle)
    await report.check("still hears changes after the kill", watched)
    await report.check("is told when a call is lost with its replica, and goes on", in_call)


async def ended(report, url, session_id):
    async def unknown():
        equal(await asyncio.to_thread(ping_status, url, session_id), 404)

    await report.check("ended its session, which is then unknown", unknown)


def ping_status(url, session_id):
    """The HTTP status that a `ping` in this session gets."""
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "Mcp-Session-Id": session_id,
        "MCP-Protocol-Version": "2025-11-25",
    }
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
