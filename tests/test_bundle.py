"""Bundles: what is checked before a model may serve."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from monitor.bundle import BACKBONE, GOLDEN, MANIFEST, find_bundle, load_bundle, write_manifest
from monitor.errors import BundleInvalid

SHIPPED = Path(__file__).parent.parent / "models" / "bundles"


@pytest.fixture
def bundle_path(tmp_path):
    return Path(shutil.copytree(SHIPPED / "demo", tmp_path / "demo"))


@pytest.mark.parametrize("name", ["demo", "fight"])
def test_shipped_bundles_are_whole(name):
    bundle = load_bundle(SHIPPED / name)
    assert bundle.manifest.name == name
    assert bundle.golden().pictures.dtype == np.uint8
    assert (bundle.path / "card.md").is_file()
    assert all(file.stat().st_size < 20_000_000 for file in bundle.path.iterdir())


@pytest.mark.parametrize("name", [BACKBONE, GOLDEN, "head.onnx"])
def test_a_flipped_byte_is_found(bundle_path, name):
    raw = bytearray((bundle_path / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (bundle_path / name).write_bytes(raw)
    with pytest.raises(BundleInvalid, match=f"{name} is not the file the manifest was written for"):
        load_bundle(bundle_path)


def test_a_folder_that_cannot_be_looked_at_is_told(tmp_path):
    with pytest.raises(BundleInvalid, match="cannot be looked at: File name too long"):
        find_bundle("a" * 300, tmp_path)


def test_a_missing_file_is_named(bundle_path):
    (bundle_path / BACKBONE).unlink()
    with pytest.raises(BundleInvalid, match=f"{BACKBONE} cannot be read"):
        load_bundle(bundle_path)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("stride_slots = ", "stride_slots = 9", "stride_slots"),
        ('background = "', 'background = "other', "not among the labels"),
        ("format_version = 1", "format_version = 9", "format_version"),
        ("[sample]", "colour = 1\n[sample]", "colour"),
        ("name = ", "name ", "not a TOML file"),
    ],
)
def test_a_wrong_manifest_is_refused(bundle_path, before, after, reason):
    path = bundle_path / MANIFEST
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(BundleInvalid, match=reason):
        load_bundle(bundle_path)


def test_golden_arrays_must_have_the_manifests_shapes(bundle_path):
    with np.load(bundle_path / GOLDEN) as arrays:
        wrong = dict(arrays)
    wrong["probabilities"] = wrong["probabilities"][:, :1]
    np.savez(bundle_path / GOLDEN, **wrong)
    bundle = write_manifest(bundle_path, load_manifest(bundle_path))
    with pytest.raises(BundleInvalid, match="probabilities has shape"):
        bundle.golden()


def load_manifest(path):
    return load_bundle(SHIPPED / "demo").manifest


def test_bundles_are_found_by_path_and_by_name(bundle_path, tmp_path):
    assert find_bundle("demo", tmp_path) == bundle_path
    assert find_bundle("fight", tmp_path).name == "fight"
    with pytest.raises(BundleInvalid, match="demo, fight"):
        find_bundle("none", tmp_path)


def test_a_pickle_in_a_bundle_is_not_run(bundle_path, tmp_path):
    """A bundle may come from a stranger, who can write a manifest with the right checksums."""
    mark = tmp_path / "was-here"
    with np.load(bundle_path / GOLDEN) as arrays:
        trapped = dict(arrays)
    trapped["pictures"] = np.array([_Trap(mark)], dtype=object)
    np.savez(bundle_path / GOLDEN, **trapped)
    bundle = write_manifest(bundle_path, load_manifest(bundle_path))
    with pytest.raises(BundleInvalid, match="golden arrays cannot be read"):
        bundle.golden()
    assert not mark.exists()
    np.load(bundle_path / GOLDEN, allow_pickle=True)["pictures"]
    assert mark.exists(), "the trap is a real one"


class _Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))
