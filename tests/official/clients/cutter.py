"""A TCP relay in front of one address, so that a test can cut its client's connections.

Copies bytes both ways, understands nothing. `cut()` resets every connection at once; later ones work.
"""

import asyncio
from urllib.parse import urlsplit, urlunsplit


class Cutter:
    """`async with Cutter(url) as cutter`: `cutter.url` has the path of `url` and the relay's port."""

    def __init__(self, url):
        self.target = urlsplit(url)
        self.down_bytes = 0
        self._writers = set()
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = urlunsplit(self.target._replace(netloc=f"127.0.0.1:{port}"))
        return self

    async def __aexit__(self, *_):
        self._server.close()
        self.cut()

    async def _relay(self, client_reader, client_writer):
        self._writers.add(client_writer)
        server_writer = None
        try:
            server_reader, server_writer = await asyncio.open_connection(self.target.hostname, self.target.port)
            self._writers.add(server_writer)
            await asyncio.gather(self._copy(client_reader, server_writer, False), self._copy(server_reader, client_writer, True))
        except OSError:
            pass
        finally:
            for writer in (client_writer, server_writer):
                if writer is not None:
                    self._writers.discard(writer)
                    writer.transport.abort()

    async def _copy(self, reader, writer, down):
        while chunk := await reader.read(65536):
            if down:
                self.down_bytes += len(chunk)
            writer.write(chunk)
            await writer.drain()
        # One side is done: the relay's connections end as a pair.
        raise ConnectionError

    def cut(self):
        """Resets every connection."""
        for writer in list(self._writers):
            writer.transport.abort()
