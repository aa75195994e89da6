"""Who does what and when: a seed in, figures whose pose is a pure function of time out.

Time runs in *acts* of some 15 to 25 seconds, each drawn from (seed, number of the act): a pair meets, talks and
leaves; passers-by walk, run in a line or wave. In some acts the pair's talk turns into a scuffle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.scenes.figure import Looks, Pose, draw_looks
from models.scenes.style import Style

PoseAt = Callable[[float], Pose | None]

_TALK_KNOTS = (0.25, 0.9)
"""Poses taken per second while two figures talk: slowest and fastest."""
_SCUFFLE_KNOTS = (5.0, 8.0)


class Sway:
    """Smooth random movement whose speed changes with time and whose poses do not.

    Random poses lie at the whole numbers of a phase; the phase runs slowly while figures talk and fast while
    they scuffle. So each single pose is as likely in a talk as in a scuffle, and only motion tells them apart.
    """

    def __init__(self, rng: np.random.Generator, channels: int, phase: Tempo) -> None:
        self._knots: NDArray[np.float64] = rng.uniform(-1.0, 1.0, (64, channels))
        self._phase = phase

    def __call__(self, time_seconds: float) -> list[float]:
        """Return one number of -1 to 1 per channel."""
        phase = self._phase(time_seconds)
        knot = math.floor(phase)
        weight = _smooth(phase - knot)
        before, after = self._knots[knot % 64], self._knots[(knot + 1) % 64]
        return [float(value) for value in before + (after - before) * weight]


@dataclass(frozen=True, slots=True)
class Tempo:
    """A phase that runs at `slow` knots a second, and at `fast` between two times."""

    slow: float
    fast: float
    fast_from_seconds: float
    fast_until_seconds: float

    def __call__(self, time_seconds: float) -> float:
        """Return the phase at a time."""
        quick = min(max(time_seconds - self.fast_from_seconds, 0.0), self.fast_until_seconds - self.fast_from_seconds)
        return self.slow * time_seconds + (self.fast - self.slow) * quick


@dataclass(frozen=True, slots=True)
class Actor:
    """A figure of an act."""

    looks: Looks
    pose_at: PoseAt
    """The pose at a time of the scene in seconds; None while the figure is not there."""


@dataclass(frozen=True, slots=True)
class Act:
    """Some seconds of the scene's life."""

    start_seconds: float
    gone_seconds: float
    """When the last figure of the act has left."""
    next_seconds: float
    """When the next act begins."""
    actors: tuple[Actor, ...]
    event: tuple[float, float] | None
    """Start and end of the scuffle in seconds, or None."""


def write_acts(seed: int, style: Style, event_share: float) -> Iterator[Act]:
    """Yield the acts of a scene one after another, without end.

    Args:
        seed: of the scene.
        style: the view decides where the picture ends.
        event_share: share of the acts that hold a scuffle, 0 to 1.
    """
    start, number = 0.0, 0
    while True:
        act = _write_act(np.random.default_rng((seed, 1, number)), style, event_share, start_seconds=start)
        yield act
        start, number = act.next_seconds, number + 1


def _write_act(rng: np.random.Generator, style: Style, event_share: float, *, start_seconds: float) -> Act:
    meet = start_seconds + rng.uniform(3.0, 5.0)
    scuffle_start = meet + rng.uniform(2.0, 6.0)
    scuffle_end = scuffle_start + rng.uniform(3.0, 6.0)
    eventful = bool(rng.random() < event_share)
    part = (scuffle_end if eventful else scuffle_start) + rng.uniform(1.5, 4.5)
    gone = part + rng.uniform(4.0, 6.0)
    tempo = Tempo(
        slow=float(np.exp(rng.uniform(*np.log(_TALK_KNOTS)))),
        fast=float(rng.uniform(*_SCUFFLE_KNOTS)),
        fast_from_seconds=scuffle_start,
        fast_until_seconds=scuffle_end if eventful else scuffle_start,
    )
    times = (start_seconds, meet, part, gone)
    actors = [*_pair(rng, style, times, tempo), *_passers_by(rng, style, start_seconds, gone)]
    return Act(
        start_seconds=start_seconds,
        gone_seconds=gone + 12.0,
        next_seconds=float(part + rng.uniform(1.0, 5.0)),
        actors=tuple(actors),
        event=(float(scuffle_start), float(scuffle_end)) if eventful else None,
    )


