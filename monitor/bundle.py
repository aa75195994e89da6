"""A bundle: an event model as a folder of files. Reads, checks and writes it; runs nothing.

`backbone.onnx` takes `pictures` uint8 (N, K, H, W, 3) RGB, newest last, and gives `embeddings` float32 (N, D).
`head.onnx` takes `embeddings` float32 (N, T, D) and `mask` bool (N, T) and gives `probabilities` float32 (N, L)
and `attention` float32 (N, R, T). `golden.npz` holds inputs and reference outputs of both under those names,
the head's inputs as `window_embeddings` and `window_mask`.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import tomli_w
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from monitor.errors import BundleInvalid
from monitor.records import Threshold

MANIFEST = "model.toml"
BACKBONE = "backbone.onnx"
HEAD = "head.onnx"
GOLDEN = "golden.npz"
CARD = "card.md"
CHECKED_FILES = (BACKBONE, HEAD, GOLDEN)

BACKBONE_INPUT = "pictures"
EMBEDDINGS = "embeddings"
MASK = "mask"
PROBABILITIES = "probabilities"
ATTENTION = "attention"

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]*$"
"""Of a bundle's name."""

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SampleShape(_Section):
    """What the backbone is fed for one slot."""

    pictures: Annotated[int, Field(ge=1, le=8)]
    """K: pictures of one sample."""
    context_spacing_seconds: Annotated[float, Field(ge=0.0, le=5.0)]
    """Time between neighbouring pictures of a sample; 0 where K is 1."""
    width_pixels: Annotated[int, Field(ge=16, le=2048)]
    height_pixels: Annotated[int, Field(ge=16, le=2048)]


class ThresholdPair(_Section):
    """On and off threshold of one label."""

    on: Probability
    off: Probability

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.off > self.on:
            raise ValueError(f"off ({self.off}) must not be above on ({self.on})")
        return self

    def record(self) -> Threshold:
        """Return the pair as the record that travels."""
        return Threshold(on=self.on, off=self.off)


class Manifest(_Section):
    """`model.toml`: what the model sees, says and was made of."""

    format_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    version: str
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    background: str
    """The label that means "nothing happens"; never alerts."""
    sample_fps: Annotated[float, Field(gt=0.0, le=60.0)]
    window_slots: Annotated[int, Field(ge=1, le=512)]
    """T: slots of a window."""
    stride_slots: Annotated[int, Field(ge=1, le=512)]
    embedding_size: Annotated[int, Field(ge=1)]
    """D: floats of an embedding."""
    hops: Annotated[int, Field(ge=1, le=64)]
    """R: rows of the attention."""
    sample: SampleShape
    thresholds: Mapping[str, ThresholdPair]
    files: Mapping[str, str] = Field(default_factory=dict)
    """File name to sha256, in hex; filled in by `write_manifest`."""
    training: Mapping[str, Any] = Field(default_factory=dict)
    """What it was trained on and how: free keys, for people."""
    measured: Mapping[str, Any] = Field(default_factory=dict)
    """Accuracy as measured: free keys, for people."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels repeat")
        if self.background not in self.labels:
            raise ValueError(f"background {self.background!r} is not among the labels")
        if set(self.thresholds) != set(self.event_labels):
            raise ValueError(f"thresholds must name exactly {sorted(self.event_labels)}")
        if self.stride_slots > self.window_slots:
            raise ValueError("stride_slots must not be above window_slots")
        return self

    @property
    def event_labels(self) -> tuple[str, ...]:
        """The labels that can become events: all but the background."""
        return tuple(label for label in self.labels if label != self.background)

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        return self.window_slots / self.sample_fps

    @property
    def stride_seconds(self) -> float:
        """Time between two windows of a camera."""
        return self.stride_slots / self.sample_fps


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs and reference outputs; an engine that does not reproduce them does not serve."""

    pictures: NDArray[np.uint8]
    """(N, K, H, W, 3) uint8."""
    embeddings: NDArray[np.float32]
    """(N, D) float32: what the backbone must give for `pictures`."""
    window_embeddings: NDArray[np.float32]
    """(M, T, D) float32."""
    window_mask: NDArray[np.bool_]
    """(M, T) bool."""
    probabilities: NDArray[np.float32]
    """(M, L) float32: what the head must give for the windows."""
    attention: NDArray[np.float32]
    """(M, R, T) float32."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked bundle: every file is there and has the checksum its manifest names."""

    path: Path
    manifest: Manifest
    sha256: str
    """Of the manifest file, which holds the checksums of all others: the model's identity."""

    @property
    def backbone_path(self) -> Path:
        """Where `backbone.onnx` lies."""
        return self.path / BACKBONE

    @property
    def head_path(self) -> Path:
        """Where `head.onnx` lies."""
        return self.path / HEAD

    def golden(self) -> Golden:
        """Read the golden inputs and outputs.

        Raises:
            BundleInvalid: an array is missing or has another shape or type than the manifest says.
        """
        return _read_golden(self.path / GOLDEN, self.manifest)


