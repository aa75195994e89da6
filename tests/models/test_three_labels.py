"""Three labels, one of them the background, from clips to a bundle, its report, its evaluation, and alerts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from io import StringIO
from pathlib import Path

import cv2
import pytest
import torch
from playwright.sync_api import Browser
from rich.console import Console

from models import evaluation, recordings, training
from models.recipe import RECIPES
from models.report.page import FOLDER, PAGE
from monitor.bundle import CARD, Bundle, SampleShape
from tests.conftest import require
from tests.models.motions import HEIGHT, LABELS, WIDTH, write_motions, write_recording
from tests.services import browser as browser_service
from tests.services.browser import chromium, visit
from tests.services.monitor import run_command

CONSOLE = Console(file=StringIO())
pytestmark = pytest.mark.xdist_group("three labels")  # they share one training

RECIPE = RECIPES["demo"].model_copy(
    update={
        "sample": SampleShape(pictures=2, context_spacing_seconds=1 / 15, width_pixels=WIDTH, height_pixels=HEIGHT),
        "window_slots": 8,
        "tuned_epochs": 10,
        "batch_windows": 6,
        "validation_share": 0.25,
        "zoom": 0.0,
    }
)
RECORDING = "recording.mp4"
SCRIPT = [("normal", 5.0), ("run", 5.0), ("normal", 7.0), ("flash", 5.0), ("normal", 5.0)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("three")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    torch.set_num_threads(1)
    clips = write_motions(folder / "clips", groups=range(10))
    return training.run(clips, folder / "motions", recipe=RECIPE, console=CONSOLE)


@pytest.fixture(scope="module")
def unseen(folder: Path) -> Path:
    """Clips and a recording on grounds that taught nothing."""
    data = write_motions(folder / "unseen", groups=range(100, 106))
    write_recording(data / RECORDING, SCRIPT, group=200)
    rows = ["path,start_seconds,end_seconds,label", f"{RECORDING},5,10,run", f"{RECORDING},17,22,flash"]
    (data / "events.csv").write_text("\n".join(rows), encoding="utf-8")
    return data


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require(browser_service.missing())
    with chromium() as started:
        yield started


def test_the_bundle_tells_of_both_events(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.labels == LABELS
    assert set(manifest.thresholds) == {"flash", "run"}
    assert manifest.training["clips"] == {"normal": 10, "flash": 10, "run": 10}
    assert set(manifest.measured["validation_labels"]) == set(LABELS)


def test_the_card_tells_of_data_accuracy_and_floor(bundle: Bundle) -> None:
    card = (bundle.path / CARD).read_text(encoding="utf-8")
    for title in ("What it sees", "How it looks", "Data", "Licence", "Made by", "Accuracy", "Limits"):
        assert f"## {title}\n" in card
    assert "Clips: 10 `normal`, 10 `flash`, 10 `run`; 10 groups" in card
    for label in LABELS:
        assert re.search(rf"- `{label}`: precision .*% .*, recall \d.*% .*, f1 .*%", card), label
    floor, _, _ = bundle.manifest.measured["floor_accuracy"]
    assert floor < 0.7, "all files are of one size, rate and length"
    assert f"of the files alone, without a look at what happens, give accuracy {floor:.1%}" in card


def test_unseen_clips_and_events_are_judged_label_by_label(bundle: Bundle, unseen: Path) -> None:
    report = evaluation.run(unseen, bundle=bundle, console=CONSOLE, cache=unseen / ".cache")
    watched = recordings.run(unseen, bundle=bundle, console=CONSOLE)
    told = json.loads(json.dumps(evaluation.as_json(report, watched)))
    assert told["accuracy"]["value"] >= 0.75, told["confusion"]
    assert set(told["labels"]) == set(LABELS)
    for row, label in enumerate(LABELS):
        figures = told["labels"][label]
        assert figures["clips"] == 6
        assert figures["recall"]["value"] == pytest.approx(told["confusion"]["clips"][row][row] / 6, abs=1e-4)
        assert all(set(figures[name]) == {"value", "low", "high"} for name in ("precision", "recall", "f1"))
    assert (told["events"]["events"], told["events"]["recall"]["value"]) == (2, 1.0), str(watched)


def test_each_event_is_told_by_its_own_label(bundle: Bundle, unseen: Path) -> None:
    code, output = run_command("replay", str(unseen / RECORDING), "--model", str(bundle.path), "--json")
    assert code == 0, output
    told = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    at = {"run": (5.0, 10.0), "flash": (17.0, 22.0)}
    seen = set()
    for message in told:
        if message["phase"] == "started":
            label, most = message["event"]["label"], message["evidence"]["most_attended_at"]
            seconds = datetime.fromisoformat(most).timestamp()
            if at[label][0] <= seconds <= at[label][1]:
                seen.add(label)
    assert seen == {"run", "flash"}, output


def test_the_pictures_of_the_report_stand_beside_the_bundle(bundle: Bundle) -> None:
    names = {path.name for path in (bundle.path / FOLDER).iterdir()}
    assert {PAGE, "curves.png", "confusion.png", "roc.png", "right-1.png"} <= names
    for name in names - {PAGE}:
        assert cv2.imread(str(bundle.path / FOLDER / name)).std() > 5, name
    strip = cv2.imread(str(bundle.path / FOLDER / "right-1.png"))
    assert strip.shape[1] == RECIPE.window_slots * 218 + 10


@pytest.mark.parametrize(("scheme", "width"), [("light", 1300), ("dark", 390)])
def test_the_report_opens_by_itself(scheme: str, width: int, bundle: Bundle, browser: Browser) -> None:
    with visit(browser, color_scheme=scheme, viewport={"width": width, "height": 900}) as here:
        page = here.page
        page.goto((bundle.path / FOLDER / PAGE).as_uri())
        shown = page.locator("img").evaluate_all("images => images.map(i => i.complete && i.naturalWidth > 100)")
        assert len(shown) == len(list((bundle.path / FOLDER).glob("*.png")))
        assert all(shown)
        drawn = page.locator("picture img").evaluate_all("images => images.map(i => i.currentSrc)")
        assert len(set(drawn)) == 3
        for label in LABELS:
            assert page.get_by_role("rowheader", name=label, exact=True).is_visible()
        assert here.judge() == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        here.photograph(f"training-report-{scheme}", full_page=True)
        assert here.complaints == []
        assert here.hosts == {""}, "the page itself, from the disk, and nobody else"
