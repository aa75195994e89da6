"""Labelled clips: a folder per label or a CSV in, checked clips with their samples out.

Decoding and sampling go through the live path's own reader and sampler, so that training sees the pixels
that a camera's windows will hold. Decoded samples are kept on disk under the content of their file.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from models.entries import ClipEntry, list_entries
from models.progress import progress_bar
from models.recipe import Recipe
from monitor.capture.sampler import Sampler
from monitor.capture.source import read_video
from monitor.errors import InputInvalid, MonitorError, Problem
from monitor.whole_file import whole_file

_CACHE_FORMAT = 1
LONGEST_CLIP_WINDOWS = 3
"""Of a file without times that is longer, the label is known to hold somewhere, not throughout."""
_FULL_CONTEXT = 0.75
"""Share of a sample's context that a file must have run for its first sample to count."""


class DatasetInvalid(InputInvalid):
    """A data set cannot be trained on; holds every problem found."""

    def __init__(self, what: Path | str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(what, f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}{lines}")


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip whose file was read: its samples on the grid."""

    entry: ClipEntry
    pictures: NDArray[np.uint8]
    """(S, K, H, W, 3) uint8, on disk: the samples of the whole file."""
    slots: NDArray[np.int64]
    """(T,) index into `pictures` for each slot of the clip in turn, -1 for a gap."""
    key: str
    """Of the file's content and the sampling: equal keys, equal `pictures`."""
    whole: bool = False
    """True for a recording that is labelled as a whole: the label holds somewhere in it. False: it holds throughout."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(T,) bool, False where the slot is a gap."""
        present: NDArray[np.bool_] = self.slots >= 0
        return present


@dataclass(frozen=True, slots=True)
class Dataset:
    """Checked clips and their labels."""

    path: Path
    labels: tuple[str, ...]
    """The background first, then the others by name."""
    clips: tuple[Clip, ...]

    @property
    def targets(self) -> NDArray[np.int64]:
        """(C,) index of each clip's label."""
        return np.array([self.labels.index(clip.entry.label) for clip in self.clips], np.int64)

    @property
    def groups(self) -> NDArray[np.str_]:
        """(C,) group of each clip."""
        return np.array([clip.entry.group for clip in self.clips], np.str_)

    def subset(self, indices: Iterable[int]) -> Dataset:
        """Return the data set of some clips, with the same labels."""
        return Dataset(self.path, self.labels, tuple(self.clips[index] for index in indices))


def read_dataset(
    path: Path, recipe: Recipe, *, cache: Path, console: Console, skip_bad: bool = False, prefix: str = ""
) -> Dataset:
    """Read a data set, check and sample every file.

    Args:
        path: a folder with a folder per label, or with `clips.csv`; or a CSV file.
        recipe: says how samples are taken and which label is the background.
        cache: folder for decoded samples.
        console: shows the progress.
        skip_bad: leave out what is wrong with single files and go on.
        prefix: take only files whose name begins with it.

    Raises:
        DatasetInvalid: with every problem found, in one go.
    """
    problems: list[Problem] = []
    entries = [entry for entry in list_entries(path, problems) if entry.path.name.startswith(prefix)]
    clips = _sample_entries(entries, recipe, cache=cache, console=console, problems=problems)
    if skip_bad:
        for problem in problems:
            console.print(f"[yellow]skipped[/] {problem}", highlight=False)
        problems = []
    problems += _check_labels(clips if skip_bad else entries, recipe)
    if problems:
        raise DatasetInvalid(path, problems)
    others = sorted({clip.entry.label for clip in clips} - {recipe.background})
    return Dataset(path, (recipe.background, *others), tuple(clips))


def _sample_entries(
    entries: Sequence[ClipEntry], recipe: Recipe, *, cache: Path, console: Console, problems: list[Problem]
) -> list[Clip]:
    cache.mkdir(parents=True, exist_ok=True)
    clips: list[Clip] = []
    seen: dict[str, list[ClipEntry]] = defaultdict(list)
    with progress_bar(console) as progress:
        for entry in progress.track(entries, description="Reading clips"):
            try:
                clip = _sample_entry(entry, recipe, cache)
            except MonitorError as exc:
                problems.append(Problem(entry.name, str(exc).removeprefix(f"{entry.path}: ")))
                continue
            problem = _twin_problem(entry, seen[clip.key])
            if problem is not None:
                problems.append(problem)
                continue
            seen[clip.key].append(entry)
            clips.append(clip)
    return clips


def _twin_problem(entry: ClipEntry, twins: Sequence[ClipEntry]) -> Problem | None:
    """Say what is wrong with an entry whose file has the same content as the files of others, if anything is."""
    for twin in twins:
        end, twins_end = entry.end_seconds or np.inf, twin.end_seconds or np.inf
        if entry.start_seconds < twins_end and twin.start_seconds < end:
            labels = "" if entry.label == twin.label else f", labelled {twin.label!r} there and {entry.label!r} here"
            return Problem(entry.name, f"has the same content as {twin.name}{labels}")
        if entry.group != twin.group:
            return Problem(
                entry.name, f"is of the same recording as {twin.name}, but of group {entry.group!r}, not {twin.group!r}"
            )
    return None


def _sample_entry(entry: ClipEntry, recipe: Recipe, cache: Path) -> Clip:
    try:
        with entry.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise InputInvalid(entry.path, f"cannot be read: {exc.strerror or exc}") from exc
    key = hashlib.sha256(f"{_CACHE_FORMAT} {content} {_sampling_key(recipe)}".encode()).hexdigest()[:32]
    if not (cache / f"{key}.slots.npy").is_file():
        _decode(entry.path, recipe, cache / key)
    taken: NDArray[np.int64] = np.load(cache / f"{key}.slots.npy")
    pictures: NDArray[np.uint8] = np.load(cache / f"{key}.npy", mmap_mode="r")
    slots = _slots_of(taken, entry, recipe)
    present = int((slots >= 0).sum())
    if present < max(1, recipe.window_slots // 2):
        wanted = f"a window has {recipe.window_slots} in {recipe.window_slots / recipe.sample_fps:g} s"
        raise InputInvalid(entry.path, f"too short: {present} samples, and {wanted}")
    longest = LONGEST_CLIP_WINDOWS * recipe.window_slots
    return Clip(entry, pictures, slots, key, whole=not entry.has_times and len(slots) > longest)


def grid_offset_seconds(recipe: Recipe) -> float:
    """Return what is added to a file's times so that a slot begins when its first full sample can be had.

    The first sample of a file lacks the pictures before it; without the offset a whole slot would go with it.
    """
    context_seconds = _context_seconds(recipe)
    return float(np.ceil(context_seconds * recipe.sample_fps) / recipe.sample_fps - context_seconds) + 1e-4


def _context_seconds(recipe: Recipe) -> float:
    return recipe.sample.context_spacing_seconds * (recipe.sample.pictures - 1)


def _sampling_key(recipe: Recipe) -> str:
    return json.dumps({"fps": recipe.sample_fps, **recipe.sample.model_dump()}, sort_keys=True)


def _decode(path: Path, recipe: Recipe, stem: Path) -> None:
    """Sample one file into `stem.npy` (S, K, H, W, 3) and `stem.slots.npy` (S,), each written whole or not at all.

    A recording of an hour holds gigabytes of samples: they go to disk as they come.
    """
    sampler = Sampler(path.name, sample_fps=recipe.sample_fps, shape=recipe.sample)
    offset_seconds = grid_offset_seconds(recipe)
    slots: list[int] = []
    shape = recipe.sample
    axes = (shape.pictures, shape.height_pixels, shape.width_pixels, 3)
    with whole_file(stem.with_name(f"{stem.name}.npy")) as file:
        _write_header(file, (0, *axes))
        for frame, seconds in read_video(path):
            time = seconds + offset_seconds
            sample = sampler.push(frame, time_seconds=time, received_seconds=time)
            if sample is not None and seconds >= _FULL_CONTEXT * _context_seconds(recipe):
                file.write(sample.pictures.tobytes())
                slots.append(sample.slot)
        if not slots:
            raise InputInvalid(path, "too short: holds no full sample")
        file.seek(0)
        _write_header(file, (len(slots), *axes))
    with whole_file(stem.with_name(f"{stem.name}.slots.npy")) as file:
        np.save(file, np.array(slots, np.int64))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """Write the head of an .npy file of uint8; numpy leaves room in it for the first axis to grow."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _slots_of(taken: NDArray[np.int64], entry: ClipEntry, recipe: Recipe) -> NDArray[np.int64]:
    """Return for each slot of the clip where its sample lies among those taken, -1 for a gap."""
    offset_seconds = grid_offset_seconds(recipe)
    first, last = int(taken[0]), int(taken[-1])
    if entry.start_seconds > 0.0:
        first = max(first, int(np.ceil((entry.start_seconds + offset_seconds) * recipe.sample_fps)))
    if entry.end_seconds is not None:
        last = min(last, int(np.floor((entry.end_seconds + offset_seconds) * recipe.sample_fps)) - 1)
    places = {int(slot): place for place, slot in enumerate(taken)}
    return np.array([places.get(slot, -1) for slot in range(first, last + 1)], np.int64)


def _check_labels(clips: Sequence[Clip] | Sequence[ClipEntry], recipe: Recipe) -> list[Problem]:
    counts: dict[str, int] = defaultdict(int)
    for clip in clips:
        counts[clip.entry.label if isinstance(clip, Clip) else clip.label] += 1
    if not counts:
        return [Problem("labels", "there are no clips: expected a folder per label with videos, or clips.csv")]
    problems = []
    if recipe.background not in counts:
        reason = f"no clip of the background label {recipe.background!r}; found {', '.join(sorted(counts))}"
        problems.append(Problem("labels", reason))
    if len(counts) < 2:
        problems.append(Problem("labels", f"only one label, {next(iter(counts))!r}: there is nothing to tell apart"))
    return problems
