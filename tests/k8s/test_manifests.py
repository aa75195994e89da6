"""The manifests: valid for Kubernetes, as strict as they claim, and in step with the program that they start."""

from __future__ import annotations

import base64
import ipaddress
import re
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
import yaml

from demo.streams import SCENES
from k8s.generate import SOURCE, generate
from monitor import __version__
from monitor.bundle import find_bundle, load_bundle
from monitor.config import Config, EvidenceConfig, check_against_model, load_config
from monitor.service import STOP_SECONDS
from monitor.telemetry.metrics import Metrics
from monitor.web.app import Page
from monitor.web.feed import Feed
from tests.k8s.conftest import ROOT
from tests.k8s.judging import Rendered, container_of, judge, named, workloads
from tests.services.kustomize import OPERATOR_KINDS, operator_schema, render

KUBERNETES = ("1.30", "1.35")
SECRETS = "/run/secrets/monitor"
PORTS = {"rtsp": 554, "rtsps": 322}
FAMILIES = {family.name for family in Metrics().registry.collect()}
SECRET_TEXT = "0123456789abcdef"
ENGINE_BYTES = 200e6
"""More than the compiled engines of a shipped bundle take, in every precision."""


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_object(overlay, version):
    for each in overlay:
        if each["kind"] not in OPERATOR_KINDS:
            kubernetes_validate.validate(each, version, strict=True)


def test_the_prometheus_operator_takes_its_objects(overlays):
    seen = set()
    for each in (each for name in ("cpu", "nvidia") for each in overlays[name] if each["kind"] in OPERATOR_KINDS):
        jsonschema.validate(each, operator_schema(each["kind"]))
        seen.add(each["kind"])
    assert "PodMonitor" in seen


