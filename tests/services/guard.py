"""Run a foreign server so that it can never outlive the test that wants it; orders come in on stdin.

    python guard.py COMMAND ARGUMENT…      stdin: "term" asks it to end, "kill" or the end of stdin kills it

A Java or Go program does not notice that its parent died; this process does, since its stdin ends then.
Standard library only; run by file name.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when the guard itself is killed (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def obey(child: subprocess.Popen[bytes]) -> None:
    """Carry out orders until stdin ends."""
    for order in sys.stdin:
        if order.strip() == "term":
            child.terminate()
        else:
            break
    child.kill()


def main() -> int:
    """Run the command; leave with its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C in a terminal is the owner's to handle
        signal.signal(number, signal.SIG_IGN)
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=child_signals)
    threading.Thread(target=obey, args=(child,), daemon=True).start()
    code = child.wait()
    os._exit(code & 0xFF)


def child_signals() -> None:
    """Give the child ordinary signals, out of the terminal's reach."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.setpgid(0, 0)
    die_with_parent()


if __name__ == "__main__":
    main()