def find_bundle(name: str, near: Path) -> Path:
    """Return the folder of the bundle called `name`: a path, relative to `near`, or the name of a shipped bundle.

    Raises:
        BundleInvalid: there is no such folder, and the message lists the shipped bundles; or it cannot be looked at.
    """
    direct = near / os.path.expanduser(name)
    try:
        if (direct / MANIFEST).is_file():
            return direct.resolve()
        shipped = _shipped_folder()
        if shipped is not None and (shipped / name / MANIFEST).is_file():
            return shipped / name
        names = sorted(entry.parent.name for entry in shipped.glob(f"*/{MANIFEST}")) if shipped else []
    except OSError as exc:
        raise BundleInvalid(name, f"cannot be looked at: {exc.strerror or exc}") from exc
    raise BundleInvalid(
        name,
        f"no bundle here: neither {direct / MANIFEST} nor one of the shipped bundles ({', '.join(names) or 'none'})",
    )


def _shipped_folder() -> Path | None:
    spec = find_spec("models")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "bundles"


def load_bundle(path: Path) -> Bundle:
    """Read a bundle's manifest and check every file against its checksum.

    Raises:
        BundleInvalid: the manifest is missing or wrong, or a file is missing or altered.
    """
    raw = _read_bytes(path, MANIFEST)
    manifest = _parse_manifest(path / MANIFEST, raw)
    for name in CHECKED_FILES:
        expected = manifest.files.get(name)
        if expected is None:
            raise BundleInvalid(path, f"{MANIFEST} names no checksum for {name}")
        actual = hashlib.sha256(_read_bytes(path, name)).hexdigest()
        if actual != expected:
            raise BundleInvalid(
                path,
                f"{name} is not the file the manifest was written for "
                f"(sha256 {actual[:12]}…, expected {expected[:12]}…)",
            )
    return Bundle(path=path, manifest=manifest, sha256=hashlib.sha256(raw).hexdigest())


def write_manifest(path: Path, manifest: Manifest) -> Bundle:
    """Write `model.toml` into `path`, with the checksums of the files that lie there, and load the bundle.

    Raises:
        BundleInvalid: a file of the bundle is missing.
    """
    files = {name: hashlib.sha256(_read_bytes(path, name)).hexdigest() for name in CHECKED_FILES}
    complete = manifest.model_copy(update={"files": files})
    (path / MANIFEST).write_text(tomli_w.dumps(complete.model_dump(mode="json")), encoding="utf-8")
    return load_bundle(path)


def _parse_manifest(path: Path, raw: bytes) -> Manifest:
    try:
        return Manifest.model_validate(tomllib.loads(raw.decode("utf-8")))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise BundleInvalid(path, f"not a TOML file: {exc}") from exc
    except ValidationError as exc:
        reasons = "; ".join(
            f"{'.'.join(str(part) for part in error['loc']) or 'manifest'}: {error['msg']}" for error in exc.errors()
        )
        raise BundleInvalid(path, reasons) from exc


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except OSError as exc:
        raise BundleInvalid(path, f"{name} cannot be read: {exc.strerror or exc}") from exc


def _read_golden(path: Path, manifest: Manifest) -> Golden:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            golden = Golden(
                pictures=arrays["pictures"],
                embeddings=arrays["embeddings"],
                window_embeddings=arrays["window_embeddings"],
                window_mask=arrays["window_mask"],
                probabilities=arrays["probabilities"],
                attention=arrays["attention"],
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as exc:
        raise BundleInvalid(path, f"golden arrays cannot be read: {exc}") from exc
    shape = manifest.sample
    wanted: dict[str, tuple[int, ...]] = {
        "pictures": (shape.pictures, shape.height_pixels, shape.width_pixels, 3),
        "embeddings": (manifest.embedding_size,),
        "window_embeddings": (manifest.window_slots, manifest.embedding_size),
        "window_mask": (manifest.window_slots,),
        "probabilities": (len(manifest.labels),),
        "attention": (manifest.hops, manifest.window_slots),
    }
    for name, tail in wanted.items():
        found = getattr(golden, name).shape
        if found[1:] != tail or found[0] == 0:
            raise BundleInvalid(path, f"{name} has shape {found}, expected (N, {', '.join(map(str, tail))})")
    return golden
