"""A TCP proxy that breaks connections on purpose: put it in front of a server, point the client at its port."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self

from tests.services.ports import free_port

Mode = Literal["forward", "swallow", "garbage"]

CALL_SECONDS = 5.0
CHUNK_BYTES = 64 * 1024


class FaultyProxy:
    """Forward connections to `127.0.0.1:target`, until told to misbehave.

    Example:
        with FaultyProxy(server.port) as proxy:
            client.connect("127.0.0.1", proxy.port)
            proxy.pause()
    """

    def __init__(self, target: int, *, port: int | None = None) -> None:
        self.target = target
        self.port = port or free_port()
        self._mode: Mode = "forward"
        self._corruption = 0.0
        self._chance = random.Random(0)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepted = 0
        self._server: asyncio.Server | None = None
        self._flow = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Begin to listen and to forward."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        self._thread.start()
        self._flow.set()
        self._call(self._listen())

    def close(self) -> None:
        """Close every connection and the thread."""
        loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._shut_down(), loop).result(CALL_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(CALL_SECONDS)
        loop.close()

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return len(self._tasks)

    @property
    def accepted(self) -> int:
        """How many clients have ever been connected."""
        return self._accepted

    def pause(self) -> None:
        """Forward nothing in either direction; connections stay open, new ones are taken."""
        self._call(self._set_flow(on=False))

    def resume(self) -> None:
        """Forward again, beginning with what was held back; undo `swallow`, `garbage`, `corrupt` and `refuse`."""
        self._mode, self._corruption = "forward", 0.0
        self._call(self._listen())
        self._call(self._set_flow(on=True))

    def reset(self) -> None:
        """End every connection with a TCP reset; new ones are taken."""
        self._call(self._reset())

    def refuse(self) -> None:
        """Stop listening: new connections are refused, the present ones go on."""
        self._call(self._stop_listening())

    def accept(self) -> None:
        """Listen again on the same port."""
        self._call(self._listen())

    def swallow(self) -> None:
        """Take new connections and never answer them."""
        self._mode = "swallow"

    def garbage(self) -> None:
        """Answer new connections with bytes that are no protocol."""
        self._mode = "garbage"

    def corrupt(self, probability: float, *, seed: int = 0) -> None:
        """Flip one bit in this share of the chunks that the server sends."""
        self._chance = random.Random(seed)
        self._corruption = probability

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None, "the proxy is not running"
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=128)

    async def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _set_flow(self, *, on: bool) -> None:
        if on:
            self._flow.set()
        else:
            self._flow.clear()

    async def _reset(self) -> None:
        for writer in list(self._writers):
            _abort(writer)

    async def _shut_down(self) -> None:
        await self._stop_listening()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # lets the transports close

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self._accepted += 1
        try:
            await self._treat(reader, writer)
        except OSError:
            pass  # either side went away, which is what the proxy is for
        except asyncio.CancelledError:
            pass  # the proxy is being closed
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.transport.abort()

    async def _treat(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode == "forward":
            await self._connect(reader, writer)
            return
        while await reader.read(CHUNK_BYTES):
            if self._mode == "garbage":
                writer.write(self._chance.randbytes(4096))
                await writer.drain()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Couple the client with the server until either hangs up."""
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers.add(server_writer)
        pumps = [
            asyncio.create_task(self._pump(reader, server_writer, harm=False)),
            asyncio.create_task(self._pump(server_reader, writer, harm=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._writers.discard(server_writer)
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.drain(), 1.0)
            server_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, harm: bool) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await self._flow.wait()
            writer.write(self._harmed(chunk) if harm else chunk)
            await writer.drain()

    def _harmed(self, chunk: bytes) -> bytes:
        if self._chance.random() >= self._corruption:
            return chunk
        harmed = bytearray(chunk)
        harmed[self._chance.randrange(len(harmed))] ^= 1 << self._chance.randrange(8)
        return bytes(harmed)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
