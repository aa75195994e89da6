"""Sizes of packets and small pictures of keyframes in; whether a camera is idle or awake, out. Pure: times are told.

An awake camera is decoded whole. It falls asleep at a keyframe once nothing has moved for a quiet time: successive
keyframes look alike, and the sizes of the packets between them stay in the range that is usual for this camera. An
idle one has its keyframes alone decoded, and wakes

* by the sizes, within a few packets: their mean leaves the range that the quiet time taught. In both directions: a rate
  control that holds its bits answers motion with smaller packets. Sizes are taken as logarithms, since noise and
  quality scale them, and keyframes are left out;
* by the picture: a few blocks of a keyframe differ from the keyframe looked at before, beyond what brightness as a
  whole explains. A keyframe as large as that one is likely to show the same, and is not looked at as often.

Sizes that woke it without a picture that differed cried wolf: the range is widened. A stream whose keyframes come too
seldom, or are none (intra refresh), is decoded whole.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from monitor.records import GateState, WakeReason

LOOK_PIXELS = (64, 36)
"""Width and height of the picture that keyframes are compared by: its pixels are the blocks."""
LOOK_SECONDS = 3.0
"""Keyframes of an idle camera that come closer than this are not all looked at."""
DOUBTED_LOOK_SECONDS = 1.5
"""Likewise where a keyframe is of another size than the one looked at before, or all packets are keyframes, so that
those between them tell nothing."""
KEYFRAME_MARGIN = 0.03
"""In logarithm: 3%. In the streams of `benchmarks.gate` whose light stays, the sizes of keyframes differ by less than
3%, and by 0.3% at the median, while it is quiet, and by 6% at the median, in noise, once something moves."""
AWAKE_LOOK_SECONDS = 0.4
"""Likewise of an awake one, whose keyframes are decoded anyway: what moves to and fro in step with looks is seen."""
MOST_GOP_SECONDS = 5.0
"""Keyframes that are further apart are of no use: their packets would have to be held back that long."""
MOST_LOOK_SECONDS = LOOK_SECONDS + MOST_GOP_SECONDS
"""No looks at an idle camera are further apart: a keyframe came just too soon, and the next as late as one may."""
REGULAR_GOPS = 2
ALL_INTRA_RUN = 8
"""So many keyframes in a row: the stream has nothing else, and their own sizes tell of motion."""

DIFFERENT_LEVELS = 6.0
"""Grey levels by which a block has to differ. Noise and coding leave 1 to 3 of the mean of a block."""
DIFFERENT_BLOCKS = 3
"""How many have to: a person 110 pixels tall covers four blocks of a 1080p picture."""
LIGHT_FITS = 3

SIZE_WINDOW = 5
"""Packets whose mean is held against the range."""
SIZE_FLOOR_BYTES = 150
"""Added to each size: packets that say "as before" are tiny, and double without meaning anything."""
SIZE_HISTORY = 512
SIZE_MARGIN = 0.08
"""Least distance beyond the quiet range, in logarithm: 8%."""
SIZE_QUANTILES = (0.02, 0.5, 0.98)
LEARN_SECONDS = 5.0
NEW_NORMAL_SECONDS = 30.0
"""Sizes that stay out of their range for so long while no keyframe differs have become usual."""
WIDEN, WIDEST = 1.5, 8.0


class Gate:
    """Whether one camera is idle or awake. Used by one thread.

    Args:
        quiet_seconds: how long nothing may move before it falls asleep.
    """

    def __init__(self, *, quiet_seconds: float) -> None:
        self._quiet_seconds = quiet_seconds
        self.restart()

    @property
    def state(self) -> GateState:
        """Where it stands."""
        if self._idle:
            return GateState.IDLE
        return GateState.UNSUITED if self._keyframes.unsuited(self._newest) else GateState.AWAKE

    @property
    def all_intra(self) -> bool:
        """Whether the stream holds nothing but keyframes."""
        return self._keyframes.all_intra

    def restart(self) -> None:
        """Begin a connection: awake, and nothing is known of the stream."""
        self._idle = False
        self._sizes = SizeRange()
        self._keyframes = _Keyframes()
        self._picture: NDArray[np.int16] | None = None
        self._keyframe_bytes = self._looked_bytes = 0
        """Of the newest keyframe, and of the one looked at last."""
        self._newest = self._active = self._looked = self._differed = self._learned = self._woken = -math.inf
        self._woken_by_sizes = False

    def packet(self, *, size_bytes: int, is_keyframe: bool, seconds: float) -> WakeReason | None:
        """Note a packet; return why it wakes an idle camera, if it does. A keyframe may put an awake one to sleep.

        Args:
            size_bytes: of its payload.
            is_keyframe: as its container says.
            seconds: its time in the stream, on a clock that does not run back.
        """
        if self._newest == -math.inf:  # the first one
            self._active = self._differed = seconds
        self._newest = seconds
        if is_keyframe:
            self._keyframe_bytes = size_bytes
        self._keyframes.note(is_keyframe, seconds)
        if self._keyframes.unsuited(seconds):
            self._active = seconds
            return self._wake(WakeReason.STREAM) if self._idle else None
        if (not is_keyframe or self.all_intra) and self._sizes.note(size_bytes):
            return self._unusual(seconds)
        if is_keyframe:
            self._rest(seconds)
        return None

    def wants_look(self, seconds: float) -> bool:
        """Whether the keyframe that came last is to be looked at now."""
        since = seconds - self._looked
        if not self._idle:
            return since >= AWAKE_LOOK_SECONDS
        apart = abs(_level(self._keyframe_bytes) - _level(self._looked_bytes))
        doubted = self.all_intra or apart > KEYFRAME_MARGIN
        return since >= (DOUBTED_LOOK_SECONDS if doubted else LOOK_SECONDS)

    def look(self, picture: NDArray[np.uint8], *, is_intra: bool, seconds: float) -> WakeReason | None:
        """Compare a keyframe with the one looked at before; return why it wakes an idle camera, if it does.

        Args:
            picture: (H, W) uint8, luma of the zone, scaled to `LOOK_PIXELS`.
            is_intra: whether it is coded without other pictures, as a keyframe must be.
            seconds: as of its packet.
        """
        self._looked, self._looked_bytes = seconds, self._keyframe_bytes
        if not is_intra:
            return self.refuse()
        blocks = picture.astype(np.int16)
        before, self._picture = self._picture, blocks
        if before is None or before.shape != blocks.shape or differs(before, blocks):
            self._active = self._differed = seconds
            self._sizes.forget_values()
            if self._woken_by_sizes:  # they were right
                self._woken_by_sizes = False
                self._sizes.trust()
            return self._wake(WakeReason.PICTURE) if self._idle else None
        return None

    def refuse(self) -> WakeReason | None:
        """Stay awake for the rest of this connection: the stream's keyframes are of no use."""
        self._keyframes.refute()
        return self._wake(WakeReason.STREAM) if self._idle else None

    def _unusual(self, seconds: float) -> WakeReason | None:
        """Take a size out of its range for motion, unless that has gone on for long and no keyframe differed."""
        self._sizes.forget_values()
        if self._idle:
            self._active = seconds
            self._woken_by_sizes = True
            return self._wake(WakeReason.SIZES)
        if seconds - max(self._differed, self._woken) > NEW_NORMAL_SECONDS:
            self._sizes.forget_range()
        else:
            self._active = seconds
        return None

    def _wake(self, reason: WakeReason) -> WakeReason:
        self._idle = False
        self._woken = self._newest
        self._sizes.forget_values()
        return reason

    def _rest(self, seconds: float) -> None:
        """At a keyframe: fall asleep where it has been quiet for long enough; learn from an idle camera's sizes."""
        if self._idle:
            if seconds - self._learned >= LEARN_SECONDS:
                self._learned = seconds
                self._sizes.learn()
            return
        if seconds - self._active < self._quiet_seconds or not self._keyframes.regular:
            return
        if self._woken_by_sizes:  # and no keyframe has differed since
            self._woken_by_sizes = False
            self._sizes.doubt()
        self._idle = True
        self._learned = seconds
        self._sizes.learn()


