#!/usr/bin/env bash
# Makes the virtual environment and installs the program with the developer's tools, at the pinned versions.
# Usage: setup-python.sh PYTHON VENV
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
venv=$2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Python 3.11 or newer is needed; '$python' is not. Try: make PYTHON=python3.11" >&2
    exit 2
fi

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then  # missing, or left half made
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "Installing python3-venv (Debian keeps it apart)."
        as_root apt-get update -qq
        as_root apt-get install -y -qq python3-venv >/dev/null
    fi
    "$python" -m venv --clear "$venv"
fi
"$venv/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . --group dev