def _pair(
    rng: np.random.Generator, style: Style, times: tuple[float, float, float, float], tempo: Tempo
) -> Iterator[Actor]:
    """Two figures that come, stand together from the second to the third time, and go."""
    depth = float(rng.uniform(0.15, 0.9))
    centre = float(rng.uniform(-0.7, 0.7)) * style.view.half_width_metres(depth)
    shared = Sway(rng, 2, tempo)
    same_side = rng.random() < 0.4
    come = float(rng.choice([-1.0, 1.0]))
    for side in (-1.0, 1.0):
        looks = draw_looks(rng, grey=style.grey)
        own = Sway(rng, 7, tempo)
        entry = (come if same_side else side) * (style.view.half_width_metres(depth) + 0.6)
        leave = float(rng.choice([-1.0, 1.0])) * (style.view.half_width_metres(depth) + 0.6)
        yield Actor(looks, _meeting(times, (entry, centre, leave), side, depth, shared=shared, own=own))


def _meeting(
    times: tuple[float, float, float, float],
    places: tuple[float, float, float],
    side: float,
    depth: float,
    *,
    shared: Sway,
    own: Sway,
) -> PoseAt:
    start, meet, part, gone = times
    entry, centre, leave = places

    def pose_at(time: float) -> Pose | None:
        if not start <= time <= gone:
            return None
        together = _smooth((time - meet + 0.9) / 0.9) * _smooth((part + 0.9 - time) / 0.9)
        turn, gap = shared(time)
        step_x, step_depth, lean, left, right, crouch, legs = own(time)
        angle = 0.9 * turn
        reach = side * (0.36 + 0.1 * gap)
        x, speed = _walk(time, (start, meet, part, gone), (entry, centre + reach * 0.6, centre + reach * 0.6, leave))
        gait = _gait(x, speed)
        talking = Pose(
            x_metres=centre + reach * math.cos(angle) + 0.14 * step_x,
            depth=depth + (reach * math.sin(angle) + 0.12 * step_depth) * 0.12,
            facing=-side,
            thigh=0.3 * legs,
            left_arm=_raised(left),
            right_arm=_raised(right),
            lean=-side * 0.08 + 0.2 * lean,
            crouch=0.35 * (crouch + 1.0) / 2,
        )
        return _blend(_walking(x, depth, speed, gait), talking, together)

    return pose_at


def _passers_by(rng: np.random.Generator, style: Style, start_seconds: float, gone_seconds: float) -> Iterator[Actor]:
    """Figures that walk or run through, alone or several in a line, and now and then one that waves."""
    for _ in range(int(rng.integers(0, 4))):
        kind = rng.random()
        begin = float(rng.uniform(start_seconds, gone_seconds))
        depth = float(rng.uniform(0.0, 1.0))
        if kind < 0.15:
            yield _waver(rng, style, begin, depth)
            continue
        running = kind < 0.42
        speed = float(rng.choice([-1.0, 1.0]) * (rng.uniform(2.6, 4.2) if running else rng.uniform(0.9, 1.7)))
        count = int(rng.integers(2, 4)) if rng.random() < (0.7 if running else 0.4) else 1
        spacing = float(rng.uniform(0.45, 1.2))
        for place in range(count):
            yield _crosser(rng, style, begin, depth, speed=speed, behind_metres=place * spacing)


def _crosser(
    rng: np.random.Generator, style: Style, begin_seconds: float, depth: float, *, speed: float, behind_metres: float
) -> Actor:
    edge = style.view.half_width_metres(depth) + 0.6
    depth_end = depth + float(rng.uniform(-0.25, 0.25))
    lean = float(rng.uniform(0.02, 0.05)) * speed

    def pose_at(time: float) -> Pose | None:
        travelled = abs(speed) * (time - begin_seconds) - behind_metres
        share = travelled / (2 * edge)
        if not 0.0 <= share <= 1.0:
            return None
        x = math.copysign(travelled - edge, speed) if speed > 0 else edge - travelled
        here = depth + (depth_end - depth) * share
        pose = _walking(x, min(max(here, 0.0), 1.0), speed, _gait(x, speed))
        return _blend(pose, _leaning(pose, lean), 1.0)

    return Actor(draw_looks(rng, grey=style.grey), pose_at)


