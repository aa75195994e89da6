"""A program that has run OpenVINO ends as it says, however late OpenVINO's own threads are."""

from __future__ import annotations

import subprocess
import sys

from monitor.bundle import Bundle

PROGRAMS = 40
SCRIPT = f"""
import os, sys
from pathlib import Path
import numpy as np
from monitor.bundle import load_bundle
from monitor.scoring.door import Precision
from monitor.scoring.openvino import OpenVinoDoor, load_library

bundle = load_bundle(Path(sys.argv[1]))
load_library()
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
codes = []
for _ in range({PROGRAMS}):
    child = os.fork()
    if child == 0:
        break
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    print({{code: codes.count(code) for code in codes}})
    sys.exit()

shape = bundle.manifest.sample
engine = OpenVinoDoor().open(bundle, precision=Precision.FP32, threads=4)
for thread in map(int, os.listdir("/proc/self/task")):
    if thread != os.getpid():  # OpenVINO's threads run when the program waits, and not before
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
engine.embed(np.zeros((4, shape.pictures, shape.height_pixels, shape.width_pixels, 3), dtype=np.uint8))
engine.close()
"""


def test_a_program_whose_streams_are_late_ends_with_0(tiny_bundle: Bundle) -> None:
    """Each ends right after its batch; with Python callbacks on OpenVINO's threads one in ten was aborted."""
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_bundle.path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, f"{{0: {PROGRAMS}}}\n"), ran.stderr
