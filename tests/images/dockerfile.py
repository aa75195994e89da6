"""A Dockerfile's text in, its stages and what is wrong with the ones that ship out. No engine is needed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

INSTRUCTION = re.compile(r"^([A-Z]+)\s+(.*)$", re.DOTALL)
FROM = re.compile(r"^(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?$")
VERSION = re.compile(r":[^:/@]*\d|@sha256:[0-9a-f]{64}$")


@dataclass(slots=True)
class Stage:
    """One stage of an image."""

    name: str
    base: str
    """With the file's arguments filled in."""
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str:
        """Return the arguments of the last instruction of this kind; empty where there is none."""
        return next((rest for kind, rest in reversed(self.instructions) if kind == instruction), "")

    def copied(self) -> list[str]:
        """Return the sources that are copied out of the build's context."""
        texts = [rest for kind, rest in self.instructions if kind in {"COPY", "ADD"} and not rest.startswith("--from=")]
        return [source for text in texts for source in text.split()[:-1]]


def stages(text: str) -> dict[str, Stage]:
    """Read a Dockerfile."""
    found: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    here: Stage | None = None
    for kind, rest in _instructions(text):
        if kind == "ARG" and here is None:
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif kind == "FROM":
            match = FROM.match(re.sub(r"\$\{(\w+)\}", lambda use: arguments[use[1]], rest))
            assert match, rest
            here = Stage(match["name"] or "", match["base"])
            found[here.name] = here
        else:
            assert here is not None, kind
            here.instructions.append((kind, rest))
    return found


def faults(shipped: Sequence[str], text: str) -> list[str]:
    """Return what is wrong with a file whose stages `shipped` become images."""
    found = stages(text)
    return [
        *(f"{stage.name}: base {stage.base} has no version" for stage in found.values() if _unpinned(stage, found)),
        *(f"{name}: {fault}" for name in shipped for fault in _stage_faults(found[name])),
        *(["installs torch"] if re.search(r"\btorch\b|\[train\]", _code(text)) else []),
    ]


def _stage_faults(stage: Stage) -> Iterator[str]:
    user = stage.last("USER").partition(":")[0]
    if not user.isdigit() or int(user) == 0:
        yield "runs as root, or as a user that Kubernetes cannot tell from root"
    if stage.instructions and [kind for kind, _ in stage.instructions].index("USER") < _last_run(stage):
        yield "is built on after the user was set"
    if not stage.last("HEALTHCHECK"):
        yield "has no health check"
    for kind in ("ENTRYPOINT", "CMD"):
        given = stage.last(kind)
        if given and not _is_exec_form(given):
            yield f"{kind} goes by a shell, which keeps signals from the program"
    if not stage.last("ENTRYPOINT"):
        yield "has no entry point"
    if "PYTHONDONTWRITEBYTECODE=1" not in " ".join(rest for kind, rest in stage.instructions if kind == "ENV"):
        yield "writes byte code into a root that may not be written"
    if "pip install" in " ".join(rest for kind, rest in stage.instructions if kind == "RUN"):
        yield "installs in the image that ships"


def _last_run(stage: Stage) -> int:
    return max((at for at, (kind, _) in enumerate(stage.instructions) if kind in {"RUN", "COPY"}), default=-1)


def _unpinned(stage: Stage, found: dict[str, Stage]) -> bool:
    return stage.base not in found and not VERSION.search(stage.base)


def _is_exec_form(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except json.JSONDecodeError:
        return False


def _code(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    for line in re.sub(r"\\\n\s*", " ", _code(text)).splitlines():
        if line.strip():
            match = INSTRUCTION.match(line)
            assert match, line
            yield match[1], match[2].strip()