def _waver(rng: np.random.Generator, style: Style, begin_seconds: float, depth: float) -> Actor:
    """A figure alone that comes, waves both arms fast on one spot and goes: quick movement, and no event."""
    edge = style.view.half_width_metres(depth) + 0.6
    side, spot = float(rng.choice([-1.0, 1.0])), float(rng.uniform(-0.8, 0.8)) * edge
    reach = abs(side * edge - spot) / 1.4
    times = (begin_seconds, begin_seconds + reach, begin_seconds + reach + float(rng.uniform(2.0, 5.0)))
    ends = (*times, times[2] + reach)
    arms = Sway(rng, 2, Tempo(float(rng.uniform(3.0, 7.0)), 0.0, 0.0, 0.0))

    def pose_at(time: float) -> Pose | None:
        if not ends[0] <= time <= ends[3]:
            return None
        x, speed = _walk(time, ends, (side * edge, spot, spot, side * edge))
        left, right = arms(time)
        waving = Pose(x, depth, 0.2 * side, 0.05, 1.4 + 1.2 * left, 1.4 + 1.2 * right, 0.0, 0.0)
        together = _smooth((time - ends[1] + 0.4) / 0.4) * _smooth((ends[2] + 0.4 - time) / 0.4)
        return _blend(_walking(x, depth, speed, _gait(x, speed)), waving, together)

    return Actor(draw_looks(rng, grey=style.grey), pose_at)


def _walk(
    time: float, times: tuple[float, float, float, float], places: tuple[float, float, float, float]
) -> tuple[float, float]:
    """Return place and speed of a walk that starts, stops, goes on and leaves at the four times."""
    x = float(np.interp(time, times, places))
    leg = 0 if time < times[1] else 1 if time < times[2] else 2
    return x, (places[leg + 1] - places[leg]) / max(times[leg + 1] - times[leg], 1e-6)


def _walking(x: float, depth: float, speed: float, gait: float) -> Pose:
    swing = min(0.2 + 0.2 * abs(speed), 0.75) if abs(speed) > 0.05 else 0.0
    hurry = min(max(abs(speed) - 2.0, 0.0), 1.0)
    return Pose(
        x_metres=x,
        depth=depth,
        facing=math.copysign(1.0, speed),
        thigh=swing * math.sin(gait),
        left_arm=-0.8 * swing * math.sin(gait) + 0.5 * hurry,
        right_arm=0.8 * swing * math.sin(gait) + 0.5 * hurry,
        lean=0.02 * speed,
        crouch=0.1 * abs(math.sin(gait)) * swing,
    )


def _leaning(pose: Pose, lean: float) -> Pose:
    return Pose(pose.x_metres, pose.depth, pose.facing, pose.thigh, pose.left_arm, pose.right_arm, lean, pose.crouch)


def _gait(x_metres: float, speed: float) -> float:
    """Return the phase of the steps: one cycle in about 1.4 m of walking, longer when running."""
    return 2.0 * math.pi * x_metres / (1.2 + 0.25 * abs(speed))


def _raised(channel: float) -> float:
    """Turn -1..1 into an arm's angle: mostly low, sometimes raised."""
    share = (channel + 1.0) / 2.0
    return -0.2 + 2.0 * share * share


def _blend(first: Pose, second: Pose, weight: float) -> Pose:
    if weight <= 0.0:
        return first

    def mix(one: float, other: float) -> float:
        return one + (other - one) * weight

    return Pose(
        x_metres=mix(first.x_metres, second.x_metres),
        depth=mix(first.depth, second.depth),
        facing=mix(first.facing, second.facing),
        thigh=mix(first.thigh, second.thigh),
        left_arm=mix(first.left_arm, second.left_arm),
        right_arm=mix(first.right_arm, second.right_arm),
        lean=mix(first.lean, second.lean),
        crouch=mix(first.crouch, second.crouch),
    )


def _smooth(share: float) -> float:
    """Return the smoothstep of a share held within 0 and 1."""
    clipped = min(max(share, 0.0), 1.0)
    return clipped * clipped * (3.0 - 2.0 * clipped)
