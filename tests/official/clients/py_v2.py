"""The official Python SDK 2.x as a client: first the legacy era, then the modern one. Usage: python py_v2.py URL [ERA]"""

import asyncio
import logging
import sys
import warnings
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
import mcp_types as types
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ResourceUpdated, ToolsListChanged
from report import Ears, equal
from walk import ANSWER, SAMPLED, walk

CLOCK = "demo://clock"


class Session:
    """What walk.py asks of a client, as far as both eras agree."""

    fault = MCPError

    def __init__(self, client, ids, heard):
        self.client, self.ids, self.heard = client, ids, heard

    def id(self):
        return self.ids[-1] if self.ids else None

    async def tools(self):
        return [tool.name for tool in (await self.client.list_tools(cache_mode="bypass")).tools]

    async def call(self, name, arguments, on_progress=None):
        result = await self.client.call_tool(name, arguments, progress_callback=on_progress)
        assert not result.is_error, f"the tool failed: {result.content}"
        return result.content[0].text, result.meta

    async def cancelled_call(self, name, arguments, on_progress, began):
        call = asyncio.create_task(self.call(name, arguments, on_progress))
        await asyncio.wait_for(began.wait(), 3)
        call.cancel()
        await asyncio.wait([call], timeout=3)


class Legacy(Session):
    era = "legacy"

    async def connected(self):
        equal(self.client.protocol_version, "2025-11-25")
        assert self.id(), "no session id"

    async def set_level(self, level):
        await self.client.set_logging_level(level)

    async def watch(self):
        await self.client.subscribe_resource(CLOCK)

    async def unwatch(self):
        await self.client.unsubscribe_resource(CLOCK)


class Modern(Session):
    era = "modern"

    async def connected(self):
        equal(self.client.protocol_version, "2026-07-28")

    async def set_level(self, level):
        # Said with every request: see `log_level` of the Client below.
        equal(level, "warning")

    async def watch(self):
        self.stream = AsyncExitStack()
        opened = await self.stream.enter_async_context(
            self.client.listen(tools_list_changed=True, resource_subscriptions=[CLOCK])
        )
        assert opened.honored.tools_list_changed, "the filter was not honoured"
        self.reader = asyncio.create_task(self._read(opened))

    async def _read(self, opened):
        async for event in opened:
            if isinstance(event, ToolsListChanged):
                self.heard.tools.push(True)
            if isinstance(event, ResourceUpdated):
                self.heard.clock.push(event.uri)

    async def unwatch(self):
        self.reader.cancel()
        await self.stream.aclose()


def callbacks(heard):
    async def elicit(_context, _params):
        return types.ElicitResult(action="accept", content={"answer": ANSWER})

    async def sample(_context, _params):
        content = types.TextContent(type="text", text=SAMPLED)
        return types.CreateMessageResult(role="assistant", model="none", content=content)

    async def log(params):
        heard.logs.push(params.data)

    async def message(incoming):
        if isinstance(incoming, types.ToolListChangedNotification):
            heard.tools.push(True)
        if isinstance(incoming, types.ResourceUpdatedNotification):
            heard.clock.push(str(incoming.params.uri))

    return {
        "elicitation_callback": elicit,
        "sampling_callback": sample,
        "logging_callback": log,
        "message_handler": message,
    }


def opener(kind, mode):
    @asynccontextmanager
    async def open_session(url):
        heard, ids = Ears(), []

        async def note_session(message):
            # The answer to `initialize` gives it, every later request says it.
            if "mcp-session-id" in message.headers:
                ids.append(message.headers["mcp-session-id"])

        timeout = httpx2.Timeout(30, read=300)
        hooks = {"request": [note_session], "response": [note_session]}
        async with httpx2.AsyncClient(timeout=timeout, event_hooks=hooks) as http:
            transport = streamable_http_client(url, http_client=http)
            said = callbacks(heard)
            # In the modern era message_handler hears of changes as well; the listen stream is what is tested.
            if kind is Modern:
                del said["message_handler"]
            async with Client(transport, mode=mode, log_level="warning", **said) as client:
                yield kind(client, ids, heard)

    return open_session


ERAS = {"legacy": opener(Legacy, "legacy"), "modern": opener(Modern, "auto")}


async def main(url, wanted):
    failed = 0
    for era in wanted:
        failed += await walk(f"Python 2.x {era}", url, ERAS[era])
    return failed


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.exit(1 if asyncio.run(main(sys.argv[1], sys.argv[2:] or list(ERAS))) else 0)
