"""A real RTSP server (GStreamer's) whose mounts play elementary streams for ever: files in, `rtsp://` URLs out.

The server runs in a process of its own under the system's Python, which has GStreamer's bindings; it ends when
its owner does. Used by the tests, the demo and the benchmarks; imports no pytest.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self
from urllib.parse import quote

from tests.services.guarded import ServiceError
from tests.services.ports import free_port
from tests.services.rtsp.streams import Codec, Picture, encode_stream

__all__ = ["Codec", "Mount", "MountStatus", "Picture", "RtspServer", "ServiceError", "encode_stream", "missing"]

PYTHON = "/usr/bin/python3"
"""Debian's, with python3-gi."""

SCRIPT = Path(__file__).with_name("server.py")
ANSWER_SECONDS = 15.0
STOP_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Mount:
    """What one path of the server plays."""

    file: Path
    """An elementary stream made by `encode_stream`."""
    fps: float
    codec: Codec = "h264"
    loop: bool = True
    """Without it the stream ends with the file."""
    shared: bool = False
    """One pipeline for all clients, who then come in between IDRs, instead of one for each from an IDR on."""
    live: bool = False
    """New clients begin where a camera that never paused would be, instead of at the file's beginning."""

    def as_json(self) -> dict[str, object]:
        """Return what the server's process reads."""
        return {
            "file": str(self.file.absolute()),
            "fps": self.fps,
            "codec": self.codec,
            "loop": self.loop,
            "shared": self.shared,
            "live": self.live,
        }


@dataclass(frozen=True, slots=True)
class MountStatus:
    """How much a mount is watched."""

    streams: int
    """Pipelines that run now: one a client, or one in all where the mount is shared."""
    pushed: int
    """Pictures sent since the start, all clients together."""


