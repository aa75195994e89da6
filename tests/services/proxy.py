"""A TCP proxy that breaks connections on purpose: put it in front of a server, point the client at its port."""

from __future__ import annotations

import asyncio
import os
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
SMALL_BUFFER_BYTES = 50 * 1024
"""What live555 asks for."""
SENDER_REPORT = 200
"""RTCP's packet type."""


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
        self._rtp_corruption = 0.0
        self._clock_seconds = 0
        self._waits = True
        self._offered = self._dropped = 0
        self._orphaned: set[asyncio.StreamWriter] = set()
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

    @property
    def offered(self) -> int:
        """How many RTP packets there were for clients that are not waited for."""
        return self._offered

    @property
    def dropped(self) -> int:
        """How many of these were dropped, since a client would not take them at once."""
        return self._dropped

    def drop_when_full(self) -> None:
        """Wait for no client from now on: what its connection does not take at once is dropped, packet by packet.

        Cameras and servers do so that serve all their clients in one thread, live555 for one.
        """
        self._waits = False

    def pause(self) -> None:
        """Forward nothing in either direction; connections stay open, new ones are taken."""
        self._call(self._set_flow(on=False))

    def resume(self) -> None:
        """Forward again, beginning with what was held back; undo all but what happened to connections."""
        self._mode, self._corruption, self._rtp_corruption, self._clock_seconds = "forward", 0.0, 0.0, 0
        self._call(self._listen())
        self._call(self._set_flow(on=True))

    def reset(self) -> None:
        """End every connection with a TCP reset; new ones are taken."""
        self._call(self._reset())

    def half_open(self) -> None:
        """Lose every connection's server without a word to the client, as a camera that reboots does; take new ones."""
        self._call(self._orphan())

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

    def corrupt_rtp(self, probability: float, *, seed: int = 0) -> None:
        """Flip one bit in the payload of this share of the RTP packets that a server sends within its TCP connection.

        The frames around them stay whole, so that it is the unpacking and the decoder that see the harm.
        """
        self._chance = random.Random(seed)
        self._rtp_corruption = probability

    def set_clock(self, seconds: int) -> None:
        """Shift the camera's clock in its RTCP sender reports by so much; the pictures come as they did."""
        self._clock_seconds = seconds

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

    async def _orphan(self) -> None:
        self._orphaned |= self._writers

    async def _shut_down(self) -> None:
        await self._stop_listening()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.02)  # lets the transports close

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
            asyncio.create_task(
                self._pump(server_reader, writer, harm=True) if self._waits else self._pour(server_reader, writer)
            ),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            server_writer.transport.abort()  # at once: what follows may be cancelled itself
            await asyncio.gather(*pumps, return_exceptions=True)
            orphaned = writer in self._orphaned
            self._orphaned -= {writer, server_writer}
            self._writers.discard(server_writer)
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.drain(), 1.0)
        while orphaned and await reader.read(CHUNK_BYTES):
            continue  # what the client still says is heard by nobody

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, harm: bool) -> None:
        framing = InterleavedFraming()
        while chunk := await reader.read(CHUNK_BYTES):
            await self._flow.wait()
            if writer in self._orphaned:
                return
            if harm:
                payloads = framing.payloads(chunk)
                chunk = self._with_shifted_clock(chunk, framing.reports)
                chunk = self._harmed_rtp(chunk, payloads) if self._rtp_corruption else self._harmed(chunk)
            writer.write(chunk)
            await writer.drain()

    async def _pour(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
        unsent = bytearray()
        while chunk := await reader.read(CHUNK_BYTES):
            unsent += chunk
            while piece := _first_piece(unsent):
                del unsent[: len(piece)]
                await self._offer(connection.fileno(), piece)

    async def _offer(self, descriptor: int, piece: bytes) -> None:
        """Send a piece, but drop an RTP packet of which the connection takes nothing now."""
        sent = 0
        is_packet = piece[:1] == b"$"
        self._offered += is_packet
        while sent < len(piece):
            try:
                sent += os.write(descriptor, piece[sent:])
            except BlockingIOError:
                if not sent and is_packet:
                    self._dropped += 1
                    return
                await asyncio.sleep(0.001)

    def _with_shifted_clock(self, chunk: bytes, reports: list[range]) -> bytes:
        if not self._clock_seconds:
            return chunk
        shifted = bytearray(chunk)
        for report in reports:
            if shifted[report.start + 1] == SENDER_REPORT:
                seconds = slice(report.start + 8, report.start + 12)  # of the NTP timestamp (RFC 3550, 6.4.1)
                shifted[seconds] = (int.from_bytes(shifted[seconds]) + self._clock_seconds).to_bytes(4)
        return bytes(shifted)

    def _harmed_rtp(self, chunk: bytes, payloads: list[range]) -> bytes:
        harmed = bytearray(chunk)
        for payload in payloads:
            if payload and self._chance.random() < self._rtp_corruption:
                harmed[self._chance.choice(payload)] ^= 1 << self._chance.randrange(8)
        return bytes(harmed)

    def _harmed(self, chunk: bytes) -> bytes:
        if self._chance.random() >= self._corruption:
            return chunk
        harmed = bytearray(chunk)
        harmed[self._chance.randrange(len(harmed))] ^= 1 << self._chance.randrange(8)
        return bytes(harmed)


class InterleavedFraming:
    """Finds RTP payloads and RTCP in what an RTSP server sends in its connection (RFC 2326, 10.12); holds nothing back.

    Attributes:
        reports: where in the newest chunk whole RTCP packets lie; one that is cut in two is left out.
    """

    HEAD_BYTES = 4
    RTP_HEAD_BYTES = 12

    def __init__(self) -> None:
        self._head = b""
        self._text = b""
        self._left = 0
        self._skip = 0
        self._is_rtp = False
        self.reports: list[range] = []

    def payloads(self, chunk: bytes) -> list[range]:
        """Return where in the next chunk there is RTP payload."""
        found = []
        self.reports = []
        at = 0
        while at < len(chunk):
            if self._left:
                end = min(len(chunk), at + self._left)
                begin = min(end, at + self._skip)
                self._skip -= begin - at
                self._left -= end - at
                if self._is_rtp:
                    found.append(range(begin, end))
                at = end
            else:
                at = self._read_head(chunk, at)
                if self._left and not self._is_rtp and at + self._left <= len(chunk):
                    self.reports.append(range(at, at + self._left))
        return found

    def _read_head(self, chunk: bytes, at: int) -> int:
        """Read on in a frame's head, or skip what is a text answer; return where it ends."""
        if not self._head and (self._text or chunk[at] != ord("$")):
            text = self._text + chunk[at:]
            dollar = text.find(b"\r\n$")  # where an answer and its body end, a frame begins
            if dollar < 0:
                self._text = text[-2:]
                return len(chunk)
            at += dollar + 2 - len(self._text)
            self._text = b""
        take = chunk[at : at + self.HEAD_BYTES - len(self._head)]
        self._head += take
        if len(self._head) == self.HEAD_BYTES:
            self._is_rtp = self._head[1] % 2 == 0
            self._left = int.from_bytes(self._head[2:])
            self._skip = min(self._left, self.RTP_HEAD_BYTES)
            self._head = b""
        return at + len(take)


def _first_piece(sent: bytearray) -> bytes:
    """Return the first whole RTP or RTCP packet of what an RTSP server sent, or the text before it."""
    if sent[:1] == b"$":
        size = 4 + int.from_bytes(sent[2:4])
        return bytes(sent[:size]) if 4 <= len(sent) >= size else b""
    dollar = sent.find(b"\r\n$")
    return bytes(sent if dollar < 0 else sent[: dollar + 2])


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
