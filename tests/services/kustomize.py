"""kustomize: an overlay's folder in, the objects that it renders out; and the schemas to hold them to.

Its own program, or kubectl's; both from `scripts/setup-services.sh kustomize`. Imports no pytest.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.services.guarded import ServiceError

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".cache/kustomize"
RENDER_SECONDS = 60.0
SET_UP = "run scripts/setup-services.sh kustomize"
OPERATOR_KINDS = {"PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules"}


def missing() -> str | None:
    """Return why nothing can be rendered or checked on this machine, or None when it can."""
    if _command() is None:
        return f"no kustomize of version 5; {SET_UP}"
    if not (CACHE / "compose-spec.json").exists():
        return f"no schemas in {CACHE}; {SET_UP}"
    return None


def render(folder: Path) -> list[dict[str, Any]]:
    """Render a kustomization into its objects.

    Raises:
        ServiceError: kustomize refuses it; the message is kustomize's own.
    """
    command = _command()
    if command is None:
        raise ServiceError(f"no kustomize; {SET_UP}")
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=RENDER_SECONDS, check=False)
    if done.returncode != 0:
        raise ServiceError(f"{folder}: {done.stderr.strip()}")
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def operator_schema(kind: str) -> dict[str, Any]:
    """Return the Prometheus operator's schema of one of its kinds, in which unknown fields are errors."""
    path = CACHE / f"monitoring.coreos.com_{OPERATOR_KINDS[kind]}.yaml"
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    return _strict(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


def compose_schema() -> dict[str, Any]:
    """Return the schema of the Compose specification."""
    schema: dict[str, Any] = json.loads((CACHE / "compose-spec.json").read_text(encoding="utf-8"))
    return schema


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(part) for key, part in schema.items()}
    if str(schema.get("pattern", "")).startswith("^(?i)"):  # Go's way of writing it
        strict["pattern"] = "(?i)^" + schema["pattern"].removeprefix("^(?i)")
    named = isinstance(schema.get("properties"), dict) and schema["properties"]
    if named and schema.get("type") == "object" and "additionalProperties" not in schema:
        strict["additionalProperties"] = False
    return strict


@cache
def _command() -> Sequence[str] | None:
    built = CACHE / "kustomize"
    if built.exists():
        return (str(built), "build")
    if _says(("kustomize", "version"), "v5."):
        return ("kustomize", "build")
    if _says(("kubectl", "version", "--client"), "Kustomize Version: v5."):
        return ("kubectl", "kustomize")
    return None


def _says(command: Sequence[str], words: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    done = subprocess.run(command, capture_output=True, text=True, timeout=RENDER_SECONDS, check=False)
    return words in done.stdout
