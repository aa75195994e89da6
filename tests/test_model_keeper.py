"""Looking for a new model: complete and right or not at all, and told once."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from monitor import model_keeper
from monitor.bundle import BACKBONE, HEAD, MANIFEST, load_bundle, write_manifest
from monitor.config import Config, load_config
from monitor.deadline import Deadline
from monitor.model_keeper import Model, ModelKeeper, Refusal, grid_problem
from monitor.scoring.cache import EngineCache
from monitor.scoring.door import Precision
from monitor.scoring.engine import open_configured
from tests.scoring.bundles import MANIFEST as TINY
from tests.scoring.bundles import TinyBundle

POLL_SECONDS = 0.3
ENGINE = 'engine = "onnxruntime"\nprecision = "int8"\nthreads = 1\ncache = "engines"\n'


def opened(config: Config) -> Model:
    bundle = load_bundle(Path(config.model.bundle))
    return Model(bundle, open_configured(bundle, config.model))


@dataclass
class Told:
    models: list[Model] = field(default_factory=list)
    shadows: list[Model | None] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    same: list[Config] = field(default_factory=list)

    def take(self, model: Model, _config: Config) -> bool:
        self.models.append(model)
        return True

    def keep(self, _model: Model, config: Config) -> bool:
        self.same.append(config)
        return True


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A keeper on a bundle of its own: its folder, the configuration, the keeper, and what it told."""
    monkeypatch.setattr(model_keeper, "POLL_SECONDS", POLL_SECONDS)
    place = TinyBundle().write(tmp_path / "model", golden=True).path
    path = tmp_path / "config.toml"
    path.write_text(f'[model]\nbundle = "{place}"\n{ENGINE}[[cameras]]\nid = "yard"\nurl = "rtsp://127.0.0.1/yard"\n')
    config, told = load_config(path), Told()
    keeper = ModelKeeper(
        config,
        opened(config),
        open_model=opened,
        on_model=told.take,
        on_same=told.keep,
        on_shadow=told.shadows.append,
        on_refusal=told.refusals.append,
        on_failure=told.failures.append,
    )
    keeper.start()
    yield place, config, keeper, told
    keeper.stop(Deadline(10))
    assert told.failures == []


