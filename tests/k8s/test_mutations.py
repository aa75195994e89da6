"""What the judges of the manifests are worth: take anything away that matters, and a fault is told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.k8s.judging import Rendered, judge, named

Mutation = Callable[[list[Rendered]], Any]


def pod(rendered: list[Rendered]) -> Any:
    return named(rendered, "StatefulSet")["spec"]["template"]["spec"]


def container(rendered: list[Rendered]) -> Any:
    return pod(rendered)["containers"][0]


def without(kind: str, name: str) -> Mutation:
    return lambda rendered: rendered.remove(named(rendered, kind, name))


MUTATIONS: dict[str, Mutation] = {
    "no start-up probe": lambda r: container(r).pop("startupProbe"),
    "no liveness probe": lambda r: container(r).pop("livenessProbe"),
    "no readiness probe": lambda r: container(r).pop("readinessProbe"),
    "liveness asks /ready": lambda r: container(r)["livenessProbe"]["httpGet"].update(path="/ready"),
    "no limits": lambda r: container(r)["resources"].pop("limits"),
    "no limit of memory": lambda r: container(r)["resources"]["limits"].pop("memory"),
    "no limit of cpu": lambda r: container(r)["resources"]["limits"].pop("cpu"),
    "no request of memory": lambda r: container(r)["resources"]["requests"].pop("memory"),
    "no security context": lambda r: container(r).pop("securityContext"),
    "no security context of the pod": lambda r: pod(r).pop("securityContext"),
    "root is written": lambda r: container(r)["securityContext"].pop("readOnlyRootFilesystem"),
    "capabilities are kept": lambda r: container(r)["securityContext"].pop("capabilities"),
    "a capability is added": lambda r: container(r)["securityContext"]["capabilities"].update(add=["NET_RAW"]),
    "privileges may grow": lambda r: container(r)["securityContext"].update(allowPrivilegeEscalation=True),
    "root may run": lambda r: pod(r)["securityContext"].update(runAsNonRoot=False),
    "no user": lambda r: pod(r)["securityContext"].pop("runAsUser"),
    "no seccomp": lambda r: pod(r)["securityContext"].pop("seccompProfile"),
    "a token of Kubernetes": lambda r: pod(r).pop("automountServiceAccountToken"),
    "variables of services": lambda r: pod(r).pop("enableServiceLinks"),
    "the host's network": lambda r: pod(r).update(hostNetwork=True),
    "killed while stopping": lambda r: pod(r).update(terminationGracePeriodSeconds=3),
    "no grace period": lambda r: pod(r).pop("terminationGracePeriodSeconds"),
    "no version of the image": lambda r: container(r).update(image="registry.example/video-event-monitor"),
    "the latest image": lambda r: container(r).update(image="video-event-monitor:latest"),
    "outbox in the pod": lambda r: named(r, "StatefulSet")["spec"].pop("volumeClaimTemplates"),
    "outbox deleted with the set": lambda r: named(r, "StatefulSet")["spec"].pop(
        "persistentVolumeClaimRetentionPolicy"
    ),
    "scratch without a bound": lambda r: pod(r)["volumes"].append({"name": "more", "emptyDir": {}}),
    "all may come": lambda r: named(r, "NetworkPolicy")["spec"]["ingress"].append({"ports": [{"port": 8080}]}),
    "may go anywhere": lambda r: named(r, "NetworkPolicy")["spec"]["egress"].append({}),
    "outward is open": lambda r: named(r, "NetworkPolicy")["spec"].update(policyTypes=["Ingress"]),
    "no network policy": without("NetworkPolicy", "monitor"),
    "no disruption budget": without("PodDisruptionBudget", "monitor"),
    "no service account": without("ServiceAccount", "monitor"),
    "no monitor": without("StatefulSet", "monitor"),
    "pods of any kind": lambda r: next(each for each in r if each["kind"] == "Namespace")["metadata"].pop("labels"),
}


@pytest.mark.parametrize("change", MUTATIONS)
def test_a_fault_is_told(overlays, change):
    for name, rendered in overlays.items():
        changed = copy.deepcopy(rendered)
        MUTATIONS[change](changed)
        assert judge(changed), f"{change} in {name} was not seen"
