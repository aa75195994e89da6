"""Queries, a title, a unit in; panels of one look out. Nothing here knows a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import DashboardLink, ThresholdsConfig
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"
GRID = 24
"""Columns of Grafana's grid."""
Panel = Builder[models.Panel]
Steps = Sequence[tuple[float, str]]
"""From a value on, a colour; below the first it is green."""
HEIGHT = 8


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel."""

    expression: str
    legend: str = ""


def number(
    title: str, description: str, query: Query, *, unit: str = "short", steps: Steps = (), span: int = 4
) -> stat.Panel:
    """Return one large figure, coloured by its thresholds; `steps` empty: not coloured."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(_target(query, "A", instant=True))
        .unit(unit)
        .thresholds(_thresholds(steps))
        .color_mode(looks.BigValueColorMode.BACKGROUND if steps else looks.BigValueColorMode.NONE)
        .graph_mode(looks.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("–")
        .height(4)
        .span(span)
    )
    return panel.text_mode(looks.BigValueTextMode.NAME) if query.legend else panel


def words(panel: stat.Panel, meanings: Mapping[int, tuple[str, str]]) -> stat.Panel:
    """Show a word and a colour in place of a value."""
    return panel.mappings(_mappings(meanings))


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    steps: Steps = (),
    span: int = 8,
    stacked: bool = False,
    bars: bool = False,
    maximum: float | None = None,
) -> timeseries.Panel:
    """Return curves over time; thresholds are drawn as dashed lines."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .axis_soft_min(0)
        .fill_opacity(60 if bars else 10)
        .line_width(1)
        .show_points(looks.VisibilityMode.NEVER)
        .draw_style(looks.GraphDrawStyle.BARS if bars else looks.GraphDrawStyle.LINE)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(looks.LegendDisplayMode.LIST)
            .placement(looks.LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
        .height(HEIGHT)
        .span(span)
    )
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel = panel.with_target(_target(query, letter))
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL))
    if maximum is not None:
        panel = panel.max(maximum)
    if steps:
        panel = panel.thresholds(_thresholds(steps)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(looks.GraphThresholdsStyleMode.DASHED)
        )
    return panel


def states(
    title: str, description: str, *queries: Query, meanings: Mapping[int, tuple[str, str]], span: int = GRID
) -> statetimeline.Panel:
    """Return coloured bands over time, one for each series."""
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit("short")
        .mappings(_mappings(meanings))
        .show_value(looks.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(looks.LegendDisplayMode.LIST)
            .placement(looks.LegendPlacement.BOTTOM)
        )
        .height(HEIGHT)
        .span(span)
    )
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel = panel.with_target(_target(query, letter))
    return panel


def spread(title: str, description: str, query: Query, *, unit: str, span: int = 8) -> heatmap.Panel:
    """Return a histogram's buckets over time; the query's legend is `{{le}}`."""
    target = _target(query, "A").format(PromQueryFormat.HEATMAP)
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(target)
        .unit(unit)
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64))
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .height(HEIGHT)
        .span(span)
    )


def rows(
    title: str,
    description: str,
    query: Query,
    *,
    columns: Mapping[str, str],
    camera_link: bool = False,
    unit: str = "short",
    span: int = 8,
) -> table.Panel:
    """Return a table of a query's labels, and its value where it is a column.

    Args:
        title: of the panel.
        description: of the panel.
        query: evaluated now.
        columns: label (or `Value`) to heading, in order; what is not named is left out.
        camera_link: make the camera's column a link to its dashboard.
        unit: of the value.
        span: columns of the grid.
    """
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(_target(query, "A", instant=True).format(PromQueryFormat.TABLE))
        .unit(unit)
        .filterable(True)
        .with_transformation(
            DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": list(columns)}})
        )
        .with_transformation(
            DataTransformerConfig(
                id_val="organize",
                options={
                    "indexByName": {name: index for index, name in enumerate(columns)},
                    "renameByName": dict(columns),
                },
            )
        )
        .no_value("none")
        .height(HEIGHT)
        .span(span)
    )
    if not camera_link:
        return panel
    return panel.override_by_name(columns["camera"], [DynamicConfigValue(id_val="links", value=[_camera_link()])])


def to_dashboard(title: str, uid: str) -> DashboardLink:
    """Return a link to a dashboard, with time, data source and monitors; not the cameras, one here and many there."""
    variables = "&".join(f"${{{name}:queryparam}}" for name in ("datasource", "job", "instance"))
    return DashboardLink(title).type(DashboardLinkType.LINK).url(f"/d/{uid}?{variables}").keep_time(True)


def _camera_link() -> dict[str, object]:
    address = "/d/monitor-camera?${datasource:queryparam}&var-camera=${__value.text}&${__url_time_range}"
    return {"title": "Open the camera", "url": address}


def _target(query: Query, letter: str, *, instant: bool = False) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expression).ref_id(letter).datasource(SOURCE)
    if query.legend:
        target = target.legend_format(query.legend)
    return target.instant() if instant else target.range()


def _thresholds(steps: Steps) -> ThresholdsConfig:
    values = [Threshold(value=None, color=GREEN), *(Threshold(value=value, color=color) for value, color in steps)]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(values)


def _mappings(meanings: Mapping[int, tuple[str, str]]) -> list[ValueMapping]:
    shown = {
        str(value): ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(meanings.items())
    }
    return [ValueMap(options=shown)]
