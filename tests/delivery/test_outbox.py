"""No alert is lost, whatever comes between commit and acknowledgement."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from monitor.config import OutboxConfig
from monitor.delivery.outbox import Outbox
from monitor.errors import OutboxFull, OutboxUnavailable
from monitor.records import Alert, Phase

DAY = 86_400.0


def make_alert(number: int = 0, *, camera: str = "yard", sequence: int = 0, phase: Phase = Phase.STARTED) -> Alert:
    return Alert(
        alert_id=f"alert-{camera}-{number}",
        sequence=sequence,
        camera=camera,
        label="fight",
        phase=phase,
        received_seconds=99.0,
        topic="monitor.alerts",
        headers=(("ce_id", f"{number}:{sequence}".encode()),),
        value=b'{"number": %d}' % number,
    )


@pytest.fixture
def settings(tmp_path: Path) -> OutboxConfig:
    return OutboxConfig(path=tmp_path / "var" / "outbox.sqlite", maximum_records=100)


@pytest.fixture
def outbox(settings: OutboxConfig) -> Iterator[Outbox]:
    opened = Outbox.open(settings, deliver=True)
    yield opened
    opened.close()


def names(alerts: list[Alert]) -> list[tuple[str, int]]:
    return [(alert.alert_id, alert.sequence) for alert in alerts]


def waiting(outbox: Outbox) -> list[Alert]:
    return [stored.alert for stored in outbox.pending(1000)]


def test_what_is_committed_waits_in_order_and_comes_back_as_it_was(outbox: Outbox) -> None:
    alerts = [make_alert(number) for number in range(5)]
    assert outbox.commit(alerts[:3], now=100.0) == ()
    assert outbox.commit(alerts[3:], now=101.0) == ()
    assert waiting(outbox) == alerts
    assert [stored.committed_seconds for stored in outbox.pending(10)] == [100.0, 100.0, 100.0, 101.0, 101.0]


def test_pending_goes_on_behind_a_position(outbox: Outbox) -> None:
    outbox.commit([make_alert(number) for number in range(5)], now=100.0)
    second = outbox.pending(2)[-1]
    assert [stored.alert for stored in outbox.pending(2, after_position=second.position)] == [
        make_alert(2),
        make_alert(3),
    ]


def test_what_is_acknowledged_waits_no_more_but_stays_in_the_history(outbox: Outbox) -> None:
    outbox.commit([make_alert(0), make_alert(1)], now=100.0)
    outbox.acknowledge([outbox.pending(1)[0].position, 12345])
    assert waiting(outbox) == [make_alert(1)]
    assert [(stored.alert, stored.waiting) for stored in outbox.recent(10)] == [
        (make_alert(1), True),
        (make_alert(0), False),
    ]


def test_the_first_content_of_an_id_holds(outbox: Outbox) -> None:
    first = make_alert(0)
    outbox.commit([first], now=100.0)
    outbox.commit([first, replace(first, value=b"{}"), make_alert(1)], now=101.0)
    assert waiting(outbox) == [first, make_alert(1)]
    outbox.acknowledge([stored.position for stored in outbox.pending(10)])
    outbox.commit([first], now=102.0)
    assert waiting(outbox) == []


def test_without_kafka_nothing_waits(settings: OutboxConfig) -> None:
    outbox = Outbox.open(settings, deliver=False)
    outbox.commit([make_alert(number) for number in range(200)], now=100.0)
    assert waiting(outbox) == []
    assert len(outbox.recent(1000)) == 200
    outbox.close()


def test_alerts_that_never_ended_are_found(outbox: Outbox) -> None:
    ended = make_alert(0, sequence=1, phase=Phase.ENDED)
    updated = make_alert(1, sequence=1, phase=Phase.UPDATED)
    outbox.commit([make_alert(0), make_alert(1), updated, make_alert(2), ended], now=100.0)
    assert outbox.unfinished() == [updated, make_alert(2)]
    outbox.acknowledge([stored.position for stored in outbox.pending(10)])
    assert outbox.unfinished() == [updated, make_alert(2)]


def test_a_dead_letter_waits_no_more_and_keeps_its_reason(outbox: Outbox) -> None:
    outbox.commit([make_alert(0), make_alert(1)], now=100.0)
    outbox.dead_letter(outbox.pending(1)[0].position, "too large")
    assert waiting(outbox) == [make_alert(1)]
    assert outbox.recent(10)[-1].refused == "too large"
    assert outbox.stats(100.0).dead_letters == 1


def test_the_history_is_read_by_camera_and_from_a_position(outbox: Outbox) -> None:
    alerts = [make_alert(number, camera=camera) for number, camera in enumerate(["yard", "gate", "yard"])]
    outbox.commit(alerts, now=100.0)
    assert [stored.alert for stored in outbox.recent(10, camera="yard")] == [alerts[2], alerts[0]]
    first = outbox.recent(10)[-1].position
    assert [stored.alert for stored in outbox.after(first)] == alerts[1:]
    assert [stored.alert for stored in outbox.after(first, camera="yard")] == alerts[2:]
    assert [stored.value for stored in outbox.recent(1)] == [alerts[2].value]


def test_stats_say_how_much_waits_and_how_long(outbox: Outbox) -> None:
    assert outbox.stats(100.0).oldest_age_seconds == 0.0
    outbox.commit([make_alert(0)], now=100.0)
    outbox.commit([make_alert(1)], now=105.0)
    stats = outbox.stats(110.0)
    assert (stats.pending, stats.oldest_age_seconds) == (2, 10.0)
    assert stats.pending_bytes == len(make_alert(0).value) + len(make_alert(1).value)
    assert not stats.full


def test_a_crowded_outbox_refuses_updates_and_a_full_one_everything(outbox: Outbox) -> None:
    outbox.commit([make_alert(number) for number in range(90)], now=100.0)
    update = make_alert(0, sequence=1, phase=Phase.UPDATED)
    end = make_alert(0, sequence=2, phase=Phase.ENDED)
    assert outbox.commit([update, end], now=100.0) == (update,)
    assert outbox.stats(100.0).crowded
    more = [make_alert(number) for number in range(100, 120)]
    with pytest.raises(OutboxFull) as caught:
        outbox.commit([update, *more], now=100.0)
    assert (caught.value.taken, caught.value.refused) == (10, (update,))
    assert outbox.stats(100.0).full
    assert len(waiting(outbox)) == 100
    outbox.acknowledge([stored.position for stored in outbox.pending(50)])
    assert outbox.commit(more, now=100.0) == ()  # those taken before change nothing
    assert waiting(outbox)[-20:] == more


def heavy(number: int, *, sequence: int = 0, phase: Phase = Phase.STARTED) -> Alert:
    return replace(make_alert(number, sequence=sequence, phase=phase), value=bytes(10_000))


def test_bytes_are_bounded_as_records_are(tmp_path: Path) -> None:
    outbox = Outbox.open(OutboxConfig(path=tmp_path / "outbox.sqlite", maximum_bytes=100_000), deliver=True)
    outbox.commit([heavy(number) for number in range(9)], now=100.0)
    stats = outbox.stats(100.0)
    assert (stats.pending_bytes, stats.crowded, stats.full) == (90_000, True, False)
    update, end = heavy(0, sequence=1, phase=Phase.UPDATED), heavy(0, sequence=2, phase=Phase.ENDED)
    assert outbox.commit([update, end], now=100.0) == (update,)
    assert outbox.stats(100.0).full
    with pytest.raises(OutboxFull):
        outbox.commit([heavy(50)], now=100.0)
    first, second, *_ = outbox.pending(10)
    outbox.acknowledge([first.position, first.position])
    outbox.dead_letter(second.position, "too large")
    stats = outbox.stats(100.0)
    assert (stats.pending, stats.pending_bytes, stats.crowded) == (8, 80_000, False)
    assert outbox.commit([update], now=100.0) == ()
    outbox.close()


def test_a_store_of_an_older_program_learns_its_bytes(settings: OutboxConfig) -> None:
    outbox = Outbox.open(settings, deliver=True)
    outbox.commit([heavy(number) for number in range(3)], now=100.0)
    outbox.close()
    older = sqlite3.connect(settings.path)
    older.executescript("DROP TRIGGER pending_added; DROP TRIGGER pending_gone; DROP TABLE waiting")
    older.close()
    outbox = Outbox.open(settings, deliver=True)
    outbox.acknowledge([outbox.pending(1)[0].position])
    assert outbox.stats(100.0).pending_bytes == 20_000
    outbox.close()


def test_delivered_alerts_are_forgotten_after_their_days(outbox: Outbox) -> None:
    ended = make_alert(0, sequence=1, phase=Phase.ENDED)
    outbox.commit([make_alert(0), ended, make_alert(1)], now=0.0)
    assert outbox.prune(31 * DAY) == 0
    outbox.acknowledge([stored.position for stored in outbox.pending(10)])
    assert outbox.prune(29 * DAY) == 0
    assert outbox.prune(31 * DAY) == 2
    assert [stored.alert for stored in outbox.recent(10)] == [make_alert(1)]  # its event has not ended


def test_events_are_listed_newest_first_each_as_its_newest_message(outbox: Outbox) -> None:
    def message(number: int, sequence: int, phase: Phase, *, camera: str = "yard", label: str = "fight") -> Alert:
        told = make_alert(number, camera=camera, sequence=sequence, phase=phase)
        return replace(told, label=label, value=f"{camera} {number} {phase.value}".encode())

    outbox.commit([message(0, 0, Phase.STARTED), message(1, 0, Phase.STARTED, camera="gate", label="fall")], now=100.0)
    outbox.commit([message(0, 1, Phase.UPDATED), message(2, 0, Phase.STARTED)], now=200.0)
    outbox.commit([message(0, 2, Phase.ENDED), replace(message(9, 0, Phase.STARTED), label="")], now=300.0)

    with outbox.reader() as history:

        def listed(limit: int = 10, **wanted: Any) -> list[str]:
            return [value.decode() for _, value in history.newest_of_each(limit, **wanted)]

        assert listed() == ["yard 2 started", "gate 1 started", "yard 0 ended"]
        assert listed(1) == ["yard 2 started"]
        assert listed(camera="yard") == ["yard 2 started", "yard 0 ended"]
        assert listed(label="fall") == ["gate 1 started"]
        assert listed(camera="yard", label="fall") == []
        assert listed(since_seconds=200.0) == ["yard 2 started"]
        assert listed(until_seconds=200.0) == ["gate 1 started", "yard 0 ended"]
        (position, _), *_ = history.newest_of_each(2)[1:]
        assert listed(before=position) == ["yard 0 ended"]
        assert [value.decode() for value in history.messages_of("alert-yard-0")] == [
            "yard 0 started",
            "yard 0 updated",
            "yard 0 ended",
        ]
        assert history.messages_of("nobody's") == []


@pytest.mark.parametrize("wanted", [{}, {"camera": "yard"}, {"label": "fight"}, {"before": 7}], ids=str)
def test_listing_events_reads_no_more_of_the_history_than_it_has_to(outbox: Outbox, settings, wanted) -> None:
    """Neither sorted nor searched from its beginning: it may hold years."""
    asked: list[tuple[str, Any]] = []
    with outbox.reader() as history:
        real, history._database.read = history._database.read, lambda *query: asked.append(query) or []  # type: ignore[method-assign]
        history.newest_of_each(12, **wanted)
        [(sql, parameters)] = asked
        plan = "; ".join(row[3] for row in real(f"EXPLAIN QUERY PLAN {sql}", parameters))
    assert "TEMP B-TREE" not in plan
    assert ("alerts_by_camera" in plan) == ("camera" in wanted)


def test_who_reads_long_holds_no_commit_up(outbox: Outbox) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n, alerts"
    outbox.commit([make_alert(0)], now=100.0)
    with outbox.reader() as history, ThreadPoolExecutor() as pool:
        reading = pool.submit(history._database.read, endless)
        for number in range(1, 30):
            outbox.commit([make_alert(number)], now=100.0)
        assert not reading.done()
        history._database._connection.interrupt()
        assert isinstance(reading.exception(60), OutboxUnavailable)


def test_a_reader_sees_what_another_process_committed(outbox: Outbox, settings: OutboxConfig) -> None:
    outbox.commit([make_alert(0)], now=100.0)
    with Outbox.open_reader(settings.path) as reader:
        assert [stored.alert for stored in reader.recent(10)] == [make_alert(0)]
        outbox.commit([make_alert(1)], now=100.0)
        assert [stored.alert for stored in reader.after(reader.recent(10)[-1].position)] == [make_alert(1)]
        assert reader.stats(101.0).pending == 2


def test_a_reader_works_while_nothing_else_has_it_open(settings: OutboxConfig) -> None:
    outbox = Outbox.open(settings, deliver=True)
    outbox.commit([make_alert(0)], now=100.0)
    outbox.close()
    with Outbox.open_reader(settings.path) as reader:
        assert len(reader.recent(10)) == 1


def test_a_missing_store_says_how_it_comes_to_be(tmp_path: Path) -> None:
    with pytest.raises(OutboxUnavailable, match="`monitor run` makes it"):
        Outbox.open_reader(tmp_path / "none.sqlite")


def test_a_folder_in_the_place_of_a_store_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(OutboxUnavailable, match="is a folder"):
        Outbox.open_reader(tmp_path)


def test_threads_may_commit_read_and_acknowledge_at_once(outbox: Outbox) -> None:
    def commit() -> None:
        for number in range(60):
            outbox.commit([make_alert(number)], now=100.0)

    committing = threading.Thread(target=commit)
    committing.start()
    seen: list[Alert] = []
    while committing.is_alive() or outbox.pending(1):
        stored = outbox.pending(10)
        seen += [alert.alert for alert in stored]
        outbox.acknowledge([alert.position for alert in stored])
        outbox.recent(5)
    committing.join()
    assert seen == [make_alert(number) for number in range(60)]


# --- when the file or the disk fails ---------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutboxUnavailable, match="cannot be made"):
        Outbox.open(OutboxConfig(path=tmp_path / "file" / "outbox.sqlite"), deliver=True)


def test_a_folder_in_place_of_the_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").mkdir()
    with pytest.raises(OutboxUnavailable, match="cannot be opened"):
        Outbox.open(OutboxConfig(path=tmp_path / "outbox.sqlite"), deliver=True)


def test_another_programs_database_is_left_alone(settings: OutboxConfig) -> None:
    settings.path.parent.mkdir()
    other = sqlite3.connect(settings.path)
    other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    with pytest.raises(OutboxUnavailable, match="another program's"):
        Outbox.open(settings, deliver=True)
    assert list(settings.path.parent.glob("*.corrupt-*")) == []


def test_a_newer_format_is_left_alone(settings: OutboxConfig) -> None:
    Outbox.open(settings, deliver=True).close()
    other = sqlite3.connect(settings.path)
    other.execute("PRAGMA user_version=99")
    other.close()
    with pytest.raises(OutboxUnavailable, match="newer program"):
        Outbox.open(settings, deliver=True)


SECOND_MONITOR = """
import sys
from pathlib import Path
from monitor.config import OutboxConfig
from monitor.delivery.outbox import Outbox
Outbox.open(OutboxConfig(path=Path(sys.argv[1])), deliver=True)
"""


def is_turned_away(settings: OutboxConfig) -> bool:
    """Whether a second process cannot open the store."""
    second = [sys.executable, "-c", SECOND_MONITOR, str(settings.path)]
    ran = subprocess.run(second, capture_output=True, text=True, timeout=60, check=False)
    return "another monitor uses it" in ran.stderr


def test_a_second_monitor_is_turned_away(outbox: Outbox, settings: OutboxConfig) -> None:
    assert is_turned_away(settings)


def test_a_closed_store_says_so(settings: OutboxConfig) -> None:
    outbox = Outbox.open(settings, deliver=True)
    outbox.close()
    with pytest.raises(OutboxUnavailable, match="closed"):
        outbox.commit([make_alert()], now=100.0)


@pytest.mark.parametrize(
    "damage_row", ["headers = CAST(X'5B5B22FF' AS TEXT)", "headers = '[1]'", "phase = 'stArted'", "value = NULL"]
)
def test_an_alert_that_the_disk_has_damaged_holds_up_no_other(settings: OutboxConfig, damage_row: str) -> None:
    """A flipped bit within a row is nothing that SQLite could find."""
    outbox = Outbox.open(settings, deliver=True)
    outbox.commit([make_alert(number) for number in range(4)], now=100.0)
    with closing(sqlite3.connect(settings.path)) as other, other:
        other.execute("PRAGMA ignore_check_constraints = ON")
        other.execute("PRAGMA writable_schema = ON")
        other.execute("UPDATE sqlite_schema SET sql = replace(sql, 'value BLOB NOT NULL', 'value BLOB')")
    with closing(sqlite3.connect(settings.path)) as other, other:
        other.execute(f"UPDATE alerts SET {damage_row} WHERE alert_id = 'alert-yard-1'")
    whole = [make_alert(number) for number in (0, 2, 3)]
    assert waiting(outbox) == whole
    assert outbox.unfinished() == whole
    assert [stored.alert for stored in outbox.after(0)] == whole
    assert (outbox.stats(101.0).dead_letters, outbox.stats(101.0).pending) == (1, 3)
    outbox.close()


def test_a_file_that_somebody_removes_is_put_back_with_all_that_it_held(settings: OutboxConfig) -> None:
    outbox = Outbox.open(settings, deliver=True)
    for number in range(3):
        outbox.commit([make_alert(number)], now=100.0)
        shutil.rmtree(settings.path.parent)
        assert outbox.stats(100.0).pending == number + 1
        with outbox.reader() as reader:
            assert len(reader.after(0)) == number + 1
    outbox.commit([make_alert(3)], now=100.0)
    assert is_turned_away(settings)
    outbox.close()
    outbox = Outbox.open(settings, deliver=True)
    assert waiting(outbox) == [make_alert(number) for number in range(4)]
    outbox.close()
    assert not list(settings.path.parent.glob("*.new*"))


def damaged_files(settings: OutboxConfig) -> list[Path]:
    return [path for path in settings.path.parent.glob("*.corrupt-*") if not path.name.endswith(("-wal", "-shm"))]


def test_a_file_that_is_no_database_is_set_aside(settings: OutboxConfig) -> None:
    settings.path.parent.mkdir()
    settings.path.write_bytes(b"not a database at all, " * 500)
    outbox = Outbox.open(settings, deliver=True)
    outbox.commit([make_alert(0)], now=100.0)
    assert waiting(outbox) == [make_alert(0)]
    outbox.close()
    [aside] = damaged_files(settings)
    assert aside.read_bytes() == b"not a database at all, " * 500


def test_a_damaged_file_is_set_aside_at_the_start(settings: OutboxConfig) -> None:
    fill(settings)
    damage(settings.path)
    outbox = Outbox.open(settings, deliver=True)
    assert outbox.recent(10) == []
    outbox.close()
    assert len(damaged_files(settings)) == 1


def test_damage_at_run_time_does_not_end_the_live_path(settings: OutboxConfig) -> None:
    fill(settings)
    outbox = Outbox.open(settings, deliver=True)
    last = outbox.recent(1)[0].position
    damage(settings.path)
    assert outbox.after(0) == []  # reads the damaged pages
    outbox.commit([make_alert(number, camera="gate") for number in range(20)], now=100.0)
    kept = outbox.pending(1000)
    assert [stored.alert for stored in kept][-20:] == [make_alert(number, camera="gate") for number in range(20)]
    assert len(damaged_files(settings)) == 1
    assert kept[-20].position > last, "an acknowledgement of an old alert must not hit a new one"
    outbox.close()


def fill(settings: OutboxConfig) -> None:
    outbox = Outbox.open(settings, deliver=False)
    outbox.commit([replace(make_alert(number), value=bytes(8000)) for number in range(500)], now=100.0)
    outbox.close()


def damage(path: Path) -> None:
    """Overwrite every page but the first with rubbish."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(4096)
        file.write(os.urandom(size - 4096))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("cannot mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_survived(small_disk: Path) -> None:
    outbox = Outbox.open(OutboxConfig(path=small_disk / "outbox.sqlite"), deliver=True)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(100_000))
    said: list[Alert] = []
    with pytest.raises(OutboxUnavailable, match="disk is full"):
        for number in range(1000):
            alert = replace(make_alert(number), value=bytes(2000))
            outbox.commit([alert], now=100.0)
            said.append(alert)
    assert waiting(outbox) == said
    ballast.unlink()
    outbox.commit([make_alert(5000)], now=100.0)
    assert waiting(outbox) == [*said, make_alert(5000)]
    outbox.close()


