"""What commands say of themselves, and of what they miss."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitor.cli import app
from monitor.errors import InputInvalid

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from monitor.__main__ import main; sys.exit(main())"


def words(*arguments: str) -> str:
    """Return what a command prints, however its lines are broken."""
    return " ".join(CliRunner().invoke(app, arguments).output.split())


def test_the_help_of_train_names_the_files_it_takes() -> None:
    assert "with clips/fight/*.mp4 and clips/normal/*.mp4;" in words("train", "--help")


def test_the_list_of_commands_says_what_evaluate_is_for() -> None:
    assert "Measure a bundle on labelled clips or recordings;" in words("evaluate", "--help")


def test_a_label_without_a_verdict_is_told_both() -> None:
    refusal = CliRunner().invoke(app, ["label", "1b0c6f0a"]).exception
    assert isinstance(refusal, InputInvalid)
    assert str(refusal) == "--true or --false: say whether the event happened"


@pytest.mark.parametrize(
    ("plot", "reason"),
    [("none/x.png", "its folder is missing"), ("x.txt", "the ending must be one of .png, .svg, .pdf")],
)
def test_a_picture_that_cannot_be_written_is_told_before_the_recordings_are_watched(
    plot: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "events.csv").write_text("path,start_seconds,end_seconds,label\nnone.mp4,,,\n")
    refusal = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--plot", str(tmp_path / plot)]).exception
    assert isinstance(refusal, InputInvalid)
    assert reason in refusal.reason


@pytest.mark.parametrize("limit", ["0", "-1", "1000001", "9" * 30, "nan"])
def test_a_limit_that_no_list_has_is_refused(limit: str) -> None:
    refused = CliRunner().invoke(app, ["alerts", "--limit", limit])
    assert refused.exit_code == 2
    assert "'--limit'" in refused.output


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_without_torch_the_command_says_how_to_install_it(command: str, tmp_path: Path) -> None:
    arguments = [command, str(tmp_path), *(["--out", str(tmp_path / "mine")] if command == "train" else [])]
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    said = (
        f"error: monitor {command}: torch is not installed; in the checkout: pip install -c constraints.txt '.[train]'"
    )
    assert (ran.returncode, ran.stderr.strip()) == (2, said)


def test_a_folder_that_cannot_be_written_is_told_before_the_training(tmp_path: Path) -> None:
    refusal = CliRunner().invoke(app, ["train", str(tmp_path), "--out", "/proc/mine"]).exception
    assert isinstance(refusal, InputInvalid)
    assert str(refusal).startswith("--out: the folder /proc/mine cannot be made or written (")
