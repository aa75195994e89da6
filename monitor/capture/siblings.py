"""A camera and what its stream showed in; another of its streams that would do better, if it offers one, out.

Most cameras encode each picture twice. What the second stream is called is a matter of the maker, and asking for it by
ONVIF needs another port and often another account. So the names that are common are tried, once, with the same
credentials, and what answers is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from monitor.capture.probe import StreamReport, probe
from monitor.config import CameraConfig, CaptureConfig
from monitor.errors import SourceFailed
from monitor.records import FailureReason

LARGE_LINES = 720
"""A picture with more lines costs more to decode than a model of some hundred pixels can see."""
LOOK_SECONDS = 1.0
MOST_TRIED = 3

_RULES: tuple[tuple[str, str, str], ...] = (
    # (pattern; name of the large stream; of the small one): what stands in group `which` is exchanged.
    (r"(?i:/streaming/(?:channels|tracks)/)\d{1,3}0(?P<which>[12])(?!\d)", "1", "2"),  # Hikvision: 101, 102
    (r"(?i)[?&]subtype=(?P<which>[01])(?!\d)", "0", "1"),  # Dahua
    (r"(?i)preview_\d+_(?P<which>main|sub)\b", "main", "sub"),  # Reolink: h264Preview_01_main
    (r"(?i)/ch\w*/(?P<which>main|sub)(?=/|$)", "main", "sub"),  # Hikvision, older: /h264/ch1/main/av_stream
    (r"(?i)(?<![a-z])(?:video|stream|av)?[_-]?(?P<which>main|sub)(?![a-z])", "main", "sub"),
    (r"(?i)(?<![a-z])stream[_-]?(?P<which>[12])(?!\d)", "1", "2"),  # TP-Link Tapo and many others
    (r"(?i)/onvif(?P<which>[12])(?!\d)", "1", "2"),
    (r"(?i)/profile(?P<which>[12])(?=/)", "1", "2"),  # Hanwha: /profile1/media.smp
    (r"(?i)/live/ch(?P<which>[01])(?!\d)", "0", "1"),
    (r"/1(?P<which>[12])$", "1", "2"),  # HiSilicon: /11, /12
)
_AXIS = re.compile(r"(?i)/axis-media/media\.amp")
_AXIS_SIZE = re.compile(r"(?i)(?<=resolution=)\d+x\d+")
_AXIS_SMALL = "640x360"


@dataclass(frozen=True, slots=True)
class Proposal:
    """Two streams of a camera, by the part that each should play."""

    small: CameraConfig
    small_size: tuple[int, int]
    """Width and height, pixels."""
    large: CameraConfig
    large_size: tuple[int, int]

    def __str__(self) -> str:
        return (
            f'detect on the small stream: url = "{self.small.shared_url}" ({_size(self.small_size)}), '
            f'clip_url = "{self.large.shared_url}" ({_size(self.large_size)})'
        )


def sibling_urls(url: str, *, larger: bool) -> tuple[str, ...]:
    """Return the addresses that a camera's larger, or smaller, stream may have; the likeliest first."""
    found = [_exchanged(url, *rule, larger=larger) for rule in _RULES]
    if _AXIS.search(url):
        found.insert(0, _axis(url, larger=larger))
    return tuple(dict.fromkeys(other for other in found if other and other != url))[:MOST_TRIED]


def propose(camera: CameraConfig, report: StreamReport, settings: CaptureConfig) -> Proposal | None:
    """Look for another stream of a camera: a smaller one where its own is large, else a larger one for clips.

    Each name is tried once; after a refusal none is tried any more, since cameras lock accounts.
    """
    if camera.clip_url or not camera.is_network:
        return None
    larger = report.height_pixels <= LARGE_LINES
    own = (report.width_pixels, report.height_pixels)
    for other, size in _answering(camera, settings, larger=larger):
        if larger and size[1] > own[1]:
            return Proposal(camera, own, other, size)
        if not larger and size[1] < own[1]:
            return Proposal(other, size, camera, own)
    return None


def _answering(
    camera: CameraConfig, settings: CaptureConfig, *, larger: bool
) -> Iterator[tuple[CameraConfig, tuple[int, int]]]:
    for url in sibling_urls(camera.url, larger=larger):
        other = camera.at(url)
        try:
            report = probe(other, settings, seconds=LOOK_SECONDS)
        except SourceFailed as exc:
            if exc.reason is FailureReason.REFUSED:
                return
            continue
        yield other, (report.width_pixels, report.height_pixels)


def _exchanged(url: str, pattern: str, large: str, small: str, *, larger: bool) -> str | None:
    """Return an address with the name of the other stream in place of its own; None where the rule is of another maker.

    What stands before the path is never touched: it may hold the same letters.
    """
    begin = len(url) - len(url.partition("://")[2].partition("/")[2]) - 1
    match = re.compile(pattern).search(url, max(0, begin))
    old, new = (small, large) if larger else (large, small)
    if match is None or not urlsplit(url).path or match["which"].lower() != old:
        return None
    name = new.upper() if match["which"].isupper() else new.title() if match["which"].istitle() else new
    return url[: match.start("which")] + name + url[match.end("which") :]


def _axis(url: str, *, larger: bool) -> str | None:
    """Return the address of an Axis camera, which sends any size that it is asked for; its largest when not asked."""
    if larger:
        return re.sub(r"(?i)[?&]resolution=\d+x\d+$", "", url) if _AXIS_SIZE.search(url) else None
    if _AXIS_SIZE.search(url):
        return _AXIS_SIZE.sub(_AXIS_SMALL, url)
    return f"{url}{'&' if '?' in url else '?'}resolution={_AXIS_SMALL}"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