def test_a_damaged_file_on_a_full_disk_is_replaced_once_there_is_room(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    settings = OutboxConfig(path=small_disk / "outbox.sqlite")
    fill(settings)
    outbox = Outbox.open(settings, deliver=True)
    damage(settings.path)
    ballast = small_disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    for _ in range(2):
        with pytest.raises(OutboxUnavailable, match="disk is full"):
            outbox.after(0)
        with pytest.raises(OutboxUnavailable, match="disk is full"):
            outbox.commit([make_alert(1)], now=100.0)
    ballast.unlink()
    outbox.commit([make_alert(2)], now=100.0)
    [kept] = outbox.pending(10)
    assert kept.alert == make_alert(2)
    assert kept.position > 500, "an acknowledgement of an old alert must not hit a new one"
    outbox.close()
    assert len([path for path in small_disk.glob("*.corrupt-*") if path.suffix not in (".wal", ".shm")]) == 1


def test_a_read_only_disk_is_said(small_disk: Path) -> None:
    settings = OutboxConfig(path=small_disk / "outbox.sqlite")
    Outbox.open(settings, deliver=True).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OutboxUnavailable, match=r"[Rr]ead-only"):
        Outbox.open(settings, deliver=True)


KILLED_WRITER = """
import sys
from pathlib import Path
from monitor.config import OutboxConfig
from monitor.delivery.outbox import Outbox
from tests.delivery.test_outbox import make_alert
outbox = Outbox.open(OutboxConfig(path=Path(sys.argv[1])), deliver=True)
for number in range(int(sys.argv[2]), 100_000):
    outbox.commit([make_alert(number)], now=100.0)
    print(number, flush=True)
"""


