"""Dashboards and rules in, the kustomize components that carry them out; run after either has changed.

kustomize reads no file outside the folder that it builds, so what a cluster needs of `dashboards/` is copied:
the dashboards as ConfigMaps with the label that Grafana's sidecar looks for, the rules as a PrometheusRule, and as a
ConfigMap for a Prometheus without the operator. A test holds the copies to their sources.

    python -m k8s.generate
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
SOURCE = FOLDER.parent / "dashboards"
COMPONENT = {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component"}
STABLE_NAMES = {"disableNameSuffixHash": True}
"""Grafana and Prometheus look again by themselves, and are told these names by hand."""
HEADER = "# Made by k8s/generate.py out of dashboards/; do not edit.\n"


def generate(source: Path, target: Path) -> None:
    """Write the components `dashboards` and `rules` into `target`, anew."""
    dashboards = sorted(source.glob("*.json"))
    rules = sorted((source / "rules").glob("*.rules.yaml"))
    _write_dashboards(dashboards, rules, _emptied(target / "dashboards"))
    _write_rules(rules, _emptied(target / "rules"))


def _write_dashboards(dashboards: list[Path], rules: list[Path], folder: Path) -> None:
    for path in [*dashboards, *rules]:
        shutil.copyfile(path, folder / path.name)
    entries: list[dict[str, Any]] = []
    for dashboard in dashboards:
        entries.append(
            {
                "name": f"monitor-dashboard-{dashboard.stem}",
                "files": [dashboard.name],
                "options": {"labels": {"grafana_dashboard": "1"}},
            }
        )
    if rules:
        entries.append({"name": "monitor-rules", "files": [path.name for path in rules]})
    _dump(folder / "kustomization.yaml", _component(configMapGenerator=entries))


def _write_rules(rules: list[Path], folder: Path) -> None:
    groups = [group for path in rules for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
    resources = []
    if groups:
        resource = {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "monitor"},
            "spec": {"groups": groups},
        }
        _dump(folder / "prometheus-rule.yaml", resource)
        resources.append("prometheus-rule.yaml")
    _dump(folder / "kustomization.yaml", _component(resources=resources))


def _component(**lists: list[Any]) -> dict[str, Any]:
    """Return a component; the options keep one without resources from counting as empty, which kustomize refuses."""
    return {**COMPONENT, "generatorOptions": STABLE_NAMES, **{key: value for key, value in lists.items() if value}}


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _dump(path: Path, values: dict[str, Any]) -> None:
    path.write_text(HEADER + yaml.safe_dump(values, sort_keys=False, width=120), encoding="utf-8")


if __name__ == "__main__":
    generate(SOURCE, FOLDER / "components")
