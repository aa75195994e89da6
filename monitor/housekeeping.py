"""What has to be looked at again and again while the monitor runs: the outbox, the disks, the media folder."""

from __future__ import annotations

import time

import structlog

from monitor.config import Config
from monitor.delivery.disk import disk_of
from monitor.delivery.media import MediaFolder
from monitor.delivery.outbox import Outbox
from monitor.errors import MonitorError
from monitor.reporting import Reporter
from monitor.telemetry.logs import Said

log = structlog.get_logger()

PRUNE_SECONDS = 3600.0
MEDIA_SECONDS = 10.0


class Housekeeper:
    """Removes what is too old, and reports how full everything is; used by the main thread.

    Args:
        config: says where things lie and how much of them is kept.
        outbox: the open store of alerts.
        media: the folder of evidence.
        reporter: told what is found.
    """

    def __init__(self, config: Config, *, outbox: Outbox, media: MediaFolder, reporter: Reporter) -> None:
        self._outbox = outbox
        self._media = media
        self._reporter = reporter
        self._media_folder = config.evidence.folder if config.evidence.enabled else None
        self._folders = {"outbox": config.outbox.path.parent}
        if self._media_folder is not None:
            self._folders["media"] = self._media_folder
        self._said = Said()
        self._next_prune = self._next_media = time.monotonic()

    def finish_clips(self) -> None:
        """Give the clips that a crash cut off their names."""
        if self._media_folder is None:
            return
        try:
            finished = self._media.finish_parts()
        except OSError as exc:
            log.error("media_failed", reason=exc.strerror, folder=str(self._media_folder))
            return
        if finished:
            log.warning("clips_recovered", count=finished)

    def look(self) -> None:
        """Look at what is due."""
        now = time.monotonic()
        prunes, looks_at_media = now >= self._next_prune, now >= self._next_media
        self._look_at_outbox(prune=prunes)
        if prunes:
            self._next_prune = now + PRUNE_SECONDS
        if looks_at_media:
            self._next_media = now + MEDIA_SECONDS
            self._look_at_disks()
            self._look_at_media()

    def _look_at_outbox(self, *, prune: bool) -> None:
        try:
            if prune:
                self._outbox.prune(time.time())
            self._reporter.outbox(self._outbox.stats(time.time()))
        except MonitorError as exc:
            if self._said.changes("outbox", str(exc)):
                log.warning("outbox_not_read", reason=str(exc))
        else:
            self._said.changes("outbox", "")

    def _look_at_disks(self) -> None:
        for name, folder in self._folders.items():
            try:
                self._reporter.disk(name, disk_of(folder))
            except OSError as exc:
                if self._said.changes(f"disk of {name}", str(exc)):
                    log.warning("disk_not_read", folder=str(folder), reason=exc.strerror)
            else:
                self._said.changes(f"disk of {name}", "")

    def _look_at_media(self) -> None:
        if self._media_folder is None:
            return
        try:
            self._reporter.media(self._media.prune(time.time()))
        except OSError as exc:
            if self._said.changes("media", str(exc)):
                log.warning("media_failed", reason=exc.strerror, folder=str(self._media_folder))
        else:
            self._said.changes("media", "")
