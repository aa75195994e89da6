"""Panels in; a whole dashboard out, with the variables, links and annotations that all of them have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from dashboards.panels import SOURCE, Panel, to_dashboard

SCOPE = 'job=~"$job",instance=~"$instance"'
"""What every selector holds: the chosen monitors."""
ONE = f'{SCOPE},camera=~"$camera"'
"""The chosen monitors and cameras."""
TITLES = {"monitor-overview": "Overview", "monitor-camera": "Camera", "monitor-pipeline": "Pipeline"}
"""The dashboards' names in addresses, which never change, and for people."""
ANNOTATION_STEP = "60s"
Rows = Mapping[str, Sequence[Panel]]


class PrometheusAnnotation(models.AnnotationQuery):
    """An annotation with the fields of Prometheus' data source, which the SDK's model lacks."""

    def to_json(self) -> dict[str, Any]:
        """Return it as Grafana keeps it."""
        return super().to_json() | {
            "step": ANNOTATION_STEP,
            "titleFormat": "{{label}} on {{camera}}",
            "tagKeys": "camera,label",
            "textFormat": "An event started.",
        }


def frame(uid: str, description: str, rows: Rows, *, one_camera: bool = False) -> models.Dashboard:
    """Return a dashboard.

    Args:
        uid: its name in addresses.
        description: what it answers.
        rows: heading to panels.
        one_camera: it is of one camera; else of any number.
    """
    builder = (
        Dashboard(f"Monitor · {TITLES[uid]}")
        .uid(uid)
        .description(description)
        .tags(["monitor"])
        .timezone("browser")
        .refresh("30s")
        .time("now-3h" if one_camera else "now-6h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .links([to_dashboard(other, other_uid) for other_uid, other in TITLES.items() if other_uid != uid])
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_choice("job", "Job", "label_values(monitor_build_info, job)"))
        .with_variable(_choice("instance", "Monitor", 'label_values(monitor_build_info{job=~"$job"}, instance)'))
        .with_variable(_choice("camera", "Camera", f"label_values(monitor_camera_up{{{SCOPE}}}, camera)", one_camera))
    )
    for heading, panels in rows.items():
        builder = builder.with_row(Row(heading))
        for panel in panels:
            builder = builder.with_panel(panel)
    built = builder.build()
    for number, shown in enumerate(built.panels or [], start=1):
        shown.id_val = number
    built.annotations = models.AnnotationContainer(list_val=[_event_starts()])
    return built


def _choice(name: str, label: str, query: str, single: bool = False) -> QueryVariable:
    variable = (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    if single:
        return variable
    everything = VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.multi(True).include_all(True).all_value(".+").current(everything)


def _event_starts() -> PrometheusAnnotation:
    started = f'monitor_alerts_total{{{ONE},phase="started"}}'
    return PrometheusAnnotation(
        name="Events",
        datasource=SOURCE,
        enable=True,
        icon_color="red",
        expr=f"sum by (camera, label) (increase({started}[1m])) > 0",
    )