class SizeRange:
    """Which sizes of packets are usual for a camera: the mean of the last few in logarithm, and its quiet range."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=SIZE_WINDOW)
        self._sum = 0.0
        self._values: deque[float] = deque(maxlen=SIZE_HISTORY)
        self._least, self._most = -math.inf, math.inf
        self._wide = 1.0

    def note(self, size_bytes: int) -> bool:
        """Take a packet's size; return whether the mean is out of the range."""
        level = _level(size_bytes)
        if len(self._recent) == SIZE_WINDOW:
            self._sum -= self._recent[0]
        self._recent.append(level)
        self._sum += level
        if len(self._recent) < SIZE_WINDOW:
            return False
        mean = self._sum / SIZE_WINDOW
        self._values.append(mean)
        return not self._least <= mean <= self._most

    def learn(self) -> None:
        """Take the values since `forget_values` for the usual ones."""
        if len(self._values) < SIZE_WINDOW:
            return
        low, middle, high = np.quantile(np.array(self._values), SIZE_QUANTILES)
        self._least = low - self._wide * max(SIZE_MARGIN, middle - low)
        self._most = high + self._wide * max(SIZE_MARGIN, high - middle)

    def forget_values(self) -> None:
        """Let go of what was seen while something moved."""
        self._values.clear()

    def forget_range(self) -> None:
        """Believe no longer that the range is usual."""
        self._least, self._most = -math.inf, math.inf

    def doubt(self) -> None:
        """Widen the range from now on: it was left and nothing was there."""
        self._wide = min(WIDEST, self._wide * WIDEN)

    def trust(self) -> None:
        """Take the range as narrow as at first."""
        self._wide = 1.0


