"""Alerts in, durable before `commit` returns; what Kafka has not acknowledged yet, oldest first, out.

`alerts` is the history: every alert said, what the page and `monitor alerts` read; `pending` names those of it that
wait for their acknowledgement, and `waiting` is the sum of their bytes. All are written in one transaction.
`unfinished` names the last message of each alert that has not ended, so that a start after a crash finds them without a
search.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from monitor.config import OutboxConfig
from monitor.delivery.database import Database, ReadOnlyDatabase, Row
from monitor.errors import OutboxFull
from monitor.records import Alert, Phase

log = structlog.get_logger()

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS alerts (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    camera TEXT NOT NULL,
    label TEXT NOT NULL,
    phase TEXT NOT NULL,
    received_seconds REAL NOT NULL,
    committed_seconds REAL NOT NULL,
    topic TEXT NOT NULL,
    headers TEXT NOT NULL,
    value BLOB NOT NULL,
    UNIQUE (alert_id, sequence)
);
CREATE INDEX IF NOT EXISTS alerts_by_camera ON alerts (camera, position);
CREATE INDEX IF NOT EXISTS alerts_by_age ON alerts (committed_seconds);
CREATE INDEX IF NOT EXISTS messages_on_health ON alerts (position) WHERE label = '';
CREATE TABLE IF NOT EXISTS pending (
    position INTEGER PRIMARY KEY,
    bytes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS waiting (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    bytes INTEGER NOT NULL
);
INSERT OR IGNORE INTO waiting SELECT 1, COALESCE(SUM(bytes), 0) FROM pending;
CREATE TRIGGER IF NOT EXISTS pending_added AFTER INSERT ON pending
    BEGIN UPDATE waiting SET bytes = bytes + NEW.bytes; END;
CREATE TRIGGER IF NOT EXISTS pending_gone AFTER DELETE ON pending
    BEGIN UPDATE waiting SET bytes = bytes - OLD.bytes; END;
CREATE TABLE IF NOT EXISTS dead_letters (
    position INTEGER PRIMARY KEY,
    reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS unfinished (
    alert_id TEXT PRIMARY KEY,
    position INTEGER NOT NULL
)
"""
STORED = """
SELECT a.position, a.committed_seconds, p.position IS NOT NULL, d.reason, a.alert_id, a.sequence, a.camera, a.label,
    a.phase, a.received_seconds, a.topic, a.headers, a.value
FROM alerts a LEFT JOIN pending p ON p.position = a.position LEFT JOIN dead_letters d ON d.position = a.position
"""
ONLY_EVENTS, ONLY_HEALTH = "a.label <> ''", "a.label = ''"
WAITING_EVENTS = f"p.position > ? AND {ONLY_EVENTS} ORDER BY p.position"
SINCE_THE_OLDEST = "a.position >= (SELECT MIN(position) FROM pending)"
WAITING_HEALTH = (
    f"p.position IS NOT NULL AND a.position > ? AND {SINCE_THE_OLDEST} AND {ONLY_HEALTH} ORDER BY a.position"
)
"""The few messages on health are found by their own index, not among the many alerts that may wait; those before the
oldest that waits are history."""
STORE = """
INSERT OR IGNORE INTO alerts
    (alert_id, sequence, camera, label, phase, received_seconds, committed_seconds, topic, headers, value)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
PRUNE = """
DELETE FROM alerts WHERE position IN (
    SELECT position FROM alerts WHERE committed_seconds < ? AND position NOT IN (SELECT position FROM pending)
        AND alert_id NOT IN (SELECT alert_id FROM unfinished) LIMIT ?)
"""
ONE_EACH = """
SELECT first.position, last.value
FROM alerts first JOIN alerts last ON last.alert_id = first.alert_id
    AND last.sequence = (SELECT MAX(sequence) FROM alerts WHERE alert_id = first.alert_id)
