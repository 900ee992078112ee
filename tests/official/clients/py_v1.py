"""The official Python SDK 1.x as a client: legacy era. Usage: python py_v1.py URL"""

import asyncio
import logging
import sys
from contextlib import asynccontextmanager

import mcp.types as types
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamable_http_client
from pydantic import AnyUrl
from report import Ears, equal
from walk import ANSWER, SAMPLED, walk

CLOCK = AnyUrl("demo://clock")


class Session:
    """What walk.py asks of a client."""

    era = "legacy"
    fault = McpError

    def __init__(self, client, id_of, heard):
        self.client, self.id, self.heard = client, id_of, heard

    async def connected(self):
        assert self.id(), "no session id"

    async def tools(self):
        return [tool.name for tool in (await self.client.list_tools()).tools]

    async def call(self, name, arguments, on_progress=None):
        result = await self.client.call_tool(name, arguments, progress_callback=on_progress)
        assert not result.isError, f"the tool failed: {result.content}"
        return result.content[0].text, result.meta

    async def cancelled_call(self, name, arguments, on_progress, began):
        # This SDK sends no cancellation by itself, so it is sent as an application would.
        request_id = self.client._request_id
        call = asyncio.create_task(self.call(name, arguments, on_progress))
        await asyncio.wait_for(began.wait(), 3)
        params = types.CancelledNotificationParams(requestId=request_id, reason="no longer needed")
        await self.client.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))
        call.cancel()

    async def set_level(self, level):
        await self.client.set_logging_level(level)

    async def watch(self):
        await self.client.subscribe_resource(CLOCK)

    async def unwatch(self):
        await self.client.unsubscribe_resource(CLOCK)


def callbacks(heard):
    async def elicit(_context, _params):
        return types.ElicitResult(action="accept", content={"answer": ANSWER})

    async def sample(_context, _params):
        content = types.TextContent(type="text", text=SAMPLED)
        return types.CreateMessageResult(role="assistant", model="none", content=content)

    async def log(params):
        heard.logs.push(params.data)

    async def message(incoming):
        if isinstance(incoming, types.ServerNotification):
            if isinstance(incoming.root, types.ToolListChangedNotification):
                heard.tools.push(True)
            if isinstance(incoming.root, types.ResourceUpdatedNotification):
                heard.clock.push(str(incoming.root.params.uri))

    return {
        "elicitation_callback": elicit,
        "sampling_callback": sample,
        "logging_callback": log,
        "message_handler": message,
    }


@asynccontextmanager
async def open_session(url):
    heard = Ears()
    async with streamable_http_client(url) as (read, write, id_of):
        async with ClientSession(read, write, **callbacks(heard)) as client:
            agreed = await client.initialize()
            equal(agreed.protocolVersion, "2025-11-25")
            yield Session(client, id_of, heard)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    sys.exit(1 if asyncio.run(walk("Python 1.x", sys.argv[1], open_session)) else 0)
