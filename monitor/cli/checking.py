"""`monitor check`: the configuration, the model, every camera and Kafka in; a table out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from monitor.bundle import Manifest
from monitor.check import ProbedCamera, probe_cameras, probe_delivery, rate_problem
from monitor.cli.console import ConfigPath, err, out, print_whole, speak, whole_table
from monitor.config import Config, load_config
from monitor.model_keeper import open_model, open_shadow
from monitor.surroundings import check_surroundings, monitor_serves


def check(
    config: ConfigPath = Path("config.toml"),
    probe: Annotated[bool, typer.Option("--probe", help="Open every camera for some seconds, and ask Kafka.")] = False,
) -> None:
    """Check the configuration, its folders and port, the model and, with --probe, every camera and Kafka.

    Example: `monitor check --probe`
    """
    loaded = load_config(config)
    speak(loaded)
    served = monitor_serves(loaded.http)
    check_surroundings(loaded, config, port=not served)
    model = open_model(loaded, config_path=config)
    manifest, opened = model.bundle.manifest, model.opened
    out.print(f"[green]✓[/] {escape(str(config))}: {len(loaded.cameras)} camera(s)", highlight=False)
    if served:
        _print_line("[green]✓[/]", f"a running monitor serves port {loaded.http.port}")
    out.print(
        f"[green]✓[/] model {manifest.name} {manifest.version} on {opened.engine.name} {opened.engine.precision}: "
        f"{', '.join(manifest.event_labels)}; {manifest.sample_fps:g} samples a second, "
        f"window {manifest.window_seconds:g} s, every {manifest.stride_seconds:g} s",
        highlight=False,
    )
    for skipped in opened.skipped:
        out.print(f"  not on {skipped.engine}: {escape(skipped.reason)}", highlight=False)
    opened.engine.close()
    if loaded.model.shadow:
        shadow = open_shadow(loaded, manifest, partial(open_model, config_path=config))
        out.print(f"[green]✓[/] shadow {shadow.title} on {shadow.opened.engine.name}", highlight=False)
        shadow.opened.engine.close()
    if probe and not _probe(loaded, manifest):
        raise typer.Exit(1)


def _probe(config: Config, manifest: Manifest) -> bool:
    with err.status("Asking the cameras …"):
        cameras = probe_cameras(config)
    table = whole_table("camera", "address", "codec", "size", "fps told/seen", "GOP", "clock")
    for probed in cameras:
        table.add_row(*map(escape, _probe_row(probed)), style=None if probed.ok else "red")
    print_whole(table)
    for probed in cameras:
        _print_remarks(probed, manifest, config.scoring.minimum_coverage)
    kafka = probe_delivery(config)
    if kafka is not None:
        for line in kafka.lines:
            _print_line("[green]✓[/]" if kafka.ok else "[red]✗[/]", line)
    return all(probed.ok for probed in cameras) and (kafka is None or kafka.ok)


def _print_remarks(probed: ProbedCamera, manifest: Manifest, minimum_coverage: float) -> None:
    """Print what is to be said of a camera, a line each: good, what is wrong, what would do better."""
    report, failure = probed.report, probed.failure
    if failure is not None:
        remarks, mark = [f"{failure.reason.value}: {failure.detail}"], "[red]✗[/]"
    else:
        rate = "" if probed.for_clips or report is None else rate_problem(report, manifest, minimum_coverage)
        remarks, mark = [*(report.problems if report else ()), *filter(None, [rate])], "[yellow]![/]"
    for sign, remark in [(mark, remark) for remark in remarks] or [("[green]✓[/]", "good")]:
        _print_line(sign, f"{_stream_name(probed)}: {remark}")
    if probed.proposal is not None:
        _print_line("[yellow]→[/]", f"{_stream_name(probed)}: {probed.proposal}")


def _print_line(sign: str, text: str) -> None:
    out.print(f"{sign} {escape(text)}", highlight=False, soft_wrap=True)


def _stream_name(probed: ProbedCamera) -> str:
    return f"{probed.camera.id} (clips)" if probed.for_clips else probed.camera.id


def _probe_row(probed: ProbedCamera) -> tuple[str, ...]:
    camera, report = probed.camera, probed.report
    if report is None:
        return (_stream_name(probed), camera.display_url, *"–––––")
    skew = "" if report.skew_seconds is None else f" {report.skew_seconds:+.2f} s"
    return (
        _stream_name(probed),
        camera.display_url,
        report.codec,
        f"{report.width_pixels}×{report.height_pixels}",
        f"{_figure(report.declared_fps)}/{_figure(report.measured_fps)}",
        f"{report.gop_frames} / {_figure(report.gop_seconds)} s" if report.gop_frames else "–",
        f"{report.clock.value}{skew}",
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
