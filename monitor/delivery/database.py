"""One SQLite file: transactions in, rows or a clear error out. The only door to `sqlite3`.

A file that SQLite finds damaged is set aside under a new name, never deleted, and a new one is begun. One that somebody
removes while it is open is put back as it was: SQLite itself would go on with what nobody can open any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from monitor.errors import OutboxUnavailable

Answer = TypeVar("Answer")
Row = tuple[Any, ...]
Parameters = tuple[Any, ...] | Mapping[str, Any]

APPLICATION_ID = 0x56454D31
"""`PRAGMA application_id`: tells our files from other programs'."""
WAIT_SECONDS = 0.5
"""Longest wait for another thread or process that holds the database; who is told `OutboxUnavailable` tries again."""
CHECK_SECONDS = 2.0
"""Longest search for damage at opening; a huge file is searched in part."""
SIDECARS = ("-wal", "-shm")

REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened or made",
    sqlite3.SQLITE_IOERR: "the disk does not read or write",
    sqlite3.SQLITE_BUSY: "another program holds it",
    sqlite3.SQLITE_LOCKED: "another program holds it",
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_CORRUPT: "it is damaged",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database",
}
DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Damaged(Exception):
    """SQLite found the file damaged; never leaves this module."""


class Database:
    """Owns the connection of the one process that writes. Every method may be called from any thread.

    Args:
        path: the file; its folder is made when missing.
        schema: statements that make the tables, run when the file is new.
        version: of the schema; a file with a greater one is refused.
        begin_anew: run on the new file after a damaged one was set aside.
        on_set_aside: told where a damaged file was put, and what was wrong with it.
        on_put_back: told that the file had been removed, and is there again.
    """

    def __init__(
        self,
        path: Path,
        *,
        schema: str,
        version: int,
        begin_anew: Callable[[sqlite3.Connection], None],
        on_set_aside: Callable[[Path, str], None],
        on_put_back: Callable[[Path], None],
    ) -> None:
        self.path = path
        self._schema = schema
        self._version = version
        self._begin_anew = begin_anew
        self._on_set_aside = on_set_aside
        self._on_put_back = on_put_back
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._claim: int | None = None

    def open(self) -> None:
        """Open the file, or begin it.

        Raises:
            OutboxUnavailable: the folder or the file cannot be used, or another monitor uses it.
        """
        self._claim = _claim(self.path)
        try:
            with self._translated():
                try:
                    self._connection = self._connect()
                except Damaged as exc:
                    self._set_aside(str(exc))
        except OutboxUnavailable:
            self.close()
            raise

    def read(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Return the rows of a query; of a damaged file, begin a new one, which has none.

        Raises:
            OutboxUnavailable: the file cannot be read.
        """
        with self._held(), self._translated():
            try:
                return _rows(self._required(), sql, parameters)
            except Damaged as exc:
                return _rows(self._set_aside(str(exc)), sql, parameters)

    def write(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Run `work` in one transaction; return when it is durable. Of a damaged file, begin a new one and try again.

        Raises:
            OutboxUnavailable: nothing was written.
        """
        with self._held(), self._translated():
            try:
                return _in_transaction(self._required(), work)
            except Damaged as exc:
                return _in_transaction(self._set_aside(str(exc)), work)

    def close(self) -> None:
        """Close the file and give up the claim on it; a write that hangs is left to the end of the process."""
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            return
        try:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._claim is not None:
                os.close(self._claim)
                self._claim = None
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            raise OutboxUnavailable(self.path, "a write has hung for too long")
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except Damaged as exc:
            raise OutboxUnavailable(self.path, str(exc)) from exc
        except sqlite3.Error as exc:
            raise OutboxUnavailable(self.path, _reason(exc)) from exc
        except OSError as exc:
            raise OutboxUnavailable(self.path, exc.strerror or str(exc)) from exc

    def _required(self) -> sqlite3.Connection:
        """Return the connection; where the file in place of a damaged one could not be begun, try that again."""
        if self._claim is None:
            raise OutboxUnavailable(self.path, "it is closed")
        if self._connection is None:
            return self._begin()
        return self._connection if self.path.exists() else self._put_back(self._connection)

    def _begin(self) -> sqlite3.Connection:
        """Begin a new file in place of one that was set aside."""
        connection = self._connect()
        try:
            _in_transaction(connection, self._begin_anew)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _put_back(self, removed: sqlite3.Connection) -> sqlite3.Connection:
        """Write the file anew where somebody has removed it, with all that it held."""
        if not _lock_of(self.path).exists():  # it went too: without it another monitor would take the file
            before, self._claim = self._claim, _claim(self.path)
            if before is not None:
                os.close(before)
        beside = Path(f"{self.path}.new")
        beside.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(beside)) as copy:
            removed.backup(copy)
        removed.close()  # before there is a new log: it removes the one of this name
        self._connection = None
        beside.rename(self.path)
        self._connection = self._connect()
        self._on_put_back(self.path)
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        connection.text_factory = _text
        try:
            with _noticing_damage():
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=FULL")  # in WAL mode only FULL survives a loss of power
                connection.execute("PRAGMA journal_size_limit=67108864")
                self._check(connection)
                _in_transaction(connection, self._make_tables)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        [(application,)] = connection.execute("PRAGMA application_id").fetchall()
        [(version,)] = connection.execute("PRAGMA user_version").fetchall()
        [(tables,)] = connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchall()
        if tables and application != APPLICATION_ID:
            raise OutboxUnavailable(self.path, "it is another program's database; give outbox.path another file")
        if version > self._version:
            raise OutboxUnavailable(self.path, f"a newer program wrote it (format {version}, known {self._version})")
        _look_for_damage(connection)

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        for statement in _statements(self._schema):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={self._version}")

    def _set_aside(self, reason: str) -> sqlite3.Connection:
        """Rename the damaged file with its sidecars, begin a new one."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):  # a damaged file may refuse its last checkpoint
                self._connection.close()
            self._connection = None
        aside = _free_name(self.path)
        self.path.rename(aside)
        for sidecar in SIDECARS:
            beside = Path(f"{self.path}{sidecar}")
            if beside.exists():
                beside.rename(f"{aside}{sidecar}")
        self._on_set_aside(aside, reason)
        return self._begin()


class ReadOnlyDatabase:
    """Reads a file that another process may be writing.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise OutboxUnavailable(path, "is a folder; outbox.path names a file")
        if not path.is_file():
            raise OutboxUnavailable(path, "there is none yet; `monitor run` makes it")
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=WAIT_SECONDS, check_same_thread=False
            )
        except sqlite3.Error as exc:
            raise OutboxUnavailable(path, _reason(exc)) from exc
        self._connection.text_factory = _text
        self._lock = threading.Lock()

    def read(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Return the rows of a query.

        Raises:
            OutboxUnavailable: the file cannot be read, or is damaged.
        """
        try:
            with self._lock:
                return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as exc:
            raise OutboxUnavailable(self.path, _reason(exc)) from exc

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _text(raw: bytes) -> str:
    """Return a column's text; a row that the disk has damaged must not keep the others from being read."""
    return raw.decode(errors="replace")


def _lock_of(path: Path) -> Path:
    return Path(f"{path}.lock")


def _claim(path: Path) -> int:
    """Claim the file for this process; the operating system ends the claim with the process, however that ends."""
    lock = _lock_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise OutboxUnavailable(path, f"{lock} cannot be made: {exc.strerror or exc}") from exc
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(handle)
        raise OutboxUnavailable(
            path, "another monitor uses it; stop that one, or give outbox.path another file"
        ) from exc
    return handle


def _statements(schema: str) -> Iterator[str]:
    """Split at the semicolons that end a statement; those within a trigger do not."""
    statement = ""
    for piece in schema.split(";"):
        statement += f"{piece};"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _rows(connection: sqlite3.Connection, sql: str, parameters: Parameters) -> list[Row]:
    with _noticing_damage():
        return connection.execute(sql, parameters).fetchall()


def _in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
    with _noticing_damage():
        connection.execute("BEGIN IMMEDIATE")
        try:
            answer = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has already rolled it back
                connection.execute("ROLLBACK")
            raise
        return answer


def _look_for_damage(connection: sqlite3.Connection) -> None:
    give_up = time.monotonic() + CHECK_SECONDS
    connection.set_progress_handler(lambda: int(time.monotonic() > give_up), 100_000)
    try:
        [(verdict,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.OperationalError as exc:
        if _primary_code(exc) != sqlite3.SQLITE_INTERRUPT:
            raise
        verdict = "ok"  # so far
    finally:
        connection.set_progress_handler(None, 0)
    if verdict != "ok":
        raise Damaged(f"it is damaged: {verdict}".replace("\n", " "))


@contextlib.contextmanager
def _noticing_damage() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as exc:
        if _primary_code(exc) in DAMAGE:
            raise Damaged(_reason(exc)) from exc
        raise


def _primary_code(exc: sqlite3.Error) -> int:
    """Return SQLite's result code without its extension; 0 for an error of the Python module itself."""
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF


def _reason(exc: sqlite3.Error) -> str:
    known = REASONS.get(_primary_code(exc))
    return f"{known} ({exc})" if known else str(exc)


def _free_name(path: Path) -> Path:
    """Return a name beside `path` that no file has."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    count = 1
    while aside.exists():
        count += 1
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{count}")
    return aside
