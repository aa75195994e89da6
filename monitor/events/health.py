"""One camera's states and picture figures in, changes of its health out. Pure: time comes with what is noted.

Health is one state at a time. Connection comes before picture: a camera that is away is neither frozen nor dark.

    refused   the camera refused our credentials: told at once
    offline   no stream for `offline_seconds`
    frozen    pictures arrive, and are the same one, for `frozen_seconds`
    dark      pictures arrive, and show no contrast, for `dark_seconds`
    online    none of these, for `online_seconds`

A state is told once it has held for its time, so a camera that flaps is told as often as it stays away, not more.
"""

from __future__ import annotations

from monitor.config import HealthConfig
from monitor.records import CameraState, CameraStatus, CaptureCounts, FailureReason, HealthChange, HealthState


class HealthTracker:
    """The health of one camera.

    Args:
        camera: the camera's id.
        rules: how long a state has to hold, and what counts as frozen and dark.
    """

    def __init__(self, camera: str, rules: HealthConfig) -> None:
        self._camera = camera
        self._rules = rules
        self._told: HealthState | None = None
        self._connected = False
        self._refused = False
        self._reason: FailureReason | None = None
        self._detail = ""
        self._state: HealthState | None = None
        """What seems to be the case; becomes what is told once it has held."""
        self._since = 0.0
        self._same_since: float | None = None
        self._dark_since: float | None = None

    @property
    def state(self) -> HealthState | None:
        """What was told last; None before anything is known."""
        return self._told

    def note_status(self, status: CameraStatus) -> list[HealthChange]:
        """Take a change of the connection's state."""
        if status.state is CameraState.CONNECTING:
            return self.note_time(status.time_seconds)
        self._connected = status.state is CameraState.ONLINE
        self._refused = status.state is CameraState.REFUSED
        if not self._connected:
            self._same_since = self._dark_since = None
        self._reason, self._detail = status.reason, status.detail
        return self.note_time(status.time_seconds)

    def note_counts(self, counts: CaptureCounts, now: float) -> list[HealthChange]:
        """Take what capture measured on the pictures of about the last second."""
        if counts.change is not None:
            same = counts.change <= self._rules.frozen_change
            self._same_since = (self._same_since or now) if same else None
        if counts.contrast is not None:
            dark = counts.contrast <= self._rules.dark_contrast
            self._dark_since = (self._dark_since or now) if dark else None
        return self.note_time(now)

    def note_time(self, now: float) -> list[HealthChange]:
        """Tell the change that has become due by now, if any."""
        self._mind_the_clock(now)
        state, since, hold = self._seen(now)
        if state is not self._state:
            self._state, self._since = state, since
        if state is self._told or now - self._since < hold:
            return []
        change = HealthChange(
            camera=self._camera,
            state=state,
            previous=self._told,
            since_seconds=self._since,
            changed_seconds=now,
            reason=self._reason if state in (HealthState.OFFLINE, HealthState.REFUSED) else None,
            detail=self._describe(state),
        )
        self._told = state
        return [change]

    def _mind_the_clock(self, now: float) -> None:
        """Let nothing hold since a time to come: where the clock was set back, it would be told late by as much."""
        self._since = min(self._since, now)
        self._same_since = None if self._same_since is None else min(self._same_since, now)
        self._dark_since = None if self._dark_since is None else min(self._dark_since, now)

    def _seen(self, now: float) -> tuple[HealthState, float, float]:
        """Return what seems to be the case, since when, and how long it has to hold."""
        rules = self._rules
        if self._refused:
            return HealthState.REFUSED, now, 0.0
        if not self._connected:
            return HealthState.OFFLINE, now, rules.offline_seconds
        if self._held(self._dark_since, rules.dark_seconds, now):
            return HealthState.DARK, self._dark_since or now, 0.0
        if self._held(self._same_since, rules.frozen_seconds, now):
            return HealthState.FROZEN, self._same_since or now, 0.0
        return HealthState.ONLINE, now, rules.online_seconds

    @staticmethod
    def _held(since: float | None, seconds: float, now: float) -> bool:
        """Whether a condition has held long enough; 0 seconds switches it off."""
        return since is not None and seconds > 0 and now - since >= seconds

    def _describe(self, state: HealthState) -> str:
        if state is HealthState.DARK:
            return f"no contrast for {self._rules.dark_seconds:g} s"
        if state is HealthState.FROZEN:
            return f"the same picture for {self._rules.frozen_seconds:g} s"
        return "" if state is HealthState.ONLINE else self._detail
