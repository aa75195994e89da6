"""What has to be looked at again and again while the monitor runs: the outbox, the disks, the media folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from monitor.config import Config
from monitor.deadline import Deadline
from monitor.delivery.disk import disk_of
from monitor.delivery.media import MediaFolder
from monitor.delivery.outbox import PRUNED_AT_ONCE, Outbox
from monitor.errors import MonitorError
from monitor.reporting import Reporter
from monitor.telemetry.logs import Said

log = structlog.get_logger()

PRUNE_SECONDS = 3600.0
MEDIA_SECONDS = 10.0


class Housekeeper:
    """Removes what is too old, and reports how full everything is.

    The outbox is looked at by the thread that calls `look`; disks and the media folder, which may be slow or gone for a
    while, by a thread of their own.

    Args:
        config: says where things lie and how much of them is kept.
        outbox: the open store of alerts.
        media: the folder of evidence.
        reporter: told what is found.
        on_failure: told of the first unexpected error; the thread has ended then.
    """

    def __init__(
        self,
        config: Config,
        *,
        outbox: Outbox,
        media: MediaFolder,
        reporter: Reporter,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._outbox = outbox
        self._media = media
        self._reporter = reporter
        self._on_failure = on_failure
        self._media_folder = config.evidence.folder if config.evidence.enabled else None
        self._folders = {"outbox": config.outbox.path.parent}
        if self._media_folder is not None:
            self._folders["media"] = self._media_folder
        self._said = Said()
        self._next_prune = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeper", daemon=True)

    def finish_clips(self) -> None:
        """Give the clips that a crash cut off their names; for a time when nobody writes clips."""
        if self._media_folder is None:
            return
        try:
            finished = self._media.finish_parts()
        except OSError as exc:
            log.error("media_failed", reason=exc.strerror, folder=str(self._media_folder))
            return
        if finished:
            log.warning("clips_recovered", count=finished)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, deadline: Deadline) -> None:
        """End the thread; one that waits for a disk is left to itself: it changes nothing that has to be finished."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(deadline.remaining())

    def look(self) -> None:
        """Look at the outbox, and forget what is due; at most some hundreds of messages a call."""
        prune = time.monotonic() >= self._next_prune
        try:
            if prune and self._outbox.prune(time.time()) < PRUNED_AT_ONCE:
                self._next_prune = time.monotonic() + PRUNE_SECONDS
            self._reporter.outbox(self._outbox.stats(time.time()))
        except MonitorError as exc:
            if self._said.changes("outbox", str(exc)):
                log.warning("outbox_not_read", reason=str(exc))
        else:
            self._said.changes("outbox", "")

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._look_at_disks()
                self._look_at_media()
                self._stopping.wait(MEDIA_SECONDS)
        except Exception as exc:  # the top of the thread: the service stops in order and exits with this error
            self._on_failure(exc)

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
