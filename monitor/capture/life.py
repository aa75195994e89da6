"""One capture process, from its start to its end: whether it is well, and what it holds of memory and time."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from monitor.capture.camera import CapturePlan
from monitor.capture.pipe import Channel, Command, Heartbeat, Report, channel_pair
from monitor.deadline import Deadline
from monitor.records import CameraStatus

SILENT_SECONDS = 2.0
"""A worker that is silent for this long is killed; it beats four times as often. With the time that Python takes to
import its libraries, the next one runs within 5 s."""
STARVED_SECONDS = 10.0
"""So long may it be silent while its main thread is ready to run and gets no processor."""
START_SECONDS = 30.0
"""The first heartbeat may take longer: the process has to import its libraries, on a busy machine."""
LONGEST_LOOK_SECONDS = 0.5
"""What one look adds to a silence at most. Whoever stops the whole machine, or starves the service too, stops the
count: a worker is silent only as long as we were there to hear it."""
REAP_SECONDS = 0.2

# One camera needs no thread pool of a linear algebra library, and a heap for each thread is memory for nothing.
WORKER_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


@dataclass(slots=True)
class Life:
    """One process, from its start to its end."""

    process: subprocess.Popen[bytes]
    channel: Channel[Report, Command]
    reader: threading.Thread | None = None
    begun: float = field(default_factory=time.monotonic)
    beat: Heartbeat | None = None
    """Its newest heartbeat; None before the first."""
    cpu_seconds: float = 0.0
    """Processor time up to the newest heartbeat."""
    fresh_bytes: int | None = None
    """What it held of memory when it had settled."""
    states: dict[str, CameraStatus] = field(default_factory=dict)
    """What it told last of each camera."""
    busy: bool = False
    """Whether its reader is inside a callback: then it is the service that is slow, not the worker."""
    ended: bool = False
    """Whether its end of the pipe is closed."""
    deaf: bool = False
    """Whether a command did not reach it."""
    garbled: bool = False
    """Whether it has said something that nobody can read."""
    _heard: bool = False
    _silent: float = 0.0
    _looked: float = field(default_factory=time.monotonic)

    @property
    def age_seconds(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self.begun

    @property
    def resident_bytes(self) -> int:
        """Memory that it held with its newest heartbeat."""
        return 0 if self.beat is None else self.beat.resident_bytes

    def send(self, command: Command) -> None:
        """Tell it something; what does not arrive costs it its life, for it would watch the wrong cameras."""
        if self.deaf:
            return
        try:
            self.channel.send(command)
        except OSError:  # the keeper will see it, and its successor is told everything
            self.deaf = True

    def hear(self) -> None:
        """Note that it has said something."""
        self._heard, self._silent = True, 0.0

    def lost_because(self) -> str | None:
        """Return why the process is of no use any more; None while it is well. To be asked all the time."""
        now = time.monotonic()
        self._silent += min(now - self._looked, LONGEST_LOOK_SECONDS)
        self._looked = now
        if self.garbled:
            return "sent what cannot be read"
        if self.ended:  # a killed process closes its pipe a moment before it can be reaped
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(REAP_SECONDS)
        code = self.process.poll()
        if code is not None:
            return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        if self.ended:
            return "closed its pipe"
        if self.deaf:
            return "did not take a command"
        if self.busy:
            self._silent = 0.0
            return None
        limit = SILENT_SECONDS if self._heard else START_SECONDS
        if self._silent <= limit or (self._silent <= STARVED_SECONDS and _is_ready_to_run(self.process.pid)):
            return None
        return f"no heartbeat for {self._silent:.0f} s"

    def kill(self, deadline: Deadline) -> None:
        """End the process for good and reap it; harmless when it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.05, deadline.remaining()))


def begin_life(plan: CapturePlan, *, read: Callable[[Life], None], reader: str) -> Life:
    """Start a capture process that has the plan and no camera yet, and the thread that hears it.

    Args:
        plan: of all cameras.
        read: the body of that thread.
        reader: its name.

    Raises:
        OSError: the system has no process, thread or descriptor to give.
    """
    channel, theirs = channel_pair()
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "monitor.capture.process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**WORKER_ENVIRONMENT, **os.environ},
                process_group=0,  # Ctrl-C is for the service, which stops its workers in its own order
            )
    except BaseException:
        channel.close()
        raise
    life = Life(process, channel)
    life.send(plan)
    life.reader = threading.Thread(target=read, args=(life,), name=reader, daemon=True)
    try:
        life.reader.start()
    except RuntimeError as exc:
        life.kill(Deadline(REAP_SECONDS))
        channel.close()
        raise OSError(errno.EAGAIN, str(exc)) from exc
    return life


def _is_ready_to_run(pid: int) -> bool:
    """Whether the main thread wants a processor: it is not stopped and waits for nothing else. Linux alone tells."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "R"
