"""Serve elementary streams as endless live RTSP cameras; JSON lines come in on stdin, answers go out on stdout.

Run by the *system's* Python (`/usr/bin/python3`), which alone has GStreamer's bindings; so this file imports
nothing but the standard library and `gi`. `tests.services.rtsp.RtspServer` owns the process.

The first line is the configuration, every later line a command; the process ends when stdin does:

    {"port": 8554, "mounts": {"yard": {"file": "yard.h264", "codec": "h264", "fps": 15, "loop": true,
                                       "shared": false, "live": false}},
     "user": null, "password": null, "certificate": null, "key": null}
    {"id": 1, "command": "stall", "mount": "yard"}
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402  (versions must be required first)

AUD = {"h264": re.compile(rb"\x00?\x00\x00\x01\x09"), "h265": re.compile(rb"\x00?\x00\x00\x01\x46\x01")}
"""Start code and header of the access unit delimiter, with which our encoder begins every picture."""

IDR = {
    "h264": re.compile(rb"\x00\x00\x01[\x25\x45\x65]"),
    "h265": re.compile(rb"\x00\x00\x01[\x26\x28]\x01"),
}
"""NAL headers of pictures from which decoding can begin."""

SECOND = Gst.SECOND
DRAIN_SECONDS = 0.2
"""How long a jump of the time stamps waits for the pictures before it."""
QUEUE_BYTES = 32 * 1024 * 1024
"""What one client's pipeline may hold back; the oldest goes first."""


class Clip:
    """An elementary stream cut into access units, each a GStreamer buffer whose memory all clients share."""

    def __init__(self, path: str, codec: str) -> None:
        with open(path, "rb") as file:
            stream = file.read()
        cuts = [match.start() for match in AUD[codec].finditer(stream)]
        if not cuts:
            raise ValueError(f"{path}: no access unit delimiters; make the file with encode_stream")
        units = [stream[begin:end] for begin, end in zip(cuts, [*cuts[1:], len(stream)])]
        self.codec = codec
        self.units = [Gst.Buffer.new_wrapped(unit) for unit in units]
        self.keys = [index for index, unit in enumerate(units) if IDR[codec].search(unit)]
        if not self.keys or self.keys[0] != 0:
            raise ValueError(f"{path}: the first picture is not an IDR")

    def key_before(self, index: int) -> int:
        """Return the last position at or before `index` where decoding can begin."""
        return max(key for key in self.keys if key <= index)

    def buffer(self, index: int, *, pts: int, duration: int, harm: Harm | None = None) -> Gst.Buffer:
        """Return access unit `index` with its own time, sharing the bytes unless they are to be harmed."""
        unit = self.units[index]
        if harm is not None and harm.strikes():
            unit = Gst.Buffer.new_wrapped(harm.done_to(unit.extract_dup(0, unit.get_size())))
        buffer = unit.copy_region(Gst.BufferCopyFlags.MEMORY, 0, unit.get_size())
        buffer.pts = buffer.dts = pts
        buffer.duration = duration
        return buffer


