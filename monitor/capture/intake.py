"""Packets of one camera in; dated frames and the samples that they complete, out. Reads no clock.

Between the two stand the gate, the decoder, the stream's clock and the sampler:

    awake      every packet is decoded, save pictures that no sample needs and no other picture refers to
    idle       of each group that is looked at the keyframe is decoded, and of some what a sample's motion context
               needs after it; the others are held back until the next look finds the picture unchanged
    waking     what was held back is decoded first, so the samples before the wake-up come too, in order

Packets are held back by reference, and no further than the keyframe that was looked at last: there a gate goes back to,
also one that a keyframe wakes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from av.video.frame import PictureType

from monitor.bundle import SampleShape
from monitor.capture.arrival import Arrived, seconds_of_ticks
from monitor.capture.gate import LOOK_PIXELS, MOST_LOOK_SECONDS, Gate
from monitor.capture.sampler import Sampler, StreamClock
from monitor.capture.scaler import Scaler, Zone
from monitor.capture.source import Decoded, Source
from monitor.config import CameraConfig, CaptureConfig
from monitor.errors import SourceFailed
from monitor.records import GateState, Sample, WakeReason

MOST_HELD_BYTES = 16_000_000
"""A group of pictures that is larger is of no use to a gate."""
FIRST_GUESS_SECONDS = 0.04
INTERVAL_WEIGHT = 0.1
LONGEST_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One decoded frame, dated."""

    pts: int | None
    """The stream's own timestamp, in its ticks."""
    time_seconds: float
    """When it was seen, host clock."""
    camera_seconds: float | None
    """When the camera saw it, on the camera's clock."""
    sample: Sample | None
    """What it completes."""


@dataclass(slots=True)
class IntakeCounts:
    """What happened since the last look at these."""

    decode_errors: int = 0
    """Packets that the decoder refused."""
    frames_skipped: int = 0
    """Frames that were not decoded, since nothing needs them."""
    woken: Counter[WakeReason] = field(default_factory=Counter)
    """How often an idle camera woke."""


@dataclass(slots=True)
class _Look:
    """An idle camera's keyframe, and the frames behind it until a sample is complete."""

    begin: int
    """Place of the keyframe's packet among those held back."""
    samples: bool
    """Whether a sample is to come of it."""
    judged: bool = False
    """Whether the keyframe has come out of the decoder, and showed nothing new."""
    first_seconds: float | None = None
    last_seconds: float = 0.0


@dataclass(slots=True)
class _Group:
    """What is held back: the packets since the keyframe looked at last."""

    packets: list[Arrived] = field(default_factory=list)
    bytes: int = 0
    fed: int = 0
    """How many of them, from the first on, the decoder has had."""

    @property
    def is_large(self) -> bool:
        """Whether a group of pictures more might be too much."""
        return 2 * self.bytes > MOST_HELD_BYTES

    def append(self, arrived: Arrived) -> None:
        self.packets.append(arrived)
        self.bytes += arrived.packet.size

    def drop(self, before: int) -> int:
        """Let go of the packets before a place; return how many of them the decoder has not had."""
        missed = max(0, before - self.fed)
        del self.packets[:before]
        self.bytes = sum(arrived.packet.size for arrived in self.packets)
        self.fed = len(self.packets)
        return missed

    def take(self) -> list[Arrived]:
        """Return what is held back and hold nothing."""
        packets, self.packets = self.packets, []
        self.bytes = self.fed = 0
        return packets


