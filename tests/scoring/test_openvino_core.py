"""An engine that another thread gives up leaves the process able to take signals."""

from __future__ import annotations

import subprocess
import sys

from monitor.bundle import Bundle

SCRIPT = """
import os, signal, sys, threading, time
from pathlib import Path
from monitor.bundle import load_bundle
from monitor.scoring.engine import open_engine

heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
first = open_engine(load_bundle(Path(sys.argv[1])), preference="openvino", threads=1)
closing = threading.Thread(target=first.engine.close)
closing.start()
closing.join()
del first
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.1)
print("heard", len(heard))
"""


def test_a_signal_after_another_thread_closed_the_engine(tiny_bundle: Bundle) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_bundle.path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "heard 1\n"), ran.stderr