WHERE first.sequence = 0 AND first.label <> ''{}
ORDER BY first.position DESC LIMIT :limit
"""
"""Events, newest first, each as its newest message: what a page lists."""
WANTED = {
    "camera": "first.camera = :camera",
    "label": "first.label = :label",
    "since": "first.committed_seconds >= :since",
    "until": "first.committed_seconds < :until",
    "before": "first.position < :before",
}
"""Conditions of it, each only where it is asked for: one that is always true would still choose the index."""
WAITING = "SELECT (SELECT COUNT(*) FROM pending), bytes FROM waiting"
CROWDED_SHARE = 0.9
"""Of the nearer bound; past it updates are refused, so that starts and ends find room."""
PRUNED_AT_ONCE = 500
"""A commit waits for it."""
SECONDS_A_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class StoredAlert:
    """An alert in the store."""

    position: int
    """Grows with each commit: the order in which alerts were said."""
    committed_seconds: float
    waiting: bool
    """Whether Kafka has yet to acknowledge it."""
    refused: str | None
    """Why Kafka refused it for itself; None where it did not."""
    alert: Alert

    @property
    def value(self) -> bytes:
        """The JSON message, UTF-8."""
        return self.alert.value


@dataclass(frozen=True, slots=True)
class _Bounds:
    """How much may wait."""

    records: int
    bytes: int

    def share(self, records: int, weight: int) -> float:
        """Return how much of the nearer bound is used up; from 1 on nothing more is taken."""
        return max(records / self.records, weight / self.bytes)


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """How full the outbox is."""

    pending: int
    """Alerts that wait for their acknowledgement."""
    pending_bytes: int
    """Bytes of their messages."""
    oldest_age_seconds: float
    """Age of the oldest of them; 0 when none waits."""
    dead_letters: int
    """Alerts that Kafka refused for themselves."""
    crowded: bool = False
    """Updates are refused, so that starts and ends find room."""
    full: bool = False
    """Nothing is taken."""
    filled_ratio: float = 0.0
    """Share of the nearer bound that is used up; 0 where the bounds are not known."""


class Outbox:
    """The store, as the one process sees it that writes. Every method may be called from any thread.

    All methods raise `OutboxUnavailable` when the file cannot be read or written; the same call may succeed later.

    Example:
        outbox = Outbox.open(config.outbox, deliver=True)
        outbox.commit(alerts, now=time.time())
    """

    def __init__(self, database: Database, settings: OutboxConfig, *, deliver: bool) -> None:
        self._database = database
        self._deliver = deliver
        self._bounds = _Bounds(settings.maximum_records, settings.maximum_bytes)
        self._keep_seconds = settings.keep_days * SECONDS_A_DAY

    @classmethod
    def open(cls, settings: OutboxConfig, *, deliver: bool) -> Outbox:
        """Open the store, or begin it.

        Args:
            settings: where it is and its bounds.
            deliver: whether alerts are to wait for Kafka; without, they are only kept.

        Raises:
            OutboxUnavailable: the file cannot be used, or another monitor uses it. A damaged file is no error: it is
                set aside, which is logged, and a new one is begun.
        """
        database = Database(
            settings.path,
            schema=SCHEMA,
            version=SCHEMA_VERSION,
            begin_anew=_continue_positions,
            on_set_aside=_log_set_aside,
            on_put_back=lambda path: log.error("outbox_put_back", path=str(path), reason="somebody had removed it"),
        )
        database.open()
        return cls(database, settings, deliver=deliver)

    @staticmethod
    def open_reader(path: Path) -> OutboxReader:
        """Open the store of another process for reading.

        Raises:
            OutboxUnavailable: there is none, or it cannot be read.
        """
        return OutboxReader(ReadOnlyDatabase(path))

    def reader(self) -> OutboxReader:
        """Open the store once more, for reading: however long that takes, commits do not wait for it.

        Raises:
            OutboxUnavailable: it cannot be read.
        """
        return self.open_reader(self._database.path)

    def commit(self, alerts: Sequence[Alert], *, now: float) -> tuple[Alert, ...]:
        """Store alerts in this order; return when they are durable: from then on they count as said.

        An alert whose id and sequence are already stored changes nothing: the first one holds.

        Returns:
            Updates that were refused because the outbox is crowded; all others are stored.

        Raises:
            OutboxFull: from an alert on, nothing was taken; the error says how many were.
            OutboxUnavailable: nothing was stored.
        """
        if not alerts:
            return ()
        taken, refused = self._database.write(lambda connection: self._store(connection, alerts, now))
        if taken < len(alerts):
            raise OutboxFull(self._database.path, taken=taken, refused=refused)
        return tuple(refused)

    def pending(self, limit: int, *, after_position: int = 0, health: bool = False) -> list[StoredAlert]:
        """Return alerts that wait for their acknowledgement, oldest first; with `health` as in `recent`.

        One that the disk has damaged is put aside, or it would hold up all others for ever.
        """
        where = f"WHERE {WAITING_HEALTH if health else WAITING_EVENTS} LIMIT ?"
        rows = self._database.read(f"{STORED} {where}", (after_position, limit))
        whole = list(_whole(rows))
        sound = {stored.position for stored in whole}
        for position, _, _, _, alert_id, _, camera, *_ in rows:
            if position not in sound:
                log.error("alert_damaged", camera=camera, alert=alert_id)
                self.dead_letter(position, "damaged in the outbox")
        return whole

    def acknowledge(self, positions: Sequence[int]) -> None:
        """Note that Kafka has these alerts: they no longer wait. Unknown positions are ignored."""
        self._database.write(
            lambda connection: connection.executemany(
                "DELETE FROM pending WHERE position = ?", [(position,) for position in positions]
            )
        )

    def dead_letter(self, position: int, reason: str) -> None:
        """Note that Kafka refuses this alert for itself: it no longer waits, and is kept with the reason."""

        def bury(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO dead_letters VALUES (?, ?)", (position, reason))
            connection.execute("DELETE FROM pending WHERE position = ?", (position,))

        self._database.write(bury)

    def unfinished(self) -> list[Alert]:
        """Return the last message of each alert that has not ended, in the order they were said."""
        where = "WHERE a.position IN (SELECT position FROM unfinished) ORDER BY a.position"
        return [stored.alert for stored in _whole(self._database.read(f"{STORED} {where}"))]

    def recent(self, limit: int, *, camera: str | None = None, health: bool = False) -> list[StoredAlert]:
        """Return the newest alerts, newest first; with `health` the messages on cameras' health instead."""
        return _recent(self._database, limit, camera, health)

    def after(
        self, position: int, *, camera: str | None = None, health: bool = False, limit: int = 1000
    ) -> list[StoredAlert]:
        """Return the alerts said after the one at `position`, oldest first; with `health` as in `recent`."""
        return _after(self._database, position, camera, health, limit)

    def stats(self, now: float) -> OutboxStats:
        """Return how full the outbox is."""
        return _stats(self._database, now, bounds=self._bounds)

    def prune(self, now: float) -> int:
        """Forget alerts that have been kept long enough, are delivered, and belong to no event that goes on.

        Returns:
            How many were forgotten; where it is `PRUNED_AT_ONCE`, there may be more.
        """

        def forget(connection: sqlite3.Connection) -> int:
            count = connection.execute(PRUNE, (now - self._keep_seconds, PRUNED_AT_ONCE)).rowcount
            connection.execute("DELETE FROM dead_letters WHERE position NOT IN (SELECT position FROM alerts)")
            return count

        return self._database.write(forget)

    def close(self) -> None:
        """Close the store; what waits is sent after the next start."""
        self._database.close()

    def _store(self, connection: sqlite3.Connection, alerts: Sequence[Alert], now: float) -> tuple[int, list[Alert]]:
        """Store alerts until one finds no room; return how many were dealt with, and the refused updates of these."""
        refused: list[Alert] = []
        records, weight = connection.execute(WAITING).fetchone()
        for index, alert in enumerate(alerts):
            share = self._bounds.share(records, weight) if self._deliver else 0.0
            if share >= 1 and not _known(connection, alert):
                return index, refused
            if share >= CROWDED_SHARE and alert.phase is Phase.UPDATED:
                refused.append(alert)
                continue
            position = _insert(connection, alert, now)
            if position is not None and self._deliver:
                connection.execute("INSERT INTO pending VALUES (?, ?)", (position, len(alert.value)))
                records, weight = records + 1, weight + len(alert.value)
        return len(alerts), refused


