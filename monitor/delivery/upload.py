"""Complete media files in, objects in a bucket out. The only door to `fsspec`, of the extra `s3`.

Every file stays in the media folder until the bucket has taken it, however long that is away; then it moves to the
folder `sent`, where the page still finds it until it is too old or too much.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from monitor.config import EvidenceConfig
from monitor.deadline import Deadline
from monitor.delivery.media import MediaFolder
from monitor.errors import extra_missing
from monitor.telemetry.redaction import Redactor

LOOK_SECONDS = 2.0
RETRY_MAX_SECONDS = 60.0
CONNECT_SECONDS, READ_SECONDS = 5, 30
SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(frozen=True, slots=True)
class UploadReport:
    """One attempt."""

    name: str
    ok: bool
    detail: str = ""
    """Why it failed, redacted; it is tried again."""
    retry_seconds: float = 0.0


class Uploader:
    """Owns the thread that takes files to the bucket, oldest first, for ever.

    Credentials come as the S3 client takes them everywhere: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or the
    machine's role.

    Args:
        folder: holds the files.
        settings: `upload_url`, and `upload_endpoint_url` for a store that is not Amazon's.
        on_report: told of each attempt, from the uploader's thread.

    Raises:
        InputInvalid: the extra is not installed.
    """

    def __init__(
        self, folder: MediaFolder, settings: EvidenceConfig, *, on_report: Callable[[UploadReport], None]
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._on_report = on_report
        self._redactor = Redactor(os.environ.get(name, "") for name in SECRET_VARIABLES)
        self._stopping = threading.Event()
        self._failures = 0
        try:
            self._fsspec = import_module("fsspec")
            import_module("s3fs")
        except ModuleNotFoundError as exc:
            raise extra_missing("evidence.upload_url", exc, "s3") from exc
        self._thread = threading.Thread(target=self._run, name="uploader", daemon=True)

    def start(self) -> None:
        """Start the thread; a bucket that is away is no error."""
        self._thread.start()

    def stop(self, deadline: Deadline) -> None:
        """End the thread within the deadline, or leave one that hangs to the end of the process.

        What has not been uploaded stays in the folder and is taken after the next start.
        """
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(deadline.remaining())

    def _run(self) -> None:
        while not self._stopping.is_set():
            name = ""
            try:
                bucket, root = self._open()
                for path in self._folder.unsent():
                    name = path.name
                    if self._stopping.is_set():
                        return
                    bucket.put_file(str(path), f"{root}/{name}")
                    self._folder.mark_sent(name)
                    self._failures = 0
                    self._on_report(UploadReport(name, ok=True))
            except Exception as exc:  # top of the thread: every file is still there, so it begins again
                self._rest_after(name, exc)
            else:
                self._stopping.wait(LOOK_SECONDS)

    def _open(self) -> tuple[Any, str]:
        options: dict[str, Any] = {
            "use_listings_cache": False,
            "config_kwargs": {
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": READ_SECONDS,
                "retries": {"max_attempts": 1},
            },
        }
        if self._settings.upload_endpoint_url:
            options["endpoint_url"] = self._settings.upload_endpoint_url
        bucket, root = self._fsspec.core.url_to_fs(self._settings.upload_url, **options)
        return bucket, str(root).rstrip("/")

    def _rest_after(self, name: str, error: Exception) -> None:
        self._failures += 1
        wait = min(RETRY_MAX_SECONDS, 2.0 ** min(self._failures - 1, 10))
        detail = self._redactor.clean(f"{type(error).__name__}: {error}").splitlines()[0][:300]
        self._on_report(UploadReport(name, ok=False, detail=detail, retry_seconds=wait))
        self._stopping.wait(wait)
