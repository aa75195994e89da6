"""`monitor alerts --follow` on a store that is empty at first."""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

from monitor.__main__ import INTERRUPTED
from monitor.config import load_config
from monitor.delivery.outbox import Outbox
from tests.delivery.test_outbox import make_alert
from tests.services.monitor import COMMAND, configuration

MESSAGE = {
    "alert_id": "1b0c6f0a",
    "phase": "started",
    "reason": None,
    "camera": {"id": "yard"},
    "event": {"label": "fight", "peak_score": 0.9},
    "time": {"started_at": "2026-01-31T12:00:00.000Z", "ended_at": None},
}


def test_the_first_alert_of_an_empty_store_has_a_header_and_the_next_has_none(tmp_path: Path) -> None:
    path = configuration(tmp_path, [{"id": "yard", "url": "rtsp://127.0.0.1:1/x"}], bundle="demo")
    outbox = Outbox.open(load_config(path).outbox, deliver=False)
    command = [*COMMAND, "alerts", "--follow", "--config", str(path)]
    following = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert following.stdout is not None
        assert following.stdout.readline() == "Nothing so far.\n"
        for number in (1, 2):
            outbox.commit([replace(make_alert(number), value=json.dumps(MESSAGE).encode())], now=100.0)
            if number == 1:
                assert following.stdout.readline().split()[:3] == ["began", "(UTC)", "camera"]
                assert following.stdout.readline().startswith("──")
            assert following.stdout.readline().split()[:4] == ["2026-01-31", "12:00:00", "yard", "fight"]
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == INTERRUPTED
    finally:
        following.kill()
        following.communicate()
        outbox.close()
