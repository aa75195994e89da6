"""Messages between the service and a capture process in; the same messages on the other side out.

The pipe is the only way by which a camera's password reaches the process that connects to it: not the command
line, not the environment, not a file.
"""

from __future__ import annotations

import pickle
import socket
import struct
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
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
_COUNT = struct.Struct("=I")


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

    Pictures are not copied into the pickle: they cross as raw buffers behind it (pickle protocol 5), so a sample
    costs one write into the socket and one read out of it.

    Args:
        descriptor: of one end of a socket pair; owned from now on.
    """

    def __init__(self, descriptor: int) -> None:
        self._connection = Connection(descriptor)
        self._lock = threading.Lock()

    def send(self, message: Sent) -> None:
        """Write a message.

        Raises:
            OSError: the other side is gone, or did not read in time; the pipe is of no use any more.
        """
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        with self._lock:
            self._connection.send_bytes(_COUNT.pack(len(buffers)) + head)
            for buffer in buffers:
                self._connection.send_bytes(buffer.raw())

    def receive(self) -> Received:
        """Wait for a message; its arrays are read-only.

        Raises:
            EOFError: the other side is gone.
            OSError: likewise.
            MessageUnreadable: it is no message; where the next one begins is not known any more.
        """
        try:
            head = self._connection.recv_bytes()
            buffers = [self._connection.recv_bytes() for _ in range(_COUNT.unpack_from(head)[0])]
            # The other side is our own process on a private socket.
            message: Received = pickle.loads(memoryview(head)[_COUNT.size :], buffers=buffers)  # noqa: S301
        except (EOFError, OSError):
            raise
        except Exception as exc:  # rubbish in a pickle or before it may raise anything
            raise MessageUnreadable(type(exc).__name__) from None
        return message

    def close(self) -> None:
        """Close this end; harmless when closed."""
        with self._lock:  # or a message on its way might be written to whatever gets the descriptor next
            self._connection.close()


def channel_pair() -> tuple[Channel[Report, Command], socket.socket]:
    """Return the service's end and the socket that a worker inherits.

    Writing to a worker that does not read ends after SEND_SECONDS with an OSError.
    """
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(SEND_SECONDS), 0))
    return Channel(ours.detach()), theirs