def test_an_unknown_field_is_refused(overlays):
    monitor = {**named(overlays["cpu"], "PodMonitor")}
    monitor["spec"] = {**monitor["spec"], "selektor": {}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(monitor, operator_schema("PodMonitor"))
    service = {**named(overlays["cpu"], "Service")}
    service["spec"] = {**service["spec"], "selektor": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, KUBERNETES[0], strict=True)


def test_nothing_is_wrong_with_an_overlay(overlay):
    assert judge(overlay) == []


def test_ports_and_paths_are_the_program_s(overlay, tmp_path):
    container = container_of(named(overlay, "StatefulSet"))
    config = tomllib.loads(config_text(overlay))
    (port,) = container["ports"]
    assert port == {**port, "name": "http", "containerPort": config["http"]["port"]}
    paths = set(Page(_NoView(), Feed()).app.openapi()["paths"])
    probed = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probed | {"/metrics"} <= paths
    for name in ("monitor", "monitor-pods"):
        (served,) = named(overlay, "Service", name)["spec"]["ports"]
        assert served["targetPort"] == port["name"]
        assert served["port"] == port["containerPort"]


def test_what_selects_pods_selects_the_monitor_s(overlay):
    monitor = named(overlay, "StatefulSet")
    labels = monitor["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        monitor["spec"]["selector"]["matchLabels"],
        named(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        named(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(named(overlay, "Service", name)["spec"]["selector"] for name in ("monitor", "monitor-pods")),
        *(each["spec"]["selector"]["matchLabels"] for each in overlay if each["kind"] == "PodMonitor"),
    ]
    assert all(selector and selector.items() <= labels for selector in selectors)
    assert monitor["spec"]["serviceName"] == named(overlay, "Service", "monitor-pods")["metadata"]["name"]


@pytest.mark.parametrize("name", ["cpu", "nvidia"])
def test_a_cluster_sees_the_monitor(name, overlays):
    """Scraped, its rules loaded, its dashboards found by the sidecar's label, its lateness read by an autoscaler."""
    rendered = overlays[name]
    (endpoint,) = named(rendered, "PodMonitor")["spec"]["podMetricsEndpoints"]
    names = ["__meta_kubernetes_namespace", "__meta_kubernetes_pod_name"]  # and no address, which no other pod has
    assert endpoint["relabelings"] == [{"sourceLabels": names, "separator": "/", "targetLabel": "instance"}]
    assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
    rules = yaml.safe_load((SOURCE / "rules/monitor.rules.yaml").read_text())
    assert named(rendered, "PrometheusRule")["spec"] == rules
    for path in SOURCE.glob("*.json"):
        board = named(rendered, "ConfigMap", f"monitor-dashboard-{path.stem}")
        assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert board["data"] == {path.name: path.read_text()}
    (metric,) = named(rendered, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert "windows_late" in metric["pods"]["metric"]["name"]


def test_the_network_policy_lets_page_and_scrapes_in_and_nothing_else(overlay):
    container = container_of(named(overlay, "StatefulSet"))
    ports = [port["name"] for port in container["ports"]]
    rules = named(overlay, "NetworkPolicy")["spec"]["ingress"]
    assert [[port["port"] for port in rule["ports"]] for rule in rules] == [ports]
    peers = [peer for rule in rules for peer in rule["from"]]
    assert peers
    assert all(peer.get("namespaceSelector") or peer.get("podSelector") for peer in peers)


def test_the_image_is_this_version_s(overlay):
    assert container_of(named(overlay, "StatefulSet"))["image"].endswith(f":{__version__}")


def test_the_time_to_stop_is_more_than_the_program_takes(overlay):
    assert named(overlay, "StatefulSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > STOP_SECONDS + 5


def test_the_configuration_loads_in_the_pod(overlay, tmp_path, monkeypatch):
    config = loaded(overlay, tmp_path, monkeypatch)
    bundle = load_bundle(find_bundle(config.model.bundle, config.folder))
    check_against_model(config, bundle.manifest, "config.toml")
    assert config.instance == "monitor-0"
    assert not config.http.host.startswith("127.")
    assert config.logs.format in {"json", "auto"}


def test_every_file_and_variable_that_the_program_reads_is_given(overlay):
    """Mounts, secret keys, and variables whose names are keys of the configuration."""
    monitor = named(overlay, "StatefulSet")
    container, pod = container_of(monitor), monitor["spec"]["template"]["spec"]
    (secrets,) = (volume["secret"] for volume in pod["volumes"] if "secret" in volume)
    given = {f"{SECRETS}/{item['path']}" for item in secrets["items"]}
    assert given == set(re.findall(rf'"({SECRETS}/[^"]+)"', config_text(overlay)))
    variables = {each["name"] for each in container["env"]}
    known = {f"MONITOR_{key.upper()}" for key in Config.model_fields} | {"MONITOR_CONFIG"}
    assert variables <= known
    config_path = Path(next(each["value"] for each in container["env"] if each["name"] == "MONITOR_CONFIG"))
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert str(config_path.parent) in mounts
    assert config_path.name in named(overlay, "ConfigMap", "monitor-config")["data"]


def test_what_the_program_writes_is_on_the_volume_and_fits(overlay, tmp_path, monkeypatch):
    config = loaded(overlay, tmp_path, monkeypatch)
    state = tmp_path / "var/lib/monitor"
    assert config.outbox.path.is_relative_to(state)
    assert config.evidence.folder.is_relative_to(state)
    assert config.model.cache is not None, "engines are built once a volume, not once a pod"
    assert config.model.cache.is_relative_to(state)
    (claim,) = named(overlay, "StatefulSet")["spec"]["volumeClaimTemplates"]
    size = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) * 2**30
    kept = config.evidence.keep_bytes + 3 * config.outbox.maximum_bytes  # table, index and WAL count too
    assert kept + ENGINE_BYTES <= size


def test_the_engine_takes_no_more_threads_than_the_pod_has_cores(overlay, tmp_path, monkeypatch):
    """Left at 0 the program would count the node's."""
    limit = float(container_of(named(overlay, "StatefulSet"))["resources"]["limits"]["cpu"])
    assert 0 < loaded(overlay, tmp_path, monkeypatch).model.threads <= limit


def test_the_resources_are_those_of_the_measured_sizing(overlays):
    """Eight cameras, on the slowest processor that the operations guide names, fit the request, and half as much again
    the limit, with their packets.
    """
    guide = (ROOT / "docs/operations.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| 8 \| ([\d.]+) \| (\d+) MB \|", guide, re.MULTILINE)
    of_fight = [(float(used), int(held)) for name, used, held in rows if name == "fight"]
    cores, megabytes = max(used for used, _ in of_fight), max(held for _, held in of_fight)
    resources = container_of(named(overlays["cpu"], "StatefulSet"))["resources"]
    request, limit = resources["requests"], resources["limits"]
    assert cores <= float(request["cpu"]) <= 2 * cores
    assert 1.5 * cores <= float(limit["cpu"])
    assert megabytes * 1e6 <= int(request["memory"].removesuffix("Mi")) * 2**20
    rings = 8 * EvidenceConfig().ring_bytes
    assert 1.5 * megabytes * 1e6 + rings <= int(limit["memory"].removesuffix("Gi")) * 2**30
    told = f"request of {request['cpu']} core and {request['memory'].removesuffix('Mi')} MiB"
    assert told in " ".join((ROOT / "docs/kubernetes.md").read_text().split())


def test_the_network_policy_lets_cameras_and_kafka_through(overlay, tmp_path, monkeypatch):
    config = loaded(overlay, tmp_path, monkeypatch)
    rules = named(overlay, "NetworkPolicy")["spec"]["egress"]
    for camera in config.cameras:
        parts = urlsplit(camera.url)
        assert parts.hostname is not None
        assert _allowed(rules, overlay, parts.hostname, parts.port or PORTS[parts.scheme]), camera.id
    assert config.kafka is not None
    for server in config.kafka.bootstrap_servers.split(","):
        host, _, port = server.rpartition(":")
        assert _allowed(rules, overlay, host, int(port)), server
    assert not _allowed(rules, overlay, "203.0.113.9", 443)


def test_the_dev_overlay_holds_together(overlays):
    """Its cameras are the demo's, its services reach pods, and its secret has the keys that are asked for."""
    dev = overlays["dev"]
    cameras = [camera["id"] for camera in tomllib.loads(config_text(dev))["cameras"]]
    assert cameras == [camera for camera, _, _ in SCENES]
    for service in (each for each in dev if each["kind"] == "Service"):
        pods = [
            each
            for each in workloads(dev)
            if service["spec"]["selector"].items() <= each["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert len(pods) == 1
        assert service["spec"]["ports"][0]["targetPort"] in [port["name"] for port in container_of(pods[0])["ports"]]
    secret = named(dev, "Secret", "monitor-secrets")
    (volume,) = (
        volume["secret"]
        for volume in named(dev, "StatefulSet")["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    )
    assert volume["secretName"] == secret["metadata"]["name"]
    assert {item["key"] for item in volume["items"]} == set(secret["data"])
    assert len(base64.b64decode(secret["data"]["web-token"])) >= 16
    dashboards = {each["metadata"]["name"] for each in dev if each["kind"] == "ConfigMap"}
    assert {f"monitor-dashboard-{path.stem}" for path in SOURCE.glob("*.json")} <= dashboards


def test_the_dev_overlay_s_prometheus_and_grafana_find_what_they_read(overlays):
    dev = overlays["dev"]
    provisioning = named(dev, "ConfigMap", "grafana-provisioning")["data"]
    (source,) = yaml.safe_load(provisioning["datasource.yaml"])["datasources"]
    assert source["url"] == f"http://prometheus:{port_of(dev, 'prometheus')}"
    (provider,) = yaml.safe_load(provisioning["dashboards.yaml"])["providers"]
    grafana = container_of(named(dev, "Deployment", "grafana"))
    assert provider["options"]["path"] in [mount["mountPath"] for mount in grafana["volumeMounts"]]
    scraping = yaml.safe_load(named(dev, "ConfigMap", "prometheus-config")["data"]["prometheus.yml"])
    (job,) = scraping["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert (job["job_name"], found["names"]) == ("monitor", ["monitor-pods"])
    assert found["port"] == port_of(dev, "monitor-pods")
    (rules,) = (Path(pattern) for pattern in scraping["rule_files"])
    mounts = container_of(named(dev, "Deployment", "prometheus"))["volumeMounts"]
    assert str(rules.parent) in [mount["mountPath"] for mount in mounts]
    assert [name for name in named(dev, "ConfigMap", "monitor-rules")["data"] if Path(name).match(rules.name)]


def port_of(rendered: Sequence[Rendered], service: str) -> int:
    """Return the port that a service serves."""
    (port,) = named(rendered, "Service", service)["spec"]["ports"]
    return int(port["port"])


def test_a_gpu_is_asked_for_where_there_is_one(overlays):
    def gpus(name: str) -> Any:
        return container_of(named(overlays[name], "StatefulSet"))["resources"]["limits"].get("nvidia.com/gpu")

    assert (gpus("cpu"), gpus("nvidia"), gpus("dev")) == (None, "1", None)


def test_replicas_stay_one_until_cameras_can_be_shared(overlays):
    """Every replica watches all cameras, so that more of them would only double the work."""
    if "share" not in Config.model_fields:
        scaler = named(overlays["cpu"], "HorizontalPodAutoscaler")["spec"]
        assert scaler["maxReplicas"] == 1
        assert named(overlays["cpu"], "StatefulSet")["spec"]["replicas"] == 1


def test_the_autoscaler_reads_what_the_adapter_makes(overlays):
    (rule,) = yaml.safe_load((ROOT / "k8s/prometheus-adapter.yaml").read_text())["rules"]["custom"]
    series = rule["seriesQuery"].partition("{")[0]
    made = re.sub(rule["name"]["matches"], rule["name"]["as"].replace("${1}", r"\1"), series)
    (metric,) = named(overlays["cpu"], "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == made
    target = named(overlays["cpu"], "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("StatefulSet", "monitor")


def test_the_autoscaler_s_series_is_the_program_s():
    (rule,) = yaml.safe_load((ROOT / "k8s/prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert rule["seriesQuery"].partition("{")[0].removesuffix("_total") in FAMILIES


def test_the_page_has_a_token(overlay, tmp_path, monkeypatch):
    config = loaded(overlay, tmp_path, monkeypatch)
    assert SECRET_TEXT in config.secrets()


def test_the_copies_are_made_of_the_dashboards_and_rules(tmp_path):
    generate(SOURCE, tmp_path)
    for name in ("dashboards", "rules"):
        assert contents(ROOT / "k8s/components" / name) == contents(tmp_path / name), "run: python -m k8s.generate"


def test_a_dashboard_and_a_rule_reach_grafana_and_prometheus(tmp_path):
    """With a dashboard and a rule of the test's own, whatever the project's are."""
    source, target = tmp_path / "dashboards", tmp_path / "k8s"
    (source / "rules").mkdir(parents=True)
    (source / "overview.json").write_text('{"title": "Overview"}')
    groups = {"groups": [{"name": "one", "rules": [{"alert": "Down", "expr": "up == 0", "for": "1m"}]}]}
    (source / "rules/monitor.rules.yaml").write_text(yaml.safe_dump(groups))
    shutil.copytree(ROOT / "k8s", target, ignore=shutil.ignore_patterns("__pycache__"))
    generate(source, target / "components")
    cluster, dev = render(target / "overlays/cpu"), render(target / "overlays/dev")
    rule = named(cluster, "PrometheusRule")
    assert rule["spec"] == groups
    jsonschema.validate(rule, operator_schema("PrometheusRule"))
    for rendered in (cluster, dev):
        board = named(rendered, "ConfigMap", "monitor-dashboard-overview")
        assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert board["data"] == {"overview.json": '{"title": "Overview"}'}
        assert yaml.safe_load(named(rendered, "ConfigMap", "monitor-rules")["data"]["monitor.rules.yaml"]) == groups
        assert judge(rendered) == []


def config_text(rendered: Sequence[Rendered]) -> str:
    """Return the configuration that the pod reads."""
    return str(named(rendered, "ConfigMap", "monitor-config")["data"]["config.toml"])


def loaded(rendered: Sequence[Rendered], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Load the pod's configuration with the pod's folders moved under `folder`, and its variables."""
    text = config_text(rendered)
    for secret in re.findall(rf'"{SECRETS}/([^"]+)"', text):
        path = folder / SECRETS.lstrip("/") / secret
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SECRET_TEXT + "\n")
    for root in (SECRETS, "/var/lib/monitor"):
        text = text.replace(f'"{root}', f'"{folder}{root}')
    path = folder / "etc/monitor/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    monkeypatch.setenv("MONITOR_INSTANCE", "monitor-0")  # the pod's name, by the downward API
    return load_config(path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _allowed(rules: Sequence[Rendered], rendered: Sequence[Rendered], host: str, port: int) -> bool:
    """Whether a rule of the policy lets a connection out: to an address, a service here, or a service elsewhere."""
    return any(
        _names(peer, rendered, host)
        for rule in rules
        if port in [each["port"] for each in rule["ports"]]
        for peer in rule["to"]
    )


def _names(peer: Rendered, rendered: Sequence[Rendered], host: str) -> bool:
    if "ipBlock" in peer:
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(peer["ipBlock"]["cidr"])
        except ValueError:
            return False
    _, _, rest = host.partition(".")
    namespace = rest.partition(".")[0]
    if "namespaceSelector" in peer:
        return bool(peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == namespace)
    try:
        service = named(rendered, "Service", host)
    except LookupError:
        return False
    return bool(peer["podSelector"]["matchLabels"] == service["spec"]["selector"])


class _NoView:
    """Stands where the running monitor would; only the routes are looked at."""