class _Keyframes:
    """How a stream's keyframes come."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._begun: float | None = None
        self._regular = 0
        self._run = 0
        self._too_far = False
        self._refuted = False

    @property
    def regular(self) -> bool:
        """Whether they have come, close enough, for some time."""
        return self._regular >= REGULAR_GOPS

    @property
    def all_intra(self) -> bool:
        return self._run >= ALL_INTRA_RUN

    def note(self, is_keyframe: bool, seconds: float) -> None:
        if self._begun is None:
            self._begun = seconds
        if not is_keyframe:
            self._run = 0
            return
        self._run += 1
        if self._last is not None:
            self._regular = self._regular + 1 if seconds - self._last <= MOST_GOP_SECONDS else 0
            self._too_far = not self.regular and (self._too_far or self._regular == 0)
        self._last = seconds

    def unsuited(self, seconds: float) -> bool:
        """Whether they are of no use."""
        since = self._last if self._last is not None else self._begun
        return self._refuted or self._too_far or (since is not None and seconds - since > MOST_GOP_SECONDS)

    def refute(self) -> None:
        """Note that what is called a keyframe is none."""
        self._refuted = True


def _level(size_bytes: int) -> float:
    """Return a packet's size as it is compared with others."""
    return math.log(size_bytes + SIZE_FLOOR_BYTES)


def differs(before: NDArray[np.int16], after: NDArray[np.int16]) -> bool:
    """Whether two pictures, (H, W), show that something moved: some blocks are not what a change of light explains.

    Light and exposure scale and shift a picture as a whole; what they did is fitted by least squares to the blocks that
    it explains.
    """
    was, now = before.ravel().astype(np.float32), after.ravel().astype(np.float32)
    apart = np.abs(now - was - np.median(now - was))
    for _ in range(LIGHT_FITS):
        if np.partition(apart, -DIFFERENT_BLOCKS)[-DIFFERENT_BLOCKS] < DIFFERENT_LEVELS:
            return False
        alike = apart <= max(DIFFERENT_LEVELS, 2.0 * float(np.median(apart)))
        mean_was, mean_now = was[alike].mean(), now[alike].mean()
        spread = was[alike] - mean_was
        variance = float(spread @ spread)
        gain = float(spread @ (now[alike] - mean_now)) / variance if variance else 1.0
        apart = np.abs(now - mean_now - gain * (was - mean_was))
    return bool(np.partition(apart, -DIFFERENT_BLOCKS)[-DIFFERENT_BLOCKS] >= DIFFERENT_LEVELS)
