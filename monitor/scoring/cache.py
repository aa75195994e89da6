"""A bundle in, what this machine has compiled of it out: graphs in other precisions, engines, reports.

`monitor compile` fills it and the engines look there when they open a bundle:

    FOLDER/fight-cef27f3d4863/                     the bundle's name and the sha256 of its backbone.onnx
        openvino-int8.onnx  openvino-int8.json     a graph of lower precision for an engine, and what it was made of
        openvino-1f0c9a2b77d1/                     OpenVINO's compiled models, by its version and the processor
        tensorrt-5d0e3c8a91f4/                     engines, by GPU and version; the timing cache
        openvino-report.json  openvino-report.txt  what each precision costs and gives

A graph whose record names another backbone or other contents is as good as not there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitor.bundle import BACKBONE, Bundle
from monitor.scoring.door import COMPILED, Precision
from monitor.whole_file import whole_file

RECORD_FORMAT = 1


@dataclass(frozen=True, slots=True)
class EngineCache:
    """A folder that keeps what was compiled."""

    root: Path

    def folder(self, bundle: Bundle) -> Path:
        """Return the folder of a bundle's backbone; it need not be there."""
        return self.root / f"{bundle.manifest.name}-{bundle.manifest.files[BACKBONE][:12]}"

    def graph(self, bundle: Bundle, engine: str, precision: Precision) -> Path | None:
        """Return the backbone's graph in a precision where `monitor compile` has made it of this very backbone."""
        path = self._graph_path(bundle, engine, precision)
        try:
            record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            fits = (
                record["format"] == RECORD_FORMAT
                and record["source_sha256"] == bundle.manifest.files[BACKBONE]
                and record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            )
        except (OSError, ValueError, KeyError, TypeError):  # not there, half written, or by another hand
            return None
        return path if fits else None

    def put_graph(
        self, bundle: Bundle, engine: str, precision: Precision, graph: bytes, remarks: Mapping[str, Any]
    ) -> None:
        """Keep a graph made of the bundle's backbone, with remarks on how; the record is written last."""
        path = self._graph_path(bundle, engine, precision)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "format": RECORD_FORMAT,
            "precision": precision.value,
            "source_sha256": bundle.manifest.files[BACKBONE],
            "sha256": hashlib.sha256(graph).hexdigest(),
            **remarks,
        }
        write_whole(path, graph)
        write_whole(path.with_suffix(".json"), (json.dumps(record, indent=2) + "\n").encode())

    def remove_graph(self, bundle: Bundle, engine: str, precision: Precision) -> None:
        """Forget a graph that turned out to be useless."""
        path = self._graph_path(bundle, engine, precision)
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def records(self, bundle: Bundle) -> Mapping[str, bytes]:
        """Return the record of each graph that was made of a bundle: they tell one compilation from the next.

        One that cannot be read, or is just being removed, is as good as not there.
        """
        names = (f"*-{precision.value}.json" for precision in COMPILED)
        found: dict[str, bytes] = {}
        with suppress(OSError):
            for path in [path for name in names for path in self.folder(bundle).glob(name)]:
                with suppress(OSError):
                    found[path.name] = path.read_bytes()
        return found

    def used_for(self, bundle: Bundle) -> bool:
        """Whether anything was compiled of this bundle: only then do libraries keep files that nobody asked for."""
        try:
            return self.folder(bundle).is_dir()
        except OSError:
            return False

    def library_folder(self, bundle: Bundle, library: str, *traits: str) -> Path:
        """Return a folder for a library's own files, keyed by the traits of version and machine."""
        key = hashlib.sha256("\n".join(traits).encode()).hexdigest()[:12]
        return self.folder(bundle) / f"{library}-{key}"

    def _graph_path(self, bundle: Bundle, engine: str, precision: Precision) -> Path:
        return self.folder(bundle) / f"{engine}-{precision.value}.onnx"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as file:
        file.write(content)
