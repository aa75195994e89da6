"""The TCP connections of this process; the same ones with room for what is not read at once.

A reader that rests leaves the kernel to keep what comes. The kernel begins with 64 kB a connection and gives more only
as it sees how much is read; and some servers do not wait where a connection takes no more, but drop packets.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

ROOM_BYTES = 2**20
"""What a connection is to hold unread."""
DESCRIPTORS = Path("/proc/self/fd")


def make_room() -> int:
    """Let the kernel keep ROOM_BYTES for each TCP connection of this process, where it may.

    FFmpeg has no option for the connection of RTSP and PyAV tells no descriptor, so all of the process are looked at: a
    capture process has no connections but those to its cameras.

    Returns:
        For how many bytes each of them has room; 0 where there is none, or the system does not list them.
    """
    rooms: list[int] = []
    with suppress(OSError):
        for name in os.listdir(DESCRIPTORS):
            with suppress(OSError):  # closed since, no socket, or not connected
                rooms.extend(_room(int(name)))
    return min(rooms, default=0)


def _room(descriptor: int) -> list[int]:
    """Return the room of a TCP connection after it was made; of anything else nothing."""
    connection = socket.socket(fileno=descriptor)
    try:
        is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM
        if not is_tcp:
            return []
        connection.getpeername()
        if _window(connection) < ROOM_BYTES:
            # Who wants to be woken for no less than this must be able to hold it: Linux, since 4.17, makes the buffer
            # large enough, up to half of net.ipv4.tcp_rmem's most, and lets it grow on by itself. SO_RCVBUF would
            # stop at net.core.rmem_max, which is a few hundred kB on most machines, and end its growing.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, ROOM_BYTES)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        return [_window(connection)]
    finally:
        connection.detach()  # it belongs to somebody else


def _window(connection: socket.socket) -> int:
    """Return how many bytes the kernel lets the other side send before they are read."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP)
