"""Media files to a bucket: an S3 server answers on a real socket, is away, hangs, or refuses."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from monitor.config import EvidenceConfig
from monitor.deadline import Deadline
from monitor.delivery.media import MediaFolder
from monitor.delivery.upload import Uploader, UploadReport
from tests.services.ports import free_port

NAMES = [
    f"{number:08x}-0000-5000-8000-000000000000{ending}" for number, ending in ((1, ".jpg"), (1, ".mp4"), (2, ".jpg"))
]


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "watcher")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@contextmanager
def store(port: int) -> Iterator[s3fs.S3FileSystem]:
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/reset", data=b"", timeout=5).close()
        bucket = s3fs.S3FileSystem(endpoint_url=f"http://127.0.0.1:{port}", skip_instance_cache=True)
        bucket.mkdir("evidence")
        yield bucket
    finally:
        server.stop()


@contextmanager
def uploading(folder: Path, port: int) -> Iterator[tuple[MediaFolder, list[UploadReport]]]:
    settings = EvidenceConfig(upload_url="s3://evidence/site-1/", upload_endpoint_url=f"http://127.0.0.1:{port}")
    media = MediaFolder(folder, keep_days=1, keep_bytes=10_000_000)
    reports: list[UploadReport] = []
    uploader = Uploader(media, settings, on_report=reports.append)
    uploader.start()
    try:
        yield media, reports
    finally:
        began = time.monotonic()
        uploader.stop(Deadline(8))
        assert time.monotonic() - began < 8


def fill(folder: Path) -> None:
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(bytes([number]) * 5000)


def wait_until(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.05)


def uploaded(reports: list[UploadReport]) -> list[str]:
    return [report.name for report in reports if report.ok]


def test_complete_files_reach_the_bucket_and_stay_to_be_seen(tmp_path):
    fill(tmp_path)
    (tmp_path / (NAMES[1] + ".part")).write_bytes(b"unfinished")
    (tmp_path / "stranger.jpg").write_bytes(b"not ours")
    port = free_port()
    with store(port) as bucket, uploading(tmp_path, port) as (media, reports):
        wait_until(lambda: len(uploaded(reports)) == 3)
        assert sorted(Path(path).name for path in bucket.ls("evidence/site-1", refresh=True)) == sorted(NAMES)
        for number, name in enumerate(NAMES):
            assert bucket.cat_file(f"evidence/site-1/{name}") == bytes([number]) * 5000
            assert media.find(name) == tmp_path / "sent" / name
        assert media.unsent() == []
        assert media.prune(time.time()).files == 3


def test_a_bucket_that_is_away_costs_nothing(tmp_path):
    fill(tmp_path)
    port = free_port()
    with uploading(tmp_path, port) as (media, reports):
        wait_until(lambda: len(reports) >= 2)
        assert not uploaded(reports)
        assert len(media.unsent()) == 3
        assert "hunter2" not in " ".join(report.detail for report in reports)
        with store(port):
            wait_until(lambda: len(uploaded(reports)) == 3)
    assert reports[0].retry_seconds < reports[1].retry_seconds


def test_a_missing_bucket_is_named_and_tried_again(tmp_path):
    fill(tmp_path)
    port = free_port()
    with store(port) as bucket:
        bucket.rmdir("evidence")
        with uploading(tmp_path, port) as (media, reports):
            wait_until(lambda: bool(reports))
            assert not reports[0].ok
            assert "bucket" in reports[0].detail.lower()
            assert len(media.unsent()) == 3


def test_it_stops_in_time_while_the_store_hangs(tmp_path):
    fill(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        media = MediaFolder(tmp_path, keep_days=1, keep_bytes=10_000_000)
        settings = EvidenceConfig(
            upload_url="s3://evidence", upload_endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}"
        )
        uploader = Uploader(media, settings, on_report=lambda report: None)
        uploader.start()
        time.sleep(1.0)
        began = time.monotonic()
        uploader.stop(Deadline(0.5))
        assert time.monotonic() - began < 1.5
        assert len(media.unsent()) == 3
