"""A bundle's card: the manifest and where the data came from in, `card.md` for people out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitor.bundle import CARD, Manifest


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a bundle was made of, as the card and the manifest tell it."""

    data: str
    """What the clips are and where they come from."""
    licence: str = "not stated"
    command: str = "not stated"
    """The command that makes this bundle again."""
    sees: str = ""
    """One paragraph: what the model recognises."""
    limits: str = ""
    """Paragraph or list: where it fails."""
    figures: str = ""
    """Markdown: what was measured beyond the validation clips."""
    version: str = "1"


def write_card(folder: Path, manifest: Manifest, provenance: Provenance) -> None:
    """Write `card.md` beside the manifest."""
    (folder / CARD).write_text(_card(manifest, provenance), encoding="utf-8")


def _card(manifest: Manifest, provenance: Provenance) -> str:
    sections = [
        f"# {manifest.name}, version {manifest.version}\n",
        _section("What it sees", provenance.sees or f"Labels: {', '.join(manifest.labels)}."),
        _section("How it looks", _sampling(manifest)),
        _section("Data", f"{provenance.data}\n\n{_clips(manifest)}"),
        _section("Licence", provenance.licence),
        _section("Made by", f"```\n{provenance.command}\n```"),
        _section("Accuracy", "\n\n".join(part for part in (_accuracy(manifest), provenance.figures) if part)),
        _section("Limits", provenance.limits or "Not measured outside the data named above."),
    ]
    return "\n".join(sections)


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text.strip()}\n"


def _clips(manifest: Manifest) -> str:
    clips = ", ".join(f"{count} `{label}`" for label, count in manifest.training["clips"].items())
    return f"Clips: {clips}; {manifest.training['groups']} groups, none of them on both sides of a split."


def _sampling(manifest: Manifest) -> str:
    shape = manifest.sample
    return (
        f"{manifest.sample_fps:g} samples a second of {shape.pictures} pictures "
        f"{shape.context_spacing_seconds * 1000:.0f} ms apart, {shape.width_pixels} x {shape.height_pixels} pixels; "
        f"windows of {manifest.window_slots} samples ({manifest.window_seconds:g} s), one every "
        f"{manifest.stride_seconds:g} s; {manifest.hops} attention hops. Seed {manifest.training['recipe']['seed']}."
    )


def _accuracy(manifest: Manifest) -> str:
    measured = manifest.measured
    accuracy, auc = measured["validation_accuracy"], measured["validation_auc"]
    lines = [
        _aside(manifest.training["recipe"]),
        "",
        f"- {measured['validation_clips']} clips of {measured['validation_groups']} groups",
        f"- clip accuracy {_share(accuracy)}",
        f"- ROC-AUC {_figure(auc)}",
    ]
    for label, figures in measured["validation_labels"].items():
        lines.append(f"- `{label}`: {', '.join(f'{name} {_share(figure)}' for name, figure in figures.items())}")
    for label, pair in manifest.thresholds.items():
        share = measured["validation_false_alarm_share"][label]
        lines.append(f"- `{label}`: on at {pair.on}, off at {pair.off}; {share:.2%} of the other windows lie above")
    floor = (
        "The floor: picture size, frame rate and length of the files alone, without a look at what happens, give "
        f"accuracy {_share(measured['floor_accuracy'])} and ROC-AUC {_figure(measured['floor_auc'])} in folds by group."
    )
    return "\n".join([*lines, "", floor])


def _aside(recipe: Mapping[str, Any]) -> str:
    chose = "the epoch, temperature" if recipe["early_stopping"] else "temperature"
    then = "; after that they taught as well" if recipe["refit"] else ""
    return f"On the groups kept aside from training (they chose {chose} and thresholds, so this flatters){then}:"


def _share(estimate: list[float]) -> str:
    value, low, high = estimate
    return f"{value:.1%} (95% interval {low:.1%} to {high:.1%})"


def _figure(estimate: list[float]) -> str:
    value, low, high = estimate
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
