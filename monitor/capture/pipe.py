"""Messages between the service and a capture process in; the same messages on the other side out.

The pipe is the only way by which a camera's password reaches the process that connects to it: not the command
line, not the environment, not a file.
"""

from __future__ import annotations

import pickle
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from monitor.capture.camera import CapturePlan
from monitor.config import CameraConfig
from monitor.records import (
    CameraPicture,
    CameraStatus,
    CaptureCounts,
    ClipStreamStatus,
    EvidenceReport,
    EvidenceRequest,
    Sample,
    ShowCamera,
)

SEND_SECONDS = 1.0
MOST_PARTS = 64
MOST_BYTES = 2**27
"""More stands in no message, since the largest sample that a bundle may ask for has 96 MiB: its sender is damaged."""
_COUNT = struct.Struct("=I")
_LENGTH = struct.Struct("=Q")


@dataclass(frozen=True, slots=True)
class AddCamera:
    """Service to worker: watch this camera too."""

    camera: CameraConfig


@dataclass(frozen=True, slots=True)
class RemoveCamera:
    """Service to worker: watch this camera no longer."""

    camera: str


@dataclass(frozen=True, slots=True)
class ReleaseCamera:
    """Service to worker: watch this camera no longer, since another process does; keep its packets for evidence."""

    camera: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Service to worker: close every camera and leave."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Worker to service, several times a second: the worker's main loop runs."""

    cameras: int
    stuck: int
    """Threads given up on, whose call into FFmpeg has not come back."""
    stuck_seconds: float
    """How long the first of them has been given up on."""
    resident_bytes: int
    """Memory of the process; 0 where the system does not tell."""
    cpu_seconds: float
    """Processor time of the process since its start."""


Command = CapturePlan | AddCamera | RemoveCamera | ReleaseCamera | EvidenceRequest | ShowCamera | Stop
Report = Sample | CameraStatus | ClipStreamStatus | CaptureCounts | EvidenceReport | CameraPicture | Heartbeat

Received = TypeVar("Received")
Sent = TypeVar("Sent")


class MessageUnreadable(Exception):
    """What came through the pipe is no message; never leaves this room."""


class Channel(Generic[Received, Sent]):
    """One end of the pipe. Any thread may send; one thread receives.

    A message is a count of parts, their lengths, and the parts: a pickle, and behind it as raw buffers the pictures
    that it refers to (pickle protocol 5). So a sample is copied once into the socket and once out of it.

    Args:
        descriptor: of one end of a socket pair; owned from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._lock = threading.Lock()

    def send(self, message: Sent) -> None:
        """Write a message.

        Raises:
            OSError: the other side is gone, or did not read in time; the pipe is of no use any more.
        """
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
        lengths = b"".join(_LENGTH.pack(part.nbytes) for part in parts)
        unsent = deque([memoryview(_COUNT.pack(len(parts)) + lengths), *parts])
        with self._lock:
            while unsent:
                sent = self._socket.sendmsg(unsent)
                while unsent and sent >= unsent[0].nbytes:
                    sent -= unsent.popleft().nbytes
                if unsent:
                    unsent[0] = unsent[0][sent:]

    def receive(self) -> Received:
        """Wait for a message; its arrays are read-only.

        Raises:
            EOFError: the other side is gone.
            OSError: likewise.
            MessageUnreadable: it is no message; where the next one begins is not known any more.
        """
        (count,) = _COUNT.unpack(self._read(_COUNT.size))
        if not 1 <= count <= MOST_PARTS:
            raise MessageUnreadable(f"{count} parts")
        sizes = [size for (size,) in _LENGTH.iter_unpack(self._read(_LENGTH.size * count))]
        if sum(sizes) > MOST_BYTES:
            raise MessageUnreadable(f"{sum(sizes)} bytes")
        try:
            head, *buffers = [self._read(size) for size in sizes]
        except MemoryError:
            raise MessageUnreadable(f"no memory for {sum(sizes)} bytes") from None
        try:
            # The other side is our own process on a private socket.
            message: Received = pickle.loads(head, buffers=buffers)  # noqa: S301
        except Exception as exc:  # rubbish in a pickle may raise anything
            raise MessageUnreadable(type(exc).__name__) from None
        return message

    def close(self) -> None:
        """Close this end, once a message on its way has left; harmless when closed."""
        with self._lock:  # or a message on its way might be written to whatever gets the descriptor next
            self._socket.close()

    def _read(self, size: int) -> memoryview:
        """Return the next bytes, not to be changed."""
        read = memoryview(bytearray(size))
        unread = read
        while unread.nbytes:
            received = self._socket.recv_into(unread, flags=socket.MSG_WAITALL)
            if not received:
                raise EOFError
            unread = unread[received:]
        return read.toreadonly()


def channel_pair() -> tuple[Channel[Report, Command], socket.socket]:
    """Return the service's end and the socket that a worker inherits.

    Writing to a worker that takes nothing more ends after SEND_SECONDS with an OSError.
    """
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(SEND_SECONDS), 0))
    return Channel(ours.detach()), theirs