class OutboxReader:
    """The store, as another process sees it, or another thread that must not hold commits up: reads only."""

    def __init__(self, database: ReadOnlyDatabase) -> None:
        self._database = database

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def recent(self, limit: int, *, camera: str | None = None, health: bool = False) -> list[StoredAlert]:
        """Return the newest alerts, newest first; with `health` the messages on cameras' health instead."""
        return _recent(self._database, limit, camera, health)

    def after(
        self, position: int, *, camera: str | None = None, health: bool = False, limit: int = 1000
    ) -> list[StoredAlert]:
        """Return the alerts said after the one at `position`, oldest first; with `health` as in `recent`."""
        return _after(self._database, position, camera, health, limit)

    def newest_of_each(
        self,
        limit: int,
        *,
        camera: str | None = None,
        label: str | None = None,
        since_seconds: float | None = None,
        until_seconds: float | None = None,
        before: int | None = None,
    ) -> list[tuple[int, bytes]]:
        """Return the newest events, newest first, each as the position of its first message and its newest message.

        Args:
            limit: how many.
            camera: of this one alone.
            label: of this one alone.
            since_seconds: told of first at this time or later; seconds since the epoch.
            until_seconds: told of first before this time.
            before: of those before this position.
        """
        asked = {
            "camera": camera,
            "label": label,
            "since": since_seconds,
            "until": until_seconds,
            "before": before,
        }
        wanted = {name: value for name, value in asked.items() if value is not None}
        sql = ONE_EACH.format("".join(f" AND {WANTED[name]}" for name in wanted))
        rows = self._database.read(sql, {**wanted, "limit": limit})
        return [(position, bytes(value)) for position, value in rows]

    def messages_of(self, alert_id: str) -> list[bytes]:
        """Return the messages of one alert in their order; none where it is not known."""
        rows = self._database.read("SELECT value FROM alerts WHERE alert_id = ? ORDER BY sequence", (alert_id,))
        return [bytes(value) for (value,) in rows]

    def stats(self, now: float) -> OutboxStats:
        """Return what waits; how full that makes it, only its owner knows."""
        return _stats(self._database, now, bounds=None)

    def close(self) -> None:
        """Close the store."""
        self._database.close()


