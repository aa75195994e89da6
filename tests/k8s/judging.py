"""Rendered objects in, what is wrong with them out: what Kubernetes' own schemas do not ask for, but we do.

Each judge returns its faults as lines; no line: nothing wrong. `test_mutations` proves that each of them sees.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Rendered = dict[str, Any]
STOP_SECONDS = 5.0
"""The program's own budget for its end."""


def workloads(rendered: Sequence[Rendered]) -> list[Rendered]:
    """Return what makes pods."""
    return [each for each in rendered if each["kind"] in {"StatefulSet", "Deployment", "DaemonSet", "Job"}]


def named(rendered: Sequence[Rendered], kind: str, name: str = "monitor") -> Rendered:
    """Return the one object of this kind and name, without the hash of generated ones."""
    found = [
        each
        for each in rendered
        if each["kind"] == kind and (each["metadata"]["name"] == name or _unhashed(each["metadata"]["name"]) == name)
    ]
    if len(found) != 1:
        raise LookupError(f"{len(found)} objects {kind} {name}")
    return found[0]


def container_of(workload: Rendered) -> Rendered:
    """Return a workload's only container."""
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(container)


def judge(rendered: Sequence[Rendered]) -> list[str]:
    """Return everything that is wrong with an overlay."""
    faults = [f"there is no {kind} {name}" for kind, name in REQUIRED if not _has(rendered, kind, name)]
    for workload in workloads(rendered):
        where = f"{workload['kind']} {workload['metadata']['name']}"
        faults += [f"{where}: {fault}" for look in POD_JUDGES for fault in look(workload)]
    if _has(rendered, "StatefulSet", "monitor"):
        monitor = named(rendered, "StatefulSet")
        faults += [f"the monitor: {fault}" for look in MONITOR_JUDGES for fault in look(monitor)]
    faults += [*_isolation(rendered), *_enforced(rendered)]
    return faults


def _restricted(workload: Rendered) -> Iterator[str]:
    """Pod security standard `restricted`, and a root that cannot be written."""
    pod = workload["spec"]["template"]["spec"]
    security = pod.get("securityContext", {})
    container = container_of(workload)
    own = container.get("securityContext", {})
    if not security.get("runAsNonRoot") or not security.get("runAsUser"):
        yield "may run as root"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if own.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if not own.get("readOnlyRootFilesystem") and workload["metadata"]["name"] != "kafka":
        yield "may write its root"
    if pod.get("automountServiceAccountToken") is not False:
        yield "is given a token of Kubernetes"
    if pod.get("enableServiceLinks") is not False:
        yield "is given variables named after services"
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield f"has {key}"


def _bounded(workload: Rendered) -> Iterator[str]:
    container = container_of(workload)
    for kind in ("requests", "limits"):
        for what in ("cpu", "memory"):
            if what not in container.get("resources", {}).get(kind, {}):
                yield f"has no {kind} of {what}"
    for volume in workload["spec"]["template"]["spec"].get("volumes", []):
        if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
            yield f"volume {volume['name']} has no bound"


def _pinned(workload: Rendered) -> Iterator[str]:
    image = container_of(workload)["image"]
    _, separator, tag = image.rpartition("/")[2].partition(":")
    if not separator or tag == "latest":
        yield f"image {image} has no version"


def _probed(monitor: Rendered) -> Iterator[str]:
    container = container_of(monitor)
    for probe, path in (("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")):
        if container.get(probe, {}).get("httpGet") != {"path": path, "port": "http"}:
            yield f"{probe} does not ask {path}"


def _one_writer(monitor: Rendered) -> Iterator[str]:
    spec = monitor["spec"]
    claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])]
    mounts = {mount["name"]: mount["mountPath"] for mount in container_of(monitor)["volumeMounts"]}
    if "/var/lib/monitor" not in [mounts.get(claim) for claim in claims]:
        yield "the outbox is on no volume of its own"
    kept = spec.get("persistentVolumeClaimRetentionPolicy", {})
    if (kept.get("whenDeleted"), kept.get("whenScaled")) != ("Retain", "Retain"):
        yield "undelivered alerts are deleted with the set"


def _graceful(monitor: Rendered) -> Iterator[str]:
    if monitor["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 0) <= STOP_SECONDS:
        yield "is killed before it has stopped"


def _isolation(rendered: Sequence[Rendered]) -> Iterator[str]:
    if not _has(rendered, "NetworkPolicy", "monitor"):
        return
    spec = named(rendered, "NetworkPolicy")["spec"]
    if set(spec.get("policyTypes", [])) != {"Ingress", "Egress"}:
        yield "the network policy leaves a direction open"
    for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
        if not (rule.get("from") or rule.get("to")) or not rule.get("ports"):
            yield "the network policy has a rule for everybody or every port"


def _enforced(rendered: Sequence[Rendered]) -> Iterator[str]:
    for each in rendered:
        if each["kind"] == "Namespace":
            if each["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
                yield "the namespace does not enforce restricted pods"
            return
    yield "there is no Namespace"


def _has(rendered: Sequence[Rendered], kind: str, name: str) -> bool:
    try:
        named(rendered, kind, name)
    except LookupError:
        return False
    return True


def _unhashed(name: str) -> str:
    return re.sub(r"-[a-z0-9]{10}$", "", name)


REQUIRED = (
    ("ServiceAccount", "monitor"),
    ("StatefulSet", "monitor"),
    ("Service", "monitor"),
    ("Service", "monitor-pods"),
    ("PodDisruptionBudget", "monitor"),
    ("NetworkPolicy", "monitor"),
    ("ConfigMap", "monitor-config"),
)
POD_JUDGES: tuple[Callable[[Rendered], Iterator[str]], ...] = (_restricted, _bounded, _pinned)
MONITOR_JUDGES: tuple[Callable[[Rendered], Iterator[str]], ...] = (_probed, _one_writer, _graceful)
