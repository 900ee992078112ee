"""A server on the official Python SDK 2.x whose one tool answers at once, with sessions and JSON answers: what it takes for
a call is what the SDK takes. Usage: python instant.py PORT, with the SDK's interpreter (tests/official/setup)."""

import sys

from mcp.server.mcpserver import MCPServer

mcp = MCPServer("instant-py", log_level="ERROR")


@mcp.tool()
def echo(text: str) -> str:
    """Says what it is told."""
    return text


if __name__ == "__main__":
    mcp.run(transport="streamable-http", port=int(sys.argv[1]), json_response=True)