def messages_in(values: Iterable[bytes]) -> Iterator[Any]:
    """Yield the messages of alerts, but those that the disk has damaged."""
    for value in values:
        with suppress(ValueError):
            yield json.loads(value)


def _log_set_aside(path: Path, reason: str) -> None:
    log.error("outbox_set_aside", path=str(path), reason=reason, hint="sqlite3's .recover may still read it")


def _continue_positions(connection: sqlite3.Connection) -> None:
    """Let positions grow on over a file that was set aside: acknowledgements of its alerts must not hit new ones."""
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'alerts'")
    connection.execute("INSERT INTO sqlite_sequence VALUES ('alerts', ?)", (time.time_ns() // 1_000_000,))


def _known(connection: sqlite3.Connection, alert: Alert) -> bool:
    query = "SELECT 1 FROM alerts WHERE alert_id = ? AND sequence = ?"
    return connection.execute(query, (alert.alert_id, alert.sequence)).fetchone() is not None


def _insert(connection: sqlite3.Connection, alert: Alert, now: float) -> int | None:
    """Add an alert to the history, keep `unfinished` true; return its position, None where it is known already."""
    headers = json.dumps([[name, value.decode()] for name, value in alert.headers])
    told = (alert.alert_id, alert.sequence, alert.camera, alert.label, alert.phase.value)
    row = (*told, alert.received_seconds, now, alert.topic, headers, alert.value)
    cursor = connection.execute(STORE, row)
    if cursor.rowcount == 0:
        return None
    if alert.phase is Phase.ENDED:
        connection.execute("DELETE FROM unfinished WHERE alert_id = ?", (alert.alert_id,))
    else:
        connection.execute("INSERT OR REPLACE INTO unfinished VALUES (?, ?)", (alert.alert_id, cursor.lastrowid))
    return cursor.lastrowid


def _only(camera: str | None, health: bool) -> tuple[str, tuple[Any, ...]]:
    """Return the conditions on kind and camera, and their parameters."""
    kind = ONLY_HEALTH if health else ONLY_EVENTS
    return (kind, ()) if camera is None else (f"{kind} AND a.camera = ?", (camera,))


def _recent(database: Database | ReadOnlyDatabase, limit: int, camera: str | None, health: bool) -> list[StoredAlert]:
    where, named = _only(camera, health)
    rows = database.read(f"{STORED} WHERE {where} ORDER BY a.position DESC LIMIT ?", (*named, limit))
    return list(_whole(rows))


def _after(
    database: Database | ReadOnlyDatabase, position: int, camera: str | None, health: bool, limit: int
) -> list[StoredAlert]:
    where, named = _only(camera, health)
    parameters = (*named, position, limit)
    rows = database.read(f"{STORED} WHERE {where} AND a.position > ? ORDER BY a.position LIMIT ?", parameters)
    return list(_whole(rows))


def _stats(database: Database | ReadOnlyDatabase, now: float, *, bounds: _Bounds | None) -> OutboxStats:
    [(pending, pending_bytes)] = database.read(WAITING)
    [(first,)] = database.read("SELECT MIN(position) FROM pending")
    [(dead_letters,)] = database.read("SELECT COUNT(*) FROM dead_letters")
    oldest = database.read("SELECT committed_seconds FROM alerts WHERE position = ?", (first,)) if pending else []
    share = bounds.share(pending, pending_bytes) if bounds else 0.0
    return OutboxStats(
        pending=pending,
        pending_bytes=pending_bytes,
        oldest_age_seconds=max(0.0, now - oldest[0][0]) if oldest else 0.0,
        dead_letters=dead_letters,
        crowded=share >= CROWDED_SHARE,
        full=share >= 1,
        filled_ratio=share,
    )


def _whole(rows: Sequence[Row]) -> Iterator[StoredAlert]:
    """Yield the alerts of these rows, but those that the disk has damaged: SQLite finds that only in its own pages."""
    for row in rows:
        with suppress(ValueError, TypeError):
            yield _stored(row)


def _stored(row: Row) -> StoredAlert:
    position, committed_seconds, waiting, refused, *told = row
    alert_id, sequence, camera, label, phase, received_seconds, topic, headers, value = told
    return StoredAlert(
        position=position,
        committed_seconds=committed_seconds,
        waiting=bool(waiting),
        refused=refused,
        alert=Alert(
            alert_id=alert_id,
            sequence=sequence,
            camera=camera,
            label=label,
            phase=Phase(phase),
            received_seconds=received_seconds,
            topic=topic,
            headers=tuple((name, text.encode()) for name, text in json.loads(headers)),
            value=bytes(value),
        ),
    )
