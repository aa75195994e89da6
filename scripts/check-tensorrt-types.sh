#!/usr/bin/env bash
# Check the types of what uses TensorRT against the stubs that are published: those of `tensorrt-stubs` on PyPI, the
# newest. They are generated from the bindings of 10.13 and no type checker reads them as they are, nor any version
# before; three slips are mended in a copy, which must fit or this fails:
#   - `add_scale_nd` has a parameter without a default after some with one;
#   - four methods of plugins have a parameter named `in`;
#   - the constant `bool` hides Python's own in every `-> bool`.
# The copy lies outside the environment, where it would pass
# for TensorRT itself. `stubs/tensorrt`, which `mypy` alone takes, is held to the bindings of 10 and 11 by
# `check-tensorrt-stubs.sh`.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
version=10.13.0.35.1
published=.cache/tensorrt-stubs-$version
if [ ! -d "$published" ]; then
    mkdir -p .cache
    work=$(mktemp -d .cache/tensorrt-stubs.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work" "tensorrt-stubs==$version"
    mend() {
        before=$(cksum < "$work/tensorrt_bindings/tensorrt.pyi")
        sed -E -i "$1" "$work/tensorrt_bindings/tensorrt.pyi"
        [ "$before" != "$(cksum < "$work/tensorrt_bindings/tensorrt.pyi")" ] || { echo "nothing to mend: $1"; exit 1; }
    }
    mend 's/(add_scale_nd.*channel_axis: int)\)/\1 = ...)/'
    mend 's/\bin: list\[/inputs: list[/'
    mend 's/^bool: DataType/bool_: DataType/'
    sed -i '1i # mypy: ignore-errors' "$work"/tensorrt/__init__.pyi "$work"/tensorrt_bindings/*.pyi
    mv "$work" "$published"
fi
MYPYPATH=$published "$python" -m mypy --cache-dir .cache/mypy-tensorrt monitor/scoring/tensorrt*.py monitor/scoring/cuda.py
