"""Whether the benchmark's own server keeps up: one stream of it, read beside those of a contender, in; a share out."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

import av
import av.error

SERVER_NICE, WITNESS_NICE, CONTENDER_NICE = -10, -10, -5
"""Cameras do not run on the monitor's machine: what stands for them goes first; and all goes before other work."""


def take_precedence(pid: int, nice: int) -> None:
    """Give a process, with all threads that it has and will have, precedence; where we may not, it goes without."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, int(thread), nice)


class Witness:
    """Counts the packets of a stream, and decodes none: where even it gets too few, the server was too slow."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="witness", daemon=True)
        self.packets = 0
        """Pictures that have come."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(5.0)

    def _read(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), WITNESS_NICE)
        while not self._stop.is_set():
            try:
                self._count()
            except av.error.FFmpegError:  # the server was too slow to answer; what did not come shows in the count
                time.sleep(0.2)

    def _count(self) -> None:
        options = {"rtsp_transport": "tcp", "timeout": "5000000", "analyzeduration": "1000000", "fpsprobesize": "0"}
        with av.open(self._url, options=options) as container:
            for packet in container.demux(video=0):
                self.packets += bool(packet.size)
                if self._stop.is_set():
                    return
