"""Every error the program raises on purpose. Library errors are translated at the door they come through.

MonitorError
├── ConfigInvalid        the configuration cannot be used; holds every problem      exit 2
├── BundleInvalid        a model's files are missing, altered or contradictory      exit 2
├── EngineUnavailable    an engine cannot run this bundle on this machine           exit 2
├── InputInvalid         a file or argument given on the command line is unusable   exit 2
├── SourceFailed         one camera's stream failed; `reason` says how              retried for ever
├── EvidenceFailed       a clip or picture cannot be made; the alert goes out without    counted
├── OutboxUnavailable    the outbox cannot be opened, read or written               exit 2 at start-up
├── OutboxFull           an alert found no room                                     counted
├── DeliveryFailed       Kafka did not take the alerts; they rest in the outbox     retried for ever
├── StageFailed          a thread or process of the service died of its first error exit 1
└── StopTimedOut         a stage did not stop within its deadline                   exit 1

`retriable` on the class says whether the same call may succeed later; `exit_code` is what the
command line leaves with when the error ends the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from monitor.records import Alert, FailureReason


class MonitorError(Exception):
    """The root of the project's errors."""

    retriable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a configuration or an input: where, and what to do."""

    key: str
    reason: str

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}"


class ConfigInvalid(MonitorError):
    """Every problem of a configuration at once."""

    def __init__(self, path: Path | str, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = tuple(problems)
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        count = len(self.problems)
        super().__init__(f"{path}: {count} problem{'s' if count != 1 else ''}{lines}")


class BundleInvalid(MonitorError):
    """A bundle's files are missing, altered or contradict its manifest."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = path
        super().__init__(f"{path}: {reason}")


class EngineUnavailable(MonitorError):
    """An engine cannot run this bundle here: library missing, no device, or golden outputs not met.

    Args:
        engine: its name.
        reason: one line.
        expected: this machine is simply not made for it; nobody has to look into that.
    """

    def __init__(self, engine: str, reason: str, *, expected: bool = False) -> None:
        self.engine = engine
        self.reason = reason
        self.expected = expected
        super().__init__(f"engine {engine}: {reason}")


class InputInvalid(MonitorError):
    """A file or an argument given by the user is unusable."""

    def __init__(self, what: Path | str, reason: str) -> None:
        self.what = what
        self.reason = reason
        super().__init__(f"{what}: {reason}")


def extra_missing(what: str, missing: ImportError, extra: str) -> InputInvalid:
    """Return the error for what needs a library that only an extra of the package brings."""
    return InputInvalid(
        what, f"{missing.name} is not installed; in the checkout: pip install -c constraints.txt '.[{extra}]'"
    )


class SourceFailed(MonitorError):
    """One camera's stream failed. The message never holds credentials.

    Args:
        camera: the camera's id.
        reason: the failure class, which decides how soon to retry.
        detail: what the library or the operating system said, redacted.
    """

    retriable = True
    exit_code = 1

    def __init__(self, camera: str, reason: FailureReason, detail: str) -> None:
        self.camera = camera
        self.reason = reason
        self.detail = detail
        super().__init__(f"camera {camera}: {reason.value}: {detail}")


class OutboxUnavailable(MonitorError):
    """The outbox's database cannot be opened, read or written."""

    retriable = True

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = path
        super().__init__(f"outbox {path}: {reason}")


class OutboxFull(MonitorError):
    """The outbox is at its bound; the alerts from the first that found no room on were not taken.

    Args:
        path: the database file.
        taken: how many of the alerts, from the first on, are dealt with: committed, or in `refused`.
        refused: updates among them that were refused to leave room for starts and ends.
    """

    retriable = True
    exit_code = 1

    def __init__(self, path: Path | str, *, taken: int, refused: Sequence[Alert] = ()) -> None:
        self.path = path
        self.taken = taken
        self.refused = tuple(refused)
        super().__init__(f"outbox {path}: full; alerts wait until Kafka has taken some")


class DeliveryFailed(MonitorError):
    """Kafka did not take the alerts; they rest in the outbox and are sent again.

    Args:
        reason: one line, redacted.
        refused: Kafka answered and refused us: wrong password, no permission.
    """

    retriable = True
    exit_code = 1

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        self.refused = refused
        super().__init__(reason)


class EvidenceFailed(MonitorError):
    """A clip or a picture of an event cannot be made; the alert goes out without it."""

    exit_code = 1


class StageFailed(MonitorError):
    """A thread or process of the service died; `__cause__` is its first error."""

    exit_code = 1

    def __init__(self, stage: str, reason: str) -> None:
        self.stage = stage
        super().__init__(f"{stage} failed: {reason}")


class StopTimedOut(MonitorError):
    """A stage did not stop within its deadline."""

    exit_code = 1
