"""The rounds that the monitor makes of its own stores."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from monitor.config import CameraConfig, Config, EvidenceConfig, ModelConfig, OutboxConfig
from monitor.deadline import Deadline
from monitor.delivery import outbox as outbox_module
from monitor.delivery.media import MediaFolder
from monitor.delivery.outbox import Outbox
from monitor.housekeeping import Housekeeper
from monitor.records import Phase
from tests.delivery.test_outbox import make_alert

YEAR = 365 * 86_400.0


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        model=ModelConfig(bundle="demo"),
        outbox=OutboxConfig(path=tmp_path / "outbox.sqlite"),
        evidence=EvidenceConfig(folder=tmp_path / "media"),
        cameras=[CameraConfig(id="yard", url="rtsp://127.0.0.1:1/yard")],
    )


@pytest.fixture
def outbox(config: Config) -> Iterator[Outbox]:
    opened = Outbox.open(config.outbox, deliver=False)
    yield opened
    opened.close()


def make_housekeeper(config: Config, outbox: Outbox, media: object, failures: list[BaseException]) -> Housekeeper:
    told = SimpleNamespace(outbox=lambda _: None, disk=lambda *_: None, media=lambda _: None)
    return Housekeeper(config, outbox=outbox, media=media, reporter=told, on_failure=failures.append)  # type: ignore[arg-type]


def test_what_is_old_is_forgotten_bit_by_bit_until_nothing_is_left(config, outbox, monkeypatch) -> None:
    """However much there is: an hour brings more than one round takes."""
    monkeypatch.setattr(outbox_module, "PRUNED_AT_ONCE", 10)
    monkeypatch.setattr("monitor.housekeeping.PRUNED_AT_ONCE", 10)
    for number in range(25):
        ended = make_alert(number, sequence=1, phase=Phase.ENDED)
        outbox.commit([make_alert(number), ended], now=time.time() - YEAR)
    keeper = make_housekeeper(config, outbox, MediaFolder(config.evidence.folder, keep_days=1, keep_bytes=1), [])
    left = []
    for _ in range(7):
        keeper.look()
        left.append(len(outbox.recent(100)))
    assert left == [40, 30, 20, 10, 0, 0, 0]


def test_a_disk_that_hangs_holds_nothing_else_up(config, outbox) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hang(_now: float) -> None:
        entered.set()
        assert leave.wait(60)

    failures: list[BaseException] = []
    keeper = make_housekeeper(config, outbox, SimpleNamespace(prune=hang), failures)
    keeper.start()
    assert entered.wait(30)
    keeper.look()
    keeper.stop(Deadline(0.1))
    leave.set()
    assert failures == []


def test_an_error_that_nobody_expected_is_told(config, outbox) -> None:
    failures: list[BaseException] = []
    keeper = make_housekeeper(config, outbox, SimpleNamespace(prune=lambda _: 1 / 0), failures)
    keeper.start()
    keeper._thread.join(30)
    assert [type(error) for error in failures] == [ZeroDivisionError]
