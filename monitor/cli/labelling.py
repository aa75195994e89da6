"""`monitor label`: an alert and a person's verdict in, its clip in a data set out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from models.labelling import add_clip
from monitor.bundle import Manifest, load_bundle
from monitor.cli.console import ConfigPath, out
from monitor.config import Config, EvidenceConfig, load_config
from monitor.delivery.media import PART, MediaFolder
from monitor.delivery.outbox import Outbox, messages_in
from monitor.errors import InputInvalid
from monitor.events.evidence import clip_name
from monitor.model_keeper import configured_bundle


def label(
    alert_id: Annotated[str, typer.Argument(help="The alert's id, as `monitor alerts` and the page show it.")],
    happened: Annotated[
        bool | None, typer.Option("--true/--false", help="Whether the event happened: one of the two.")
    ] = None,
    named: Annotated[
        str, typer.Option("--label", "-l", help="With --true: what happened, where it was not what the alert says.")
    ] = "",
    into: Annotated[
        Path, typer.Option("--into", help="The data set: a folder for each label, or a CSV; made when missing.")
    ] = Path("labelled"),
    config: ConfigPath = Path("config.toml"),
) -> None:
    """Say whether an alert was right, and put its clip into a data set that `monitor train` learns from.

    --false puts it under the label that means "nothing happens". Saying it again corrects it; a clip is in a data set
    once. Its group is its camera's day, so that clips of one scene never both teach and judge.

    Examples: `monitor label 1b0c6f0a-… --false --into clips`, `monitor label 1b0c6f0a-… --true --label fall`, then
    `monitor train clips --out models/bundles/mine --resume`
    """
    if happened is None:
        raise InputInvalid("--true or --false", "say whether the event happened")
    loaded = load_config(config)
    message = _message_of(loaded, alert_id)
    manifest = load_bundle(configured_bundle(loaded)).manifest
    said = _checked_label(manifest, message["event"]["label"], happened=happened, named=named)
    clip = _find_clip(loaded.evidence, alert_id)
    group = f"{message['camera']['id']}/{message['time']['started_at'][:10]}"
    added = add_clip(into, clip, label=said, group=group)
    before = f" (was {added.before})" if added.before not in {None, said} else ""
    out.print(f"[green]✓[/] {escape(f'{said}{before}: {added.path}')}", highlight=False, soft_wrap=True)


def _message_of(config: Config, alert_id: str) -> dict[str, Any]:
    with Outbox.open_reader(config.outbox.path) as outbox:
        told = list(messages_in(outbox.messages_of(alert_id)))
    if not told or "event" not in told[-1]:
        raise InputInvalid(
            f"alert {alert_id}", f"is not in {config.outbox.path}; `monitor alerts` lists those that are"
        )
    message: dict[str, Any] = told[-1]
    return message


def _checked_label(manifest: Manifest, told: str, *, happened: bool, named: str) -> str:
    """Return the label that a clip gets."""
    if not happened:
        if named and named != manifest.background:
            reason = f"--false means that nothing happened ({manifest.background}); for {named!r} say --true"
            raise InputInvalid("--label", reason)
        return manifest.background
    said = named or told
    if said not in manifest.event_labels:
        reason = f"the model {manifest.name} tells of {', '.join(manifest.event_labels)}; --label names one of them"
        raise InputInvalid(f"label {said!r}", f"{reason}, --false says that nothing happened")
    return said


def _find_clip(evidence: EvidenceConfig, alert_id: str) -> Path:
    name = clip_name(alert_id)
    found = MediaFolder(evidence.folder, keep_days=evidence.keep_days, keep_bytes=evidence.keep_bytes).find(name)
    if found is not None:
        return found
    if (evidence.folder / f"{name}{PART}").is_file():
        raise InputInvalid(f"alert {alert_id}", "its clip is still being written; try again when the event has ended")
    reason = f"no clip of it in {evidence.folder}: none was kept, or it was removed after evidence.keep_days"
    raise InputInvalid(f"alert {alert_id}", reason)