class Intake:
    """What happens to the packets of one camera. Used by one thread; outlives connections.

    Args:
        camera: whose they are.
        sample_fps: slots of the sampling grid a second.
        shape: pictures of a sample, their spacing and size.
        settings: whether there is a gate, and its quiet time.
    """

    def __init__(self, camera: CameraConfig, *, sample_fps: float, shape: SampleShape, settings: CaptureConfig) -> None:
        self._shape = shape
        self.clock = StreamClock()
        """Dates the frames; whoever holds packets back before they come here may tell it what it learns."""
        self._sampler = Sampler(camera.id, sample_fps=sample_fps, shape=shape, zone=camera.zone)
        gated = (camera.gate or settings.gate) == "auto"
        self._gate = Gate(quiet_seconds=settings.gate_quiet_seconds) if gated else None
        self._small = Scaler(*LOOK_PIXELS, Zone(camera.zone) if camera.zone else None, layout="gray")
        self._source: Source | None = None
        self._group = _Group()
        self._look: _Look | None = None
        self._shown = (0.0, 0.0)
        """Timestamp and arrival of the newest frame that was shown."""
        self._last_slot: int | None = None
        self._gap = False
        """Whether the gate has left out frames since the last sample."""
        self._looked_seconds = self._sampled_seconds = 0.0
        """When the last look at an idle camera, and the last sample, arrived."""
        self._stamp: float | None = None
        self._received: float | None = None
        self.stream_seconds = 0.0
        """How far the stream is, by which the gate counts: packets that are late, since the network or we are slow, are
        no further apart for that. By their arrival where their timestamps say nothing that can be believed."""
        self._interval = FIRST_GUESS_SECONDS
        self._counts = IntakeCounts()

    @property
    def gate_state(self) -> GateState:
        """Where the gate stands."""
        return GateState.OFF if self._gate is None else self._gate.state

    @property
    def rests(self) -> bool:
        """Whether the next packets are only kept, as far as can be told now."""
        return self._look is None and self._gate is not None and self._gate.state is GateState.IDLE

    @property
    def next_slot_seconds(self) -> float:
        """When the slot begins that the next sample is for, host clock; -inf before the first."""
        return self._sampler.next_slot_seconds

    @property
    def frame_seconds(self) -> float:
        """Mean time from one picture to the next, of those less than LONGEST_INTERVAL_SECONDS apart."""
        return self._interval

    def take_counts(self) -> IntakeCounts:
        """Return what was counted and begin anew."""
        counts, self._counts = self._counts, IntakeCounts()
        return counts

    def begin(self, source: Source) -> None:
        """Take packets of a new connection from here on; the grid of samples and the time go on."""
        self._source = source
        self.clock.restart()
        self._sampler.restart()
        if self._gate is not None:
            self._gate.restart()
        self._group, self._look = _Group(), None
        self._last_slot, self._gap = None, False
        self._stamp, self._received, self.stream_seconds = None, None, 0.0

    def take(self, arrived: Arrived) -> Iterator[Seen]:
        """Yield what a packet brings: nothing, its own frame, or all that was held back before it."""
        packet = arrived.packet
        if packet.size:
            self._follow(arrived)
        if self._gate is None:
            yield from self._feed([arrived])
            return
        if not packet.size:  # brings out what the decoder holds
            yield from self._catch_up()
            yield from self._feed([arrived])
            return
        was_idle = self._gate.state is GateState.IDLE
        woken = self._gate.packet(
            size_bytes=packet.size, is_keyframe=packet.is_keyframe, seconds=self.stream_seconds
        ) or self._too_large(packet.size)
        if self._gate.state is GateState.IDLE:
            yield from self._idle(arrived)
            return
        if was_idle and woken is not None:
            self._counts.woken[woken] += 1
            yield from self._catch_up()
        yield from self._awake(arrived)

    def _follow(self, arrived: Arrived) -> None:
        """Let the stream's own time go on to a packet, and keep the mean time from one picture to the next."""
        ticks = arrived.packet.dts
        stamp = arrived.seconds if ticks is None else seconds_of_ticks(ticks, arrived.packet.time_base)
        step = 0.0 if stamp is None or self._stamp is None else stamp - self._stamp
        waited = 0.0 if self._received is None else max(0.0, arrived.received_seconds - self._received)
        self._stamp, self._received = stamp, arrived.received_seconds
        if 0.0 < step < LONGEST_INTERVAL_SECONDS:
            self._interval += INTERVAL_WEIGHT * (step - self._interval)
            self.stream_seconds += step
        else:
            self.stream_seconds += waited

    def _too_large(self, more_bytes: int) -> WakeReason | None:
        if self._gate is None or self._group.bytes + more_bytes <= MOST_HELD_BYTES:
            return None
        return self._gate.refuse()

    # --- awake ---------------------------------------------------------------------------------------------------

    def _awake(self, arrived: Arrived) -> Iterator[Seen]:
        gate, source = self._opened()
        looks = arrived.packet.is_keyframe and gate.wants_look(self.stream_seconds)
        expected = self.clock.expected(arrived.seconds, arrived.received_seconds)
        wanted = looks or self._sampler.wants(expected, frame_seconds=self._interval)
        if gate.all_intra and not wanted:
            self.clock.heard(arrived.seconds, arrived.received_seconds)
            self._counts.frames_skipped += 1
            return
        source.skip_unreferenced(not wanted)
        errors, decoded = self._counts.decode_errors, self._decode(arrived)
        if not decoded and not wanted and errors == self._counts.decode_errors:
            self._counts.frames_skipped += 1
        for one in decoded:
            if one.of_keyframe and gate.wants_look(self.stream_seconds):
                self._judge(one)
            if self._can_date(one):
                yield self._show(one)

    # --- idle ----------------------------------------------------------------------------------------------------

    def _idle(self, arrived: Arrived) -> Iterator[Seen]:
        gate, source = self._opened()
        if arrived.packet.is_keyframe and (gate.wants_look(self.stream_seconds) or self._group.is_large):
            if not self._group.fed:  # the first look since it fell asleep, or the one before it showed nothing
                source.renew()
            self._look = self._begin_look(arrived.received_seconds)
        self._group.append(arrived)
        look = self._look
        if look is None:
            self.clock.heard(arrived.seconds, arrived.received_seconds)
            return
        source.skip_unreferenced(False)
        if look.judged:
            self._group.fed += 1
        for one in self._decode(arrived):
            yield from self._look_at(look, one)
            if self._look is not look:
                return

    def _begin_look(self, seconds: float) -> _Look:
        """Look at a keyframe, and make a sample of it where one of the next look would come too late.

        A look has the keyframe alone decoded, a sample the frames of its motion context too, and then the model has it.
        """
        since_look, since_sample = seconds - self._looked_seconds, seconds - self._sampled_seconds
        self._looked_seconds = seconds
        late = since_sample + since_look > MOST_LOOK_SECONDS
        was_set_back = since_look < 0.0 or since_sample < 0.0
        return _Look(begin=len(self._group.packets), samples=late or was_set_back)

    def _look_at(self, look: _Look, one: Decoded) -> Iterator[Seen]:
        """Judge a keyframe by itself; show it, and what follows it, where it shows nothing new."""
        if not look.judged:
            if not one.of_keyframe:  # the decoder held it back from the group before
                return
            woken = self._judge(one)
            if woken is not None:
                self._counts.woken[woken] += 1
                yield from self._catch_up()
                return
            look.judged = True
            missed = self._group.drop(look.begin)
            self._counts.frames_skipped += missed
            self._gap |= missed > 0
            self._sampler.restart()
        seconds = self._date(one)
        completes = look.samples and self._completes(look, seconds)
        if completes or not look.samples:
            self._look = None
        if completes:
            yield self._sampled(one, seconds, idle=True)
        else:
            self._sampler.remember(one.frame, time_seconds=seconds, small=look.samples)
            yield Seen(one.frame.pts, seconds, one.camera_seconds, None)

    def _completes(self, look: _Look, seconds: float) -> bool:
        """Whether the frame at hand has the past that a sample shows, as near as this stream has one."""
        if look.first_seconds is None:
            look.first_seconds = seconds
        step, look.last_seconds = seconds - look.last_seconds, seconds
        reach = (self._shape.pictures - 1) * self._shape.context_spacing_seconds
        if reach == 0.0:
            return True
        return seconds > look.first_seconds and seconds - look.first_seconds >= reach - step / 2

    # --- waking --------------------------------------------------------------------------------------------------

    def _catch_up(self) -> Iterator[Seen]:
        """Decode what was held back, in order."""
        _, source = self._opened()
        source.skip_unreferenced(False)
        fed, look = self._group.fed, self._look
        held, self._look = self._group.take(), None
        if look is None or look.judged:
            yield from self._feed(held[fed:])
            return
        source.flush()  # the decoder is ahead, in the next group: it has to go back
        yield from self._feed(held, after=self._shown)

    def _feed(self, packets: list[Arrived], *, after: tuple[float, float] | None = None) -> Iterator[Seen]:
        """Decode packets in a row.

        Args:
            packets: in the order of the stream.
            after: timestamp and arrival of a frame; only those behind it are shown.
        """
        for arrived in packets:
            for one in self._decode(arrived):
                if self._can_date(one) and (after is None or _is_behind(one, after)):
                    yield self._show(one)

    # --- frames --------------------------------------------------------------------------------------------------

    def _opened(self) -> tuple[Gate, Source]:
        assert self._gate is not None  # noqa: S101 - asked where there is one
        assert self._source is not None  # noqa: S101 - packets come from it
        return self._gate, self._source

    def _decode(self, arrived: Arrived) -> list[Decoded]:
        assert self._source is not None  # noqa: S101 - packets come from it
        try:
            return self._source.decode(arrived)
        except SourceFailed:  # one damaged packet; the next may be well
            self._counts.decode_errors += 1
            return []

    def _judge(self, one: Decoded) -> WakeReason | None:
        gate, _ = self._opened()
        is_intra = one.frame.pict_type in (PictureType.I, PictureType.NONE)
        return gate.look(self._small.scaled(one.frame), is_intra=is_intra, seconds=self.stream_seconds)

    def _can_date(self, one: Decoded) -> bool:
        """Whether it is known when a frame was seen; of the first one after a connection it may not be."""
        return one.pts_seconds is not None or not self.clock.knows_delay

    def _show(self, one: Decoded) -> Seen:
        return self._sampled(one, self._date(one), idle=False)

    def _date(self, one: Decoded) -> float:
        self._shown = (one.pts_seconds or 0.0, one.received_seconds)
        return self.clock.time_of(one.pts_seconds, one.received_seconds)

    def _sampled(self, one: Decoded, seconds: float, *, idle: bool) -> Seen:
        sample = self._sampler.push(
            one.frame, time_seconds=seconds, received_seconds=one.received_seconds, camera_seconds=one.camera_seconds
        )
        if sample is not None:
            self._sampled_seconds = sample.received_seconds
            gap = sample.slot - self._last_slot - 1 if self._gap and self._last_slot is not None else 0
            self._last_slot, self._gap = sample.slot, False
            if idle or gap:
                sample = replace(sample, idle=idle, idle_slots=max(0, gap))
        return Seen(one.frame.pts, seconds, one.camera_seconds, sample)


def _is_behind(one: Decoded, frame: tuple[float, float]) -> bool:
    """Whether a frame comes after another, told by timestamp and arrival."""
    return one.received_seconds > frame[1] if one.pts_seconds is None else one.pts_seconds > frame[0]
