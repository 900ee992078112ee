"""The everything-server of the official Python SDK 1.x in a shape that is also met in the wild.

`stateless_http`: no sessions at all. `json_response`: JSON answers, no event streams but the standing one.
Usage, in the folder of the everything-server: python everything.py --port N SHAPE
"""

import argparse
import os
import sys

sys.path.insert(0, os.getcwd())

from mcp_everything_server.server import mcp  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("shape", choices=["stateless_http", "json_response"])
typed = parser.parse_args()
mcp.settings.port = typed.port
mcp.settings.log_level = "WARNING"
setattr(mcp.settings, typed.shape, True)
mcp.run(transport="streamable-http")
