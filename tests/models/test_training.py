"""Training from clips to a bundle that loads, small."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from rich.console import Console

from models import evaluation, recordings, training
from models.augmentation import Change, draw_change
from models.calibration import calibrate, fit_temperature
from models.checkpoints import Checkpoints
from models.dataset import Clip, Dataset, DatasetInvalid, read_dataset
from models.entries import ClipEntry
from models.event_model import EventModel
from models.metrics import measure
from models.recipe import RECIPES, Recipe
from models.scenes.clips import write_recordings
from models.stages import Course, class_weights, move_average, train_head
from models.training import split_groups
from models.windows import cut_windows, random_window, stride_windows
from monitor.bundle import CARD, Bundle, SampleShape, load_bundle, write_manifest
from monitor.errors import InputInvalid
from monitor.scoring.engine import Preference, open_engine

CONSOLE = Console(file=StringIO())
pytestmark = pytest.mark.xdist_group("training")  # they share drawn clips

TINY = RECIPES["demo"].model_copy(
    update={
        "sample": SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=64, height_pixels=36),
        "window_slots": 6,
        "frozen_epochs": 1,
        "tuned_epochs": 3,
        "validation_share": 0.25,
    }
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def bundle(drawn_clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.set_num_threads(1)
    return training.run(drawn_clips, tmp_path_factory.mktemp("out") / "tiny", recipe=TINY, console=CONSOLE, cache=cache)


def test_training_ends_in_a_bundle_that_loads(bundle: Bundle) -> None:
    manifest = load_bundle(bundle.path).manifest
    assert manifest.name == "tiny"
    assert manifest.labels == ("normal", "scuffle")
    assert manifest.background == "normal"
    assert (manifest.window_slots, manifest.hops, manifest.embedding_size) == (6, TINY.hops, 160)
    assert manifest.thresholds["scuffle"].off < manifest.thresholds["scuffle"].on
    assert "scuffle" in (bundle.path / CARD).read_text(encoding="utf-8")
    assert all(path.stat().st_size < 20_000_000 for path in bundle.path.iterdir())


def test_a_label_that_is_never_said_has_no_precision(bundle: Bundle) -> None:
    never = measure(np.array([[0.9, 0.1]] * 4), np.array([0, 0, 1, 1]), np.array(list("abcd")), ("normal", "scuffle"))
    told = {label: figures.rounded() for label, figures in never.labels.items()}
    assert set(told["normal"]) == {"precision", "recall", "f1"}
    assert set(told["scuffle"]) == {"recall", "f1"}
    measured = {**bundle.manifest.measured, "validation_labels": told}
    again = write_manifest(bundle.path, bundle.manifest.model_copy(update={"measured": measured}))
    assert again.manifest.measured["validation_labels"] == told
    write_manifest(bundle.path, bundle.manifest)


def test_a_checkpoint_of_every_epoch_is_kept(bundle: Bundle, cache: Path) -> None:
    assert len(list((cache / "checkpoints" / "tiny" / "whole").glob("epoch*.pt"))) == 3


@pytest.mark.parametrize("preference", ["onnxruntime", "openvino"])
def test_engines_give_what_the_model_gave(bundle: Bundle, preference: Preference) -> None:
    opened = open_engine(bundle, preference=preference, threads=1)
    assert opened.engine.name == preference
    assert not opened.parity.complaints
    opened.engine.close()


def test_exported_gaps_weigh_nothing_and_probabilities_sum_to_one(bundle: Bundle) -> None:
    golden = bundle.golden()
    assert not golden.window_mask.all()
    with closing(open_engine(bundle, preference="onnxruntime", threads=1).engine) as engine:
        answers = engine.classify(golden.window_embeddings, golden.window_mask)
    gaps = np.broadcast_to(~golden.window_mask[:, None], answers.attention.shape)
    assert (answers.attention[gaps] == 0.0).all()
    np.testing.assert_allclose(answers.attention.sum(axis=2), 1.0, atol=1e-5)
    np.testing.assert_allclose(answers.probabilities.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 7])
def test_only_the_batch_axis_is_free(bundle: Bundle, samples: int) -> None:
    session = onnxruntime.InferenceSession(str(bundle.backbone_path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 2, 36, 64, 3]
    golden = bundle.golden()
    (embeddings,) = session.run(None, {"pictures": np.repeat(golden.pictures[:1], samples, axis=0)})
    np.testing.assert_allclose(embeddings, np.repeat(golden.embeddings[:1], samples, axis=0), rtol=1e-3, atol=1e-4)


WHILE_SOMETHING_LOGS = """
import structlog
from models import recordings
from monitor.__main__ import main
watch = recordings.run
def watch_and_log(*arguments, **options):
    structlog.get_logger().warning("something_happened")
    return watch(*arguments, **options)