@pytest.mark.parametrize("after_alerts", [1, 7, 60])
def test_what_was_said_before_a_kill_is_there_after_it(settings: OutboxConfig, after_alerts: int) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, str(settings.path), "0"], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(after_alerts)]
    writer.send_signal(signal.SIGKILL)
    said += [int(line) for line in writer.stdout.read().split()]
    writer.stdout.close()
    assert writer.wait(10) == -signal.SIGKILL
    outbox = Outbox.open(settings, deliver=True)
    found = waiting(outbox)
    outbox.close()
    assert found[: len(said)] == [make_alert(number) for number in said]
    assert len(found) - len(said) in (0, 1)  # committed, and killed before it could say so


# --- any order of calls ----------------------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Commits, acknowledgements, dead letters, re-openings and prunings in any order, against a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(os.environ["PYTEST_TMP_OUTBOX"]) / f"{time.monotonic_ns()}"
        self.settings = OutboxConfig(path=self.folder / "outbox.sqlite")
        self.outbox = Outbox.open(self.settings, deliver=True)
        self.expected: list[Alert] = []
        self.known: dict[tuple[str, int], Alert] = {}
        self.now = 0.0

    @rule(
        told=st.lists(
            st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(list(Phase)), st.sampled_from("ab")),
            max_size=4,
        )
    )
    def commit(self, told: list[tuple[int, int, Phase, str]]) -> None:
        alerts = [make_alert(n, sequence=s, phase=phase, camera=camera) for n, s, phase, camera in told]
        self.outbox.commit(alerts, now=self.now)
        for alert in alerts:
            if (alert.alert_id, alert.sequence) not in self.known:
                self.known[alert.alert_id, alert.sequence] = alert
                self.expected.append(alert)

    @rule(which=st.sets(st.integers(0, 10)))
    def acknowledge(self, which: set[int]) -> None:
        stored = self.outbox.pending(100)
        chosen = [alert for index, alert in enumerate(stored) if index in which]
        self.outbox.acknowledge([alert.position for alert in chosen])
        self.expected = [alert for index, alert in enumerate(self.expected) if index not in which]

    @rule()
    def bury_the_first(self) -> None:
        for stored in self.outbox.pending(1):
            self.outbox.dead_letter(stored.position, "refused")
            self.expected.pop(0)

    @rule()
    def reopen(self) -> None:
        self.outbox.close()
        self.outbox = Outbox.open(self.settings, deliver=True)

    @rule()
    def prune_long_after(self) -> None:
        self.now += 40 * DAY
        self.outbox.prune(self.now)
        kept = [stored.alert for stored in self.outbox.recent(1000)]
        self.known = {(alert.alert_id, alert.sequence): alert for alert in kept}

    @invariant()
    def waits_in_order(self) -> None:
        assert waiting(self.outbox) == self.expected
        assert self.outbox.stats(self.now).pending == len(self.expected)

    def teardown(self) -> None:
        self.outbox.close()


def test_any_order_of_calls_loses_nothing_and_keeps_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    monkeypatch.setenv("PYTEST_TMP_OUTBOX", str(tmp_path))
    run_state_machine_as_test(
        AnyOrder, settings=hypothesis_settings(max_examples=40, stateful_step_count=25, deadline=None)
    )