class Harm:
    """Damage done to a share of the pictures before they are packed, always the same for one seed."""

    SPARED_BYTES = 16
    """Delimiter and first NAL header: what is harmed is still sent as a picture."""

    def __init__(self, kind: str, share: float, seed: int) -> None:
        if kind not in ("flip", "truncate"):
            raise ValueError(f"unknown harm {kind!r}")
        self.kind = kind
        self.share = share
        self.chance = random.Random(seed)

    def strikes(self) -> bool:
        """Decide about the next picture."""
        return self.chance.random() < self.share

    def done_to(self, unit: bytes) -> bytes:
        """Return the picture with one bit in 200 bytes flipped, or without its end."""
        if len(unit) <= self.SPARED_BYTES:
            return unit
        if self.kind == "truncate":
            return unit[: self.chance.randrange(self.SPARED_BYTES, len(unit))]
        harmed = bytearray(unit)
        for _ in range(1 + len(unit) // 200):
            harmed[self.chance.randrange(self.SPARED_BYTES, len(unit))] ^= 1 << self.chance.randrange(8)
        return bytes(harmed)


@dataclass
class Mount:
    """What one path serves now; changed by commands while clients watch."""

    name: str
    clip: Clip
    fps: float
    loop: bool = True
    shared: bool = False
    live: bool = False
    stalled: bool = False
    frozen: bool = False
    loss: float = 0.0
    harm: Harm | None = None
    pushed: int = 0
    streams: list[Stream] = field(default_factory=list)

    def entry(self, elapsed_seconds: float) -> int:
        """Return where a new client begins: the file's start, or where a camera that never paused would be."""
        if not self.live:
            return 0
        return self.clip.key_before(int(elapsed_seconds * self.fps) % len(self.clip.units))


class Stream:
    """One client's endless sequence of access units into the appsrc of its pipeline."""

    def __init__(self, mount: Mount, source: Gst.Element, payloader: Gst.Element, *, begin: int) -> None:
        self.mount = mount
        self.source = source
        self.payloader = payloader
        self.clip = mount.clip
        self.next = begin
        self.last_key = begin
        self.begun = time.monotonic()
        self.due = self.begun
        self.shift = 0
        self.wanted_jump = 0.0
        self.probe = 0
        self.ended = False
        self.lose(mount.loss)

    def push(self, now: float) -> None:
        """Send what is due, or nothing while the mount stalls; set when to come again."""
        if self.mount.stalled:
            self.due = now + 1.0 / self.mount.fps
            return
        self._take_up_new_clip()
        self._take_up_jump()
        if self.next >= len(self.clip.units):
            if not self.mount.loop:
                self.end()
                return
            self.next = 0
        self._push_unit()
        self.due += 1.0 / self.mount.fps
        if now - self.due > 1.0:  # the machine was asleep: go on from now instead of catching up in a burst
            self.due = now

    def end(self) -> None:
        """Tell the client that the stream is over."""
        self.ended = True
        self.source.emit("end-of-stream")

    def lose(self, loss: float) -> None:
        """Let this share of the RTP packets vanish from now on, always the same for a stream."""
        pad = self.payloader.get_static_pad("src")
        if self.probe:
            pad.remove_probe(self.probe)
            self.probe = 0
        if loss > 0:
            chance = random.Random(0)
            drop, keep = Gst.PadProbeReturn.DROP, Gst.PadProbeReturn.OK
            kinds = Gst.PadProbeType.BUFFER | Gst.PadProbeType.BUFFER_LIST
            self.probe = pad.add_probe(kinds, lambda *_: drop if chance.random() < loss else keep)

    def jump(self, seconds: float) -> None:
        """Shift the RTP time stamps from the next picture on."""
        self.wanted_jump += seconds

    def _take_up_jump(self) -> None:
        """Shift the time stamps; what is undone behind the payloader leaves the pace as it is.

        Between two pictures: one that is on its way then would be held back by as much as the stamps jump.
        """
        if not self.wanted_jump:
            return
        give_up = time.monotonic() + DRAIN_SECONDS
        while self.source.get_property("current-level-bytes") and time.monotonic() < give_up:
            time.sleep(0.001)
        time.sleep(0.005)  # the last one leaves the payloader
        age = int((self.due - self.begun) * SECOND)
        self.shift = max(self.shift + int(self.wanted_jump * SECOND), -age)
        self.wanted_jump = 0.0
        self.payloader.get_static_pad("src").set_offset(-self.shift)

    def _take_up_new_clip(self) -> None:
        if self.clip is not self.mount.clip:
            self.clip = self.mount.clip
            self.next = 0

    def _push_unit(self) -> None:
        index = self.next
        if self.mount.frozen:
            index = self.clip.key_before(min(index, len(self.clip.units) - 1))
            self.next = index  # after the thaw decoding goes on from the picture that was repeated
        pts = max(0, int((self.due - self.begun) * SECOND) + self.shift)
        duration = int(SECOND / self.mount.fps)
        unit = self.clip.buffer(index, pts=pts, duration=duration, harm=self.mount.harm)
        self.source.emit("push-buffer", unit)
        self.mount.pushed += 1
        if not self.mount.frozen:
            self.next = index + 1


class Pacer:
    """The one thread that feeds every client in real time; ends when the process does."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Stream]] = []
        threading.Thread(target=self._run, name="pacer", daemon=True).start()

    def add(self, stream: Stream) -> None:
        """Feed this stream from now on."""
        with self._wake:
            heapq.heappush(self._heap, (stream.due, next(self._order), stream))
            self._wake.notify()

    def _run(self) -> None:
        while True:
            stream = self._wait_for_due()
            stream.push(time.monotonic())
            if not stream.ended:
                self.add(stream)

    def _wait_for_due(self) -> Stream:
        with self._wake:
            while True:
                if not self._heap:
                    self._wake.wait()
                    continue
                wait = self._heap[0][0] - time.monotonic()
                if wait <= 0:
                    return heapq.heappop(self._heap)[2]
                self._wake.wait(wait)


class Factory(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]  # gi has no types
    """Makes the pipeline of a client that comes to one mount."""

    def __init__(self, mount: Mount, pacer: Pacer, *, begun: float) -> None:
        super().__init__()
        self.mount = mount
        self.pacer = pacer
        self.begun = begun
        self.set_shared(mount.shared)

    def do_create_element(self, url: Any) -> Gst.Element:
        """Build appsrc → payloader for the codec that the mount has now.

        No parser: the units are cut already. No headers from the payloader: the file repeats its own before
        each IDR, and the payloader would put them between the slices of one picture.
        """
        codec = self.mount.clip.codec
        caps = f"video/x-{codec},stream-format=byte-stream,alignment=au"
        return Gst.parse_launch(
            f'( appsrc name=source is-live=true format=time do-timestamp=false block=false caps="{caps}" '
            f"max-bytes={QUEUE_BYTES} leaky-type=downstream "
            f"! rtp{codec}pay name=pay0 pt=96 config-interval=0 )"
        )

    def do_configure(self, media: GstRtspServer.RTSPMedia) -> None:
        """Start feeding the new pipeline, until its media goes away."""
        element = media.get_element()
        source, payloader = element.get_by_name("source"), element.get_by_name("pay0")
        begin = self.mount.entry(time.monotonic() - self.begun)
        stream = Stream(self.mount, source, payloader, begin=begin)
        self.mount.streams.append(stream)
        media.connect("unprepared", self._forget, stream)
        self.pacer.add(stream)

    def _forget(self, media: GstRtspServer.RTSPMedia, stream: Stream) -> None:
        stream.ended = True
        if stream in self.mount.streams:
            self.mount.streams.remove(stream)


class Cameras:
    """The RTSP server and the commands that change what its mounts do."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.pacer = Pacer()
        self.begun = time.monotonic()
        self.clips: dict[tuple[str, str], Clip] = {}
        self.mounts: dict[str, Mount] = {}
        self.server = GstRtspServer.RTSPServer()
        self.server.set_address(config.get("address", "127.0.0.1"))
        self.server.set_service(str(config.get("port", 0)))
        self.server.set_backlog(128)
        self.protected = self._protect(config)
        for name, mount in config["mounts"].items():
            self.add(name, **mount)

    def attach(self) -> int:
        """Begin to listen; return the port."""
        if self.server.attach(None) == 0:
            raise OSError(f"cannot listen on port {self.server.get_service()}")
        GLib.timeout_add_seconds(2, self._expire_sessions)
        return int(self.server.get_bound_port())

    def add(self, name: str, *, file: str, codec: str, fps: float, **options: Any) -> None:
        """Open a new mount."""
        mount = Mount(name, self._clip(file, codec), fps, **options)
        factory = Factory(mount, self.pacer, begun=self.begun)
        if self.protected:
            factory.set_permissions(_permissions())
        self.server.get_mount_points().add_factory(f"/{name}", factory)
        self.mounts[name] = mount

    def remove(self, mount: str) -> None:
        """Close a mount: new clients are told 404, running ones see the end of the stream."""
        self.server.get_mount_points().remove_factory(f"/{mount}")
        for stream in list(self.mounts.pop(mount).streams):
            stream.end()

    def set(self, mount: str, **changes: Any) -> None:
        """Change how a mount behaves: stalled, frozen, fps, loop."""
        for name, value in changes.items():
            setattr(self.mounts[mount], name, value)

    def lose(self, mount: str, *, loss: float) -> None:
        """Let a share of a mount's RTP packets vanish from now on."""
        self.mounts[mount].loss = loss
        for stream in list(self.mounts[mount].streams):
            stream.lose(loss)

    def set_password(self, *, user: str, password: str) -> None:
        """Ask for another password from now on; clients that watch go on."""
        auth, token = self.server.get_auth(), _viewer()
        auth.remove_digest(user)
        auth.add_digest(user, password, token)

    def set_file(self, mount: str, *, file: str, codec: str, fps: float) -> None:
        """Serve another file from the next picture on; clients that watch another codec see their stream end."""
        target = self.mounts[mount]
        clip = self._clip(file, codec)
        for stream in list(target.streams):
            if stream.clip.codec != codec:
                stream.end()
        target.clip, target.fps = clip, fps

    def harm(self, mount: str, *, kind: str | None, share: float, seed: int) -> None:
        """Damage pictures from now on, or no longer."""
        self.mounts[mount].harm = None if kind is None else Harm(kind, share, seed)

    def jump(self, mount: str, *, seconds: float) -> None:
        """Shift the time stamps of the running streams."""
        for stream in list(self.mounts[mount].streams):
            stream.jump(seconds)

    def disconnect(self) -> None:
        """Close every client's connection."""
        self.server.client_filter(lambda *_: GstRtspServer.RTSPFilterResult.REMOVE)

    def status(self) -> dict[str, dict[str, int]]:
        """Return for each mount how many streams run and how many pictures were sent."""
        return {
            name: {"streams": len(mount.streams), "pushed": mount.pushed} for name, mount in self.mounts.items()
        }

    def _clip(self, path: str, codec: str) -> Clip:
        """Return the clip, read once however many mounts serve it."""
        key = (path, codec)
        if key not in self.clips:
            self.clips[key] = Clip(path, codec)
        return self.clips[key]

    def _protect(self, config: dict[str, Any]) -> bool:
        """Ask for a password, speak TLS, or both."""
        user, certificate = config.get("user"), config.get("certificate")
        if not user and not certificate:
            return False
        auth = GstRtspServer.RTSPAuth()
        token = _viewer()
        if certificate:
            auth.set_tls_certificate(Gio.TlsCertificate.new_from_files(certificate, config["key"]))
        if user:
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            auth.add_digest(user, config["password"], token)
        else:
            auth.set_default_token(token)
        self.server.set_auth(auth)
        return True

    def _expire_sessions(self) -> bool:
        """Drop the sessions of UDP clients that vanished without a word."""
        self.server.get_session_pool().cleanup()
        return True


def _viewer() -> GstRtspServer.RTSPToken:
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    return token


def _permissions() -> GstRtspServer.RTSPPermissions:
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    return permissions


def lines() -> Iterator[dict[str, Any]]:
    """Yield each JSON line of stdin, until its owner closes it."""
    for line in sys.stdin:
        yield json.loads(line)


def answer(reply: dict[str, Any]) -> None:
    """Write one JSON line."""
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


def obey(cameras: Cameras, requests: Iterator[dict[str, Any]]) -> None:
    """Carry out commands until stdin ends, then end the process at once: no client is owed a farewell."""
    commands: dict[str, Callable[..., Any]] = {
        "add": cameras.add,
        "remove": cameras.remove,
        "set": cameras.set,
        "set_file": cameras.set_file,
        "lose": cameras.lose,
        "set_password": cameras.set_password,
        "harm": cameras.harm,
        "jump": cameras.jump,
        "disconnect": cameras.disconnect,
        "status": cameras.status,
    }
    for request in requests:
        number, command = request.pop("id"), request.pop("command")
        try:
            answer({"id": number, "value": commands[command](**request)})
        except Exception as error:  # the owner raises it; the other cameras go on
            answer({"id": number, "error": f"{type(error).__name__}: {error}"})
    os._exit(0)


def main() -> None:
    """Serve what the first line says."""
    Gst.init(None)
    requests = lines()
    try:
        cameras = Cameras(next(requests))
        port = cameras.attach()
    except Exception as error:  # the owner raises it
        answer({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)
    answer({"port": port})
    threading.Thread(target=obey, args=(cameras, requests), name="commands", daemon=True).start()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