def missing() -> str | None:
    """Return why the server cannot run on this machine, or None when it can."""
    if not Path(PYTHON).exists():
        return f"no {PYTHON}; run scripts/setup-services.sh rtsp"
    needed = "; ".join(
        [
            "import gi",
            "gi.require_version('GstRtspServer', '1.0')",
            "from gi.repository import Gst, GstRtspServer",
            "Gst.init(None)",
            "missing = [n for n in ('appsrc', 'rtph264pay', 'rtph265pay') if not Gst.ElementFactory.find(n)]",
            "assert not missing, missing",
        ]
    )
    try:
        probe = subprocess.run([PYTHON, "-c", needed], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return "GStreamer does not answer"
    if probe.returncode != 0:
        reason = (probe.stderr.strip().splitlines() or ["unknown"])[-1]
        return f"GStreamer's RTSP server is missing ({reason}); run scripts/setup-services.sh rtsp"
    return None


class RtspServer:
    """Own the process of one RTSP server; keeps its port over `stop`, `kill` and `start`.

    Example:
        with RtspServer({"yard": Mount(Path("yard.h264"), fps=15)}) as server:
            av.open(server.url("yard"), options={"rtsp_transport": "tcp"})
    """

    def __init__(
        self,
        mounts: Mapping[str, Mount],
        *,
        user: str | None = None,
        password: str | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        port: int | None = None,
    ) -> None:
        """Describe the server; nothing starts yet.

        Args:
            user: with `password`, every mount asks for them by digest authentication.
            certificate: with `key`, PEM files; the server then speaks TLS (`rtsps://`) only.
            port: chosen when None.
        """
        self._mounts = dict(mounts)
        self._user = user
        self._password = password
        self._certificate = certificate
        self._key = key
        self.port = port or free_port()
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader: threading.Thread | None = None
        self._log: IO[str] | None = None
        self._requests = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ServiceError("the RTSP server is not running")
        return self._process.pid

    def url(self, mount: str, user: str | None = None, password: str | None = None) -> str:
        """Return the URL of a mount, with credentials where given."""
        scheme = "rtsps" if self._certificate else "rtsp"
        login = f"{quote(user, safe='')}:{quote(password or '', safe='')}@" if user else ""
        return f"{scheme}://{login}127.0.0.1:{self.port}/{mount}"

    def start(self) -> None:
        """Start the process and return when it listens."""
        if self.running:
            return
        self._log = tempfile.TemporaryFile("w+", prefix="rtsp-server-")
        self._answers = queue.Queue()
        self._process = subprocess.Popen(
            [PYTHON, "-u", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "GST_DEBUG_NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self._reader = threading.Thread(target=self._read, args=(self._process, self._answers), daemon=True)
        self._reader.start()
        try:
            self._send(self._configuration())
            self._receive()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the process; harmless when it has ended."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the process by SIGKILL, as if the cameras' power had failed."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(STOP_SECONDS)
            if self._reader is not None:
                self._reader.join(STOP_SECONDS)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def restart(self) -> None:
        """Kill the server and start it again on the same port, with the mounts as they are now."""
        self.kill()
        self.start()

    def add(self, name: str, mount: Mount) -> None:
        """Open a new mount while the server runs."""
        self._mounts[name] = mount
        self._command("add", name=name, **mount.as_json())

    def remove(self, name: str) -> None:
        """Close a mount: new clients are told 404, running ones see the stream end."""
        del self._mounts[name]
        self._command("remove", mount=name)

    def stall(self, mount: str) -> None:
        """Send no more pictures of this mount; connections stay open."""
        self._command("set", mount=mount, stalled=True)

    def resume(self, mount: str) -> None:
        """Undo `stall` and `freeze`."""
        self._command("set", mount=mount, stalled=False, frozen=False)

    def freeze(self, mount: str) -> None:
        """Repeat the last IDR at the mount's rate: packets arrive, the picture stands still."""
        self._command("set", mount=mount, frozen=True)

    def set_fps(self, mount: str, fps: float) -> None:
        """Send faster or slower from now on."""
        self._command("set", mount=mount, fps=fps)

    def set_loss(self, mount: str, fraction: float) -> None:
        """Let this share of the RTP packets vanish from now on."""
        self._command("lose", mount=mount, loss=fraction)

    def set_password(self, password: str) -> None:
        """Ask for another password from now on; clients that watch already go on."""
        self._command("set_password", user=self._user, password=password)
        self._password = password

    def harm(self, mount: str, kind: Literal["flip", "truncate"], *, share: float = 1.0, seed: int = 0) -> None:
        """Damage this share of the pictures from now on: bits flipped inside, or their ends cut off."""
        self._command("harm", mount=mount, kind=kind, share=share, seed=seed)

    def heal(self, mount: str) -> None:
        """Send whole pictures again."""
        self._command("harm", mount=mount, kind=None, share=0.0, seed=0)

    def jump(self, mount: str, seconds: float) -> None:
        """Shift the RTP time stamps of the running streams; the pace stays.

        Args:
            seconds: forward; back where negative, at most to the stream's own beginning.
        """
        self._command("jump", mount=mount, seconds=seconds)

    def set_file(self, mount: str, file: Path, *, fps: float, codec: Codec = "h264") -> None:
        """Play another file from its beginning.

        Running clients go over in mid-stream, size and all; where the codec changes, their stream ends and
        they find the new one when they come back.
        """
        self._command("set_file", mount=mount, file=str(file.absolute()), fps=fps, codec=codec)
        old = self._mounts[mount]
        self._mounts[mount] = Mount(file, fps, codec, loop=old.loop, shared=old.shared, live=old.live)

    def disconnect(self) -> None:
        """Close every client's connection; the server goes on."""
        self._command("disconnect")

    def status(self) -> dict[str, MountStatus]:
        """Return how much each mount is watched."""
        return {name: MountStatus(**counts) for name, counts in self._command("status").items()}

    def _configuration(self) -> dict[str, object]:
        return {
            "port": self.port,
            "mounts": {name: mount.as_json() for name, mount in self._mounts.items()},
            "user": self._user,
            "password": self._password,
            "certificate": str(self._certificate.absolute()) if self._certificate else None,
            "key": str(self._key.absolute()) if self._key else None,
        }

    def _command(self, command: str, **arguments: object) -> Any:
        with self._lock:
            self._requests += 1
            self._send({"id": self._requests, "command": command, **arguments})
            return self._receive().get("value")

    def _send(self, request: dict[str, object]) -> None:
        if self._process is None or self._process.stdin is None:
            raise ServiceError("the RTSP server is not running")
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as exc:
            raise ServiceError(f"the RTSP server has ended: {self._last_words()}") from exc

    def _receive(self) -> dict[str, Any]:
        try:
            reply = self._answers.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            raise ServiceError(f"no answer from the RTSP server: {self._last_words()}") from None
        if "error" in reply:
            raise ServiceError(reply["error"])
        return reply

    def _read(self, process: subprocess.Popen[str], answers: queue.Queue[dict[str, Any]]) -> None:
        """Queue each line of stdout; at its end leave an error for whoever still waits."""
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(json.loads(line))
        answers.put({"error": f"the RTSP server has ended: {self._last_words()}"})

    def _last_words(self) -> str:
        """Return the end of the server's stderr."""
        if self._log is None or self._log.closed:
            return ""
        self._log.seek(0)
        return self._log.read()[-2000:].strip()
