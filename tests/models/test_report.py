"""The parts of a training's report."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.axes import Axes

from models.checkpoints import EpochLoss
from models.dataset import Clip
from models.entries import ClipEntry
from models.metrics import roc_auc
from models.report.figures import confusion_figure, curves_figure, roc_points
from models.report.strips import MOST_FRAMES, choose_clips, draw_strip
from models.verdicts import JudgedClip


def judged(
    target: int, *probabilities: float, slots: int = 4, taken: int = 4, start_seconds: float = 0.0
) -> JudgedClip:
    pictures = np.zeros((taken, 2, 9, 16, 3), np.uint8) + 200
    held = np.full(slots, -1)
    held[:taken] = np.arange(taken)
    attention = np.linspace(0.0, 1.0, slots) * (held >= 0)
    entry = ClipEntry(Path("fight/x.mp4"), "fight", "g", start_seconds)
    clip = Clip(entry, pictures, held[:taken], "key")
    said = np.array(probabilities, np.float32)
    return JudgedClip(clip, target, said, np.arange(slots), attention / attention.sum())


def test_the_curve_s_area_is_the_auc() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(200) < 0.3
    scores = np.round(rng.random(200) + 0.3 * truth, 1)  # many are equal
    others, events = roc_points(scores, truth)
    assert (others[0], events[0], others[-1], events[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert np.trapezoid(events, others) == pytest.approx(roc_auc(scores, truth))


def test_mistakes_stand_beside_the_diagonal() -> None:
    clips = [judged(0, 0.9, 0.1), judged(1, 0.8, 0.2), judged(1, 0.3, 0.7)]
    [axes] = confusion_figure(clips, ("normal", "fight")).axes
    assert [text.get_text() for text in axes.texts] == ["1\n100%", "0\n0%", "1\n50%", "1\n50%"]


def test_the_surest_are_shown_and_labels_take_turns() -> None:
    clips = [judged(0, 0.9, 0.1), judged(0, 0.8, 0.2), judged(0, 0.7, 0.3), judged(1, 0.4, 0.6), judged(1, 0.6, 0.4)]
    right = choose_clips(clips, right=True, most=3)
    assert [(clip.target, round(float(clip.probabilities.max()), 1)) for clip in right] == [
        (0, 0.9),
        (1, 0.6),
        (0, 0.8),
    ]
    assert choose_clips(clips, right=False, most=3) == [clips[4]]
    assert choose_clips([], right=True, most=3) == []


def test_a_strip_of_a_long_window_shows_the_most_attended_frames() -> None:
    clip = judged(1, 0.2, 0.8, slots=40, taken=40, start_seconds=2.0)
    drawn = draw_strip(clip, sample_fps=4.0)
    assert drawn.pixels.shape[1] == MOST_FRAMES * 218 + 10
    assert clip.most_attended_seconds(4.0) == 2.0 + 39 / 4.0
    assert cv2.imdecode(np.frombuffer(drawn.png(), np.uint8), cv2.IMREAD_COLOR).shape == drawn.pixels.shape


def test_slots_beyond_the_clip_s_end_are_drawn_as_gaps() -> None:
    whole, short = (draw_strip(judged(1, 0.2, 0.8, taken=taken), 4.0).pixels for taken in (4, 2))
    assert whole.shape == short.shape
    assert (short == 200).sum() < (whole == 200).sum()


def test_each_stage_has_its_own_curves() -> None:
    history = [EpochLoss("head", 1, 0.9, 0.8), EpochLoss("head", 2, 0.7, 0.9), EpochLoss("whole", 1, 0.5, 0.6)]
    figure = curves_figure(history)
    assert [axes.get_title() for axes in figure.axes] == ["Head alone, on the frozen backbone", "Head and backbone"]
    assert "kept: epoch 1" in legend_of(figure.axes[0])
    assert "kept: epoch 2" in legend_of(curves_figure(history, best_is_kept=False).axes[0])


def legend_of(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]