def wait_until(condition, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


def second_version(folder: Path) -> Path:
    tiny = TinyBundle()
    tiny.head = {**tiny.head, "bc": tiny.head["bc"] + 0.5}
    tiny.write(folder, golden=True)
    write_manifest(folder, TINY.model_copy(update={"version": "2"}))
    return folder


def test_another_version_is_taken_once_and_only_when_complete(kept, tmp_path: Path) -> None:
    place, _, _, told = kept
    second = second_version(tmp_path / "second")
    shutil.copyfile(second / MANIFEST, place / MANIFEST)  # the manifest first, the files it is about much later
    wait_until(lambda: told.refusals)
    assert HEAD in told.refusals[0].reason
    assert told.models == []
    shutil.copyfile(second / BACKBONE, place / BACKBONE)
    for name in (HEAD, "golden.npz"):
        shutil.copyfile(second / name, place / name)
    wait_until(lambda: told.models)
    time.sleep(2.5 * POLL_SECONDS)
    assert [model.title for model in told.models] == ["tiny 2"]
    assert {refusal.result for refusal in told.refusals} == {"refused"}
    assert len(told.refusals) <= 2


def test_touched_files_and_a_signal_without_a_change_do_nothing(kept) -> None:
    place, config, keeper, told = kept
    (place / MANIFEST).touch()
    keeper.look_again(config)
    time.sleep(2.2 * POLL_SECONDS)
    assert (told.models, told.refusals) == ([], [])


def test_what_was_compiled_meanwhile_is_taken_up_with_a_signal(kept) -> None:
    place, config, keeper, told = kept
    bundle = load_bundle(place)
    cache = EngineCache(config.model.cache)
    cache.put_graph(bundle, "onnxruntime", Precision.INT8, bundle.backbone_path.read_bytes(), {})
    time.sleep(2.2 * POLL_SECONDS)
    assert told.models == []
    keeper.look_again(config)
    wait_until(lambda: told.models)
    assert told.models[0].opened.engine.precision == "int8"
    keeper.look_again(config)
    time.sleep(2.2 * POLL_SECONDS)
    assert len(told.models) == 1


def test_what_was_rolled_back_is_tried_again_with_a_signal_and_only_then(kept) -> None:
    place, config, keeper, told = kept
    bundle = load_bundle(place)
    before = opened(config)
    EngineCache(config.model.cache).put_graph(
        bundle, "onnxruntime", Precision.INT8, bundle.backbone_path.read_bytes(), {}
    )
    keeper.look_again(config)
    wait_until(lambda: told.models)
    keeper.rolled_back(before)
    time.sleep(2.2 * POLL_SECONDS)
    assert len(told.models) == 1
    keeper.look_again(config)
    wait_until(lambda: len(told.models) == 2)
    assert told.models[1].opened.engine.precision == "int8"


def test_a_shadow_comes_is_refused_and_goes(kept, tmp_path: Path) -> None:
    _, config, keeper, told = kept

    def ask(shadow: str) -> None:
        keeper.look_again(config.model_copy(update={"model": config.model.model_copy(update={"shadow": shadow})}))

    ask(str(second_version(tmp_path / "second")))
    wait_until(lambda: told.shadows)
    assert [model.title if model else None for model in told.shadows] == ["tiny 2"]
    ask(str(tmp_path / "nowhere"))
    wait_until(lambda: told.refusals)
    assert told.refusals[0].result == "shadow_refused"
    ask("")
    wait_until(lambda: len(told.shadows) == 2)
    assert told.shadows[-1] is None
    assert told.models == []


def test_a_shadow_is_looked_at_again_with_a_signal(kept, tmp_path: Path) -> None:
    """One that was refused is tried again, one that has changed or failed opened anew, any other left alone."""
    _, config, keeper, told = kept
    folder = tmp_path / "second"
    asked = config.model_copy(update={"model": config.model.model_copy(update={"shadow": str(folder)})})
    keeper.look_again(asked)
    wait_until(lambda: told.refusals)
    second_version(folder)
    keeper.look_again(asked)
    wait_until(lambda: len(told.shadows) == 1)
    keeper.look_again(asked)
    wait_until(lambda: len(told.same) == 3)
    assert len(told.shadows) == 1
    write_manifest(folder, TINY.model_copy(update={"version": "3"}))
    keeper.look_again(asked)
    wait_until(lambda: len(told.shadows) == 2)
    keeper.shadow_failed()
    keeper.look_again(asked)
    wait_until(lambda: len(told.shadows) == 3)
    assert [shadow.title for shadow in told.shadows if shadow] == ["tiny 2", "tiny 3", "tiny 3"]
    assert len(told.refusals) == 1


def test_what_cannot_be_read_leaves_the_model_that_serves(kept) -> None:
    _, config, keeper, told = kept
    asked = config.model_copy(
        update={"model": config.model.model_copy(update={"bundle": "a" * 300, "shadow": "b" * 300})}
    )
    keeper.look_again(asked)
    wait_until(lambda: len(told.refusals) == 2)
    assert {refusal.result for refusal in told.refusals} == {"refused", "shadow_refused"}
    assert all("File name too long" in refusal.reason for refusal in told.refusals)
    keeper.look_again(config)
    wait_until(lambda: told.same)
    assert told.models == []


def test_what_capture_cannot_give_needs_a_restart() -> None:
    assert grid_problem(TINY, TINY.model_copy(update={"window_slots": 16, "stride_slots": 4})) == ""
    assert "5 samples a second" in grid_problem(TINY, TINY.model_copy(update={"sample_fps": 5.0}))
    shape = TINY.sample.model_copy(update={"width_pixels": 64})
    assert "other sizes" in grid_problem(TINY, TINY.model_copy(update={"sample": shape}))
