"""The consumer of docs/consumers.md, as it stands there, on the real broker."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.delivery.test_consumer import life, write
from tests.services.kafka import KafkaBroker

PAGE = Path(__file__).parents[2] / "docs" / "consumers.md"


def documented() -> str:
    [block] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(block)


def run_until(script: Path, lines: int, *arguments: str) -> list[str]:
    """Run the consumer until it has printed so many lines, and a moment longer; return them."""
    out = script.with_suffix(".out")
    with out.open("w") as file:
        command = ["env", "--default-signal=INT", sys.executable, str(script), *arguments]  # a job of CI may ignore it
        consumer = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 30
            while len(out.read_text().splitlines()) < lines and time.monotonic() < end:
                time.sleep(0.1)
            time.sleep(1.0)
            assert consumer.poll() is None
            consumer.send_signal(signal.SIGINT)  # it leaves its group, so that the next need not wait for it
            consumer.wait(10)
        finally:
            consumer.kill()
            consumer.wait(5)
    return out.read_text().splitlines()


def test_it_is_short_and_needs_nothing_of_ours() -> None:
    assert len(documented().splitlines()) <= 25
    assert "monitor" not in documented()


def test_it_tells_each_event_once_and_goes_on_where_it_was(
    kafka_broker: KafkaBroker, topic: str, tmp_path: Path
) -> None:
    script = tmp_path / "consumer.py"
    script.write_text(documented())
    first, second = life(0), life(1)
    write(kafka_broker, topic, [*first, *first, *second[:2]])
    arguments = (kafka_broker.bootstrap, topic, f"group-{topic}")
    expected = [
        f"{phase} yard fight {alerts[0].alert_id}" for alerts in (first, second) for phase in ("started", "ended")
    ]
    assert run_until(script, 3, *arguments) == expected[:3]
    write(kafka_broker, topic, second[2:])
    assert run_until(script, 1, *arguments) == expected[3:]
