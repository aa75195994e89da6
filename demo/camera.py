"""A folder of drawn streams in, RTSP cameras that other machines reach out: the container beside a monitor.

Runs under the system's Python, which alone has GStreamer's bindings; so it imports nothing but the standard library.
`python -m demo.streams FOLDER` draws the streams.

    python3 demo/camera.py FOLDER [PORT]
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

SERVER = Path(__file__).parent.parent / "tests/services/rtsp/server.py"
FPS = 15.0
"""Of the drawn scenes, as in `demo.streams`."""
PORT = 8554
STOP_SECONDS = 3.0


def mounts(folder: Path) -> dict[str, dict[str, object]]:
    """Return what the server plays: `gate-911-60s.h264` as /gate, as a camera that never pauses."""
    return {
        path.name.partition("-")[0]: {
            "file": str(path.absolute()),
            "codec": "h264",
            "fps": FPS,
            "loop": True,
            "shared": False,
            "live": True,
        }
        for path in sorted(folder.glob("*.h264"))
    }


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM or SIGINT, and return the server's exit code."""
    folder, port = Path(arguments[0]), int(arguments[1]) if len(arguments) > 1 else PORT
    cameras = mounts(folder)
    if not cameras:
        print(f"no streams (*.h264) in {folder}; make them by: python -m demo.streams {folder}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    server = subprocess.Popen([sys.executable, "-u", str(SERVER)], stdin=subprocess.PIPE, text=True)
    assert server.stdin is not None
    try:
        server.stdin.write(json.dumps({"address": "0.0.0.0", "port": port, "mounts": cameras}) + "\n")
        server.stdin.flush()
        print(f"serving {', '.join(cameras)} on port {port}", file=sys.stderr)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.stdin.close()  # the server ends with it
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