recordings.run = watch_and_log
main()
"""


def test_clips_and_recordings_are_evaluated(bundle: Bundle, drawn_clips: Path, tmp_path: Path) -> None:
    """The command on a folder with both: its picture, and its JSON, with which no line of the log is mixed."""
    data = tmp_path / "data"
    shutil.copytree(drawn_clips, data)
    list(write_recordings(data, 1, seed=3, duration_seconds=20.0))
    options = [str(data), "--model", str(bundle.path), "--cache", str(tmp_path / "cache")]
    plot = str(tmp_path / "curve.png")
    command = [sys.executable, "-c", WHILE_SOMETHING_LOGS, "evaluate", *options, "--json", "--plot", plot]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150.0, check=False)
    assert done.returncode == 0, done.stderr
    assert "something_happened" in done.stderr
    report = json.loads(done.stdout)
    assert {"clips", "accuracy", "auc", "labels", "events"} <= set(report)
    assert report["clips"] == 24
    for figure in (report["accuracy"], report["auc"], report["labels"]["scuffle"]["recall"]):
        assert 0.0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1.0
    assert set(report["labels"]) == {"normal", "scuffle"}
    assert set(report["labels"]["scuffle"]) == {"clips", "precision", "recall", "f1"}
    assert np.sum(report["confusion"]["clips"]) == 24
    events = report["events"]
    told = {"recall", "precision", "f1", "false_alarms_per_hour", "seconds_to_detect_median", "seconds_to_detect_p90"}
    assert told <= set(events)
    assert all(set(events[name]) == {"value", "low", "high"} for name in told)
    assert events["camera_hours"] == pytest.approx(20.0 / 3600.0, rel=0.02)
    assert len(events["curve"]) > 10
    assert events["real_time_factor"] > 0
    assert cv2.imread(str(tmp_path / "curve.png")).std() > 5


def test_labels_that_the_model_does_not_know_are_named(bundle: Bundle, drawn_clips: Path, tmp_path: Path) -> None:
    rows = (drawn_clips / "clips.csv").read_text(encoding="utf-8").replace(",scuffle,", ",brawl,").splitlines()[:9]
    table = tmp_path / "clips.csv"
    named = [f"{drawn_clips}/{row}" for row in rows[1:]]
    table.write_text("\n".join([rows[0], *named]), encoding="utf-8")
    with pytest.raises(InputInvalid, match="brawl: the model knows normal, scuffle"):
        evaluation.run(table, bundle=bundle, console=CONSOLE, cache=tmp_path / "cache")
    (tmp_path / "events.csv").write_text("path,start_seconds,end_seconds,label\nx.mp4,1,2,brawl\n", encoding="utf-8")
    with pytest.raises(InputInvalid, match="brawl: the model tells of scuffle"):
        recordings.run(tmp_path / "events.csv", bundle=bundle, console=CONSOLE)


def test_the_recipe_of_a_bundle_can_be_trained_again(bundle: Bundle) -> None:
    assert evaluation.recipe_of(bundle) == TINY
    without = replace(bundle, manifest=bundle.manifest.model_copy(update={"training": {}}))
    with pytest.raises(InputInvalid, match="no recipe"):
        evaluation.recipe_of(without)


def test_folds_judge_each_clip_once(drawn_clips: Path, cache: Path) -> None:
    recipe = TINY.model_copy(update={"tuned_epochs": 0, "frozen_epochs": 2})
    report = evaluation.run_folds(drawn_clips, recipe=recipe, folds=2, console=CONSOLE, cache=cache)
    assert sum(fold.clips for fold in report.folds) == 24
    assert report.confusion.sum() == 24


def test_what_learns_anew_begins_and_draws_as_if_nothing_had_been_learned_before(
    drawn_clips: Path, cache: Path, tmp_path: Path
) -> None:
    changes = {"frozen_epochs": 2, "tuned_epochs": 0, "early_stopping": False, "refit": True}
    recipe = TINY.model_copy(update=changes)
    dataset = read_dataset(drawn_clips, recipe, cache=cache, console=CONSOLE)
    anew = training.train(dataset, recipe, cache=cache, checkpoints=tmp_path / "anew", console=CONSOLE).model
    torch.manual_seed(recipe.seed)
    only = EventModel(recipe, labels=2)
    kept = Checkpoints.begin(tmp_path / "only", dataset, recipe, resume=False, console=CONSOLE)
    train_head(only, Course(dataset, np.arange(24), np.arange(0), recipe, cache, kept, CONSOLE, lengths={"head": 2}))
    torch.testing.assert_close(anew.state_dict(), only.eval().state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(20))
def test_a_split_never_shares_a_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dataset = _dataset(rng.integers(0, 3, 60).tolist(), [f"g{group}" for group in rng.integers(0, 15, 60)])
    split = split_groups(dataset, 0.2, seed=seed)
    assert set(dataset.groups[split.train]).isdisjoint(dataset.groups[split.validation])
    assert sorted([*split.train, *split.validation]) == list(range(60))
    assert set(dataset.targets[split.validation]) == set(dataset.targets[split.train]) == {0, 1, 2}


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(DatasetInvalid, match="too few groups"):
        split_groups(_dataset([0, 1, 0, 1], ["a"] * 4), 0.2, seed=1)


def test_rare_labels_weigh_more() -> None:
    torch.testing.assert_close(class_weights(np.array([0, 0, 0, 1]), 2), torch.tensor([2 / 3, 2.0]))


def test_windows_begin_every_stride_and_short_clips_have_gaps() -> None:
    clip = _clip("a", "normal", slots=np.array([0, 1, -1, 3, 4, 5, 6]))
    plan = stride_windows(clip, window_slots=4, stride_slots=2)
    assert plan.samples.tolist() == [[0, 1, 0, 3], [0, 3, 4, 5]]
    assert plan.mask.tolist() == [[True, True, False, True], [False, True, True, True]]
    short = stride_windows(_clip("a", "normal", slots=np.arange(2)), window_slots=4, stride_slots=2)
    assert short.mask.tolist() == [[True, True, False, False]]


def test_random_windows_are_windows_of_the_clip() -> None:
    clip, rng = _clip("a", "normal", slots=np.arange(9)), np.random.default_rng(0)
    starts = {int(random_window(clip, 4, rng).samples[0, 0]) for _ in range(200)}
    assert starts == set(range(6))
    assert cut_windows(clip, [5], 4).samples.tolist() == [[5, 6, 7, 8]]


def test_zooming_keeps_the_shape_and_treats_all_pictures_alike() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (1, 1, 36, 64, 3), dtype=np.uint8)
    window = np.broadcast_to(picture, (4, 2, 36, 64, 3))
    changed = draw_change(TINY, np.random.default_rng(1)).apply(window)
    assert changed.shape == window.shape
    assert not np.array_equal(changed, window)
    assert (changed == changed[0, 0]).all()


def test_augmenting_mirrors_whole_windows() -> None:
    recipe = TINY.model_copy(update={"brightness": 0.0, "zoom": 0.0})
    window = np.arange(2 * 2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 2, 3, 4, 3)
    seen = {draw_change(recipe, np.random.default_rng(seed)).apply(window).tobytes() for seed in range(20)}
    assert seen == {window.tobytes(), window[:, :, :, ::-1].tobytes()}


def test_time_runs_backwards_within_each_sample() -> None:
    window = np.arange(3 * 4 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 4, 2, 2, 3)
    np.testing.assert_array_equal(Change(backwards=True).apply(window), window[:, ::-1])


def test_compressing_coarsens_and_keeps_the_colours_apart() -> None:
    window = np.zeros((2, 2, 32, 32, 3), np.uint8)
    window[..., 0] = np.linspace(0, 200, 32, dtype=np.uint8)
    window[:, :, 7, 7] = 255
    changed = Change(jpeg_quality=40).apply(window)
    assert changed.shape == window.shape
    assert not np.array_equal(changed, window)
    red, green, blue = (changed[..., channel].mean() for channel in range(3))
    assert red > 50 > max(green, blue)


def test_copies_are_drawn_in_the_recipes_shares() -> None:
    recipe = TINY.model_copy(update={"backwards_share": 0.3, "compressed_share": 0.5})
    drawn = [draw_change(recipe, np.random.default_rng(seed)) for seed in range(300)]
    assert np.mean([change.backwards for change in drawn]) == pytest.approx(0.3, abs=0.1)
    assert np.mean([change.jpeg_quality < 100 for change in drawn]) == pytest.approx(0.5, abs=0.1)
    assert max(change.zoom for change in drawn) <= recipe.zoom


def test_the_average_follows_weights_and_batch_statistics() -> None:
    model = EventModel(TINY, labels=2)
    average = deepcopy(model)
    before = {name: value.clone() for name, value in average.state_dict().items()}
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    move_average(average, model, 0.75)
    for name, value in average.state_dict().items():
        step = 0.25 if value.is_floating_point() else 1
        torch.testing.assert_close(value, before[name] + step)


def test_temperature_softens_what_is_too_sure() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 4000)
    logits = np.zeros((4000, 2), np.float32)
    said = np.where(rng.random(4000) < 0.8, targets, 1 - targets)
    logits[np.arange(4000), said] = np.log(4.0) * 3.0
    assert fit_temperature(logits, targets, groups=4000) == pytest.approx(3.0, rel=0.1)


def test_few_groups_leave_the_temperature_near_1() -> None:
    """However many windows they have; those told apart without a fault would ask for the lowest there is."""
    targets = np.tile([0, 1], 500)
    logits = np.where(targets[:, None] == np.arange(2), 3.0, -3.0).astype(np.float32)
    chosen = [fit_temperature(logits, targets, groups=groups) for groups in (2, 20, 2000)]
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[0] == pytest.approx(1.0, abs=0.03)
    wrong = [fit_temperature(logits, 1 - targets, groups=groups) for groups in (1, 20)]
    assert 1.0 < wrong[0] < wrong[1]


def test_the_threshold_keeps_the_stated_share_of_false_alarms() -> None:
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1], 1000)
    margin = np.where(targets == 1, 2.0, -2.0) + rng.normal(0.0, 1.5, 2000)
    logits = np.stack([np.zeros(2000), margin], axis=1).astype(np.float32)
    recipe = Recipe(false_alarm_share=0.02)
    calibration = calibrate(logits, targets, ("normal", "fight"), recipe, groups=2000)
    assert calibration.false_alarm_share["fight"] == pytest.approx(0.02, abs=0.002)
    assert calibration.thresholds["fight"].on > 0.5


def test_few_windows_never_give_more_false_alarms_than_stated() -> None:
    logits = np.stack([np.zeros(24), np.linspace(-3.0, 3.0, 24)], axis=1).astype(np.float32)
    targets = np.array([0, 1] * 12)
    calibration = calibrate(logits, targets, ("normal", "fight"), Recipe(false_alarm_share=0.1), groups=24)
    assert 0.0 < calibration.false_alarm_share["fight"] <= 0.1


def _dataset(targets: list[int], groups: list[str]) -> Dataset:
    labels = ("normal", "fall", "fight")
    clips = [_clip(group, labels[target]) for target, group in zip(targets, groups, strict=True)]
    return Dataset(Path("data"), labels[: max(targets) + 1], tuple(clips))


def _clip(group: str, label: str, slots: np.ndarray | None = None) -> Clip:
    pictures = np.zeros((10, 1, 2, 2, 3), np.uint8)
    return Clip(ClipEntry(Path("x.mp4"), label, group), pictures, np.arange(10) if slots is None else slots, "key")
