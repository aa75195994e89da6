"""compose.yaml: valid by the specification's schema, and in step with the program and the demo."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from monitor import __version__
from monitor.bundle import find_bundle, load_bundle
from monitor.config import load_config
from tests.conftest import require
from tests.images.dockerfile import stages
from tests.services import kustomize

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose.yaml").read_text()))


def test_compose_takes_the_file(compose):
    require(kustomize.missing())
    judge = jsonschema.Draft7Validator(kustomize.compose_schema())
    judge.validate(compose)
    with pytest.raises(jsonschema.ValidationError):
        judge.validate({**compose, "services": {"monitor": {"imagge": "x"}}})


def test_images_are_built_from_stages_that_are_there(compose):
    built = stages((ROOT / "Dockerfile").read_text())
    for service in compose["services"].values():
        name, _, tag = service["image"].rpartition(":")
        assert name
        assert tag != "latest"
        if "build" in service:
            assert service["build"]["target"] in built
            assert tag == __version__


def test_nothing_is_open_to_other_machines_or_runs_with_more_rights(compose):
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service.get("read_only") or name == "kafka", name


@pytest.mark.parametrize("service", ["monitor", "prometheus", "grafana"])
def test_what_is_mounted_is_there(compose, service):
    for source in (volume.split(":")[0] for volume in compose["services"][service]["volumes"]):
        assert (ROOT / source).exists() if source.startswith("./") else source in compose["volumes"], source


def test_the_monitor_s_configuration_holds_together(compose, tmp_path, monkeypatch):
    text = (ROOT / "compose/config.toml").read_text()
    variable = tomllib.loads(text)["http"]["token_env"]
    assert variable in compose["services"]["monitor"]["environment"]
    monkeypatch.setenv(variable, "0123456789abcdef")
    path = tmp_path / "config.toml"
    path.write_text(text)
    config = load_config(path)
    load_bundle(find_bundle(config.model.bundle, config.folder))
    assert {urlsplit(camera.url).hostname for camera in config.cameras} <= set(compose["services"])
    assert config.kafka is not None
    assert config.kafka.bootstrap_servers.partition(":")[0] in compose["services"]
    state = next(volume for volume in compose["services"]["monitor"]["volumes"] if volume.startswith("state:"))
    assert config.outbox.path.is_relative_to(state.partition(":")[2])
    assert config.evidence.folder.is_relative_to(state.partition(":")[2])
    targets = yaml.safe_load((ROOT / "compose/prometheus.yml").read_text())["scrape_configs"][0]["static_configs"]
    assert targets == [{"targets": [f"monitor:{config.http.port}"]}]


def test_the_rules_are_where_prometheus_looks_for_them(compose):
    mounts = {where: here for here, where, _ in (volume.split(":") for volume in mounted(compose, "prometheus"))}
    (pattern,) = (Path(each) for each in yaml.safe_load((ROOT / "compose/prometheus.yml").read_text())["rule_files"])
    assert list((ROOT / mounts[str(pattern.parent)]).glob(pattern.name))


def mounted(compose: dict[str, Any], service: str) -> list[str]:
    """Return the files of ours that a service is given."""
    return [volume for volume in compose["services"][service]["volumes"] if volume.startswith("./")]


def test_the_page_has_a_token(monkeypatch):
    monkeypatch.setenv("MONITOR_TOKEN", "0123456789abcdef")
    assert "0123456789abcdef" in load_config(ROOT / "compose/config.toml").secrets()


def test_compose_and_the_dev_overlay_watch_the_same():
    files = (ROOT / "compose/config.toml", ROOT / "k8s/overlays/dev/config.toml")
    here, there = (tomllib.loads(path.read_text()) for path in files)
    here["http"].pop("token_env")
    there["http"].pop("token_file")
    assert here == there
