"""The back-up of the outbox by the operations guide's own command, while the monitor writes; and back again."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from monitor.config import OutboxConfig
from monitor.delivery.database import SIDECARS
from monitor.delivery.outbox import Outbox

from .test_outbox import make_alert, waiting

GUIDE = Path(__file__).parents[2] / "docs/operations.md"


def test_a_copy_made_while_it_is_written_takes_its_place(tmp_path):
    settings = OutboxConfig(path=tmp_path / "outbox.sqlite", maximum_records=100)
    alerts = [make_alert(number) for number in range(4)]
    outbox = Outbox.open(settings, deliver=True)
    outbox.commit(alerts[:3], now=100.0)
    outbox.acknowledge([outbox.pending(1)[0].position])
    back_up(tmp_path)
    outbox.acknowledge([stored.position for stored in outbox.pending(10)])
    outbox.commit(alerts[3:], now=101.0)
    assert waiting(outbox) == alerts[3:], "the monitor was not disturbed"
    outbox.close()

    (tmp_path / "outbox-copy.sqlite").replace(settings.path)
    for ending in SIDECARS:
        settings.path.with_name(settings.path.name + ending).unlink(missing_ok=True)
    restored = Outbox.open(settings, deliver=True)
    assert waiting(restored) == alerts[1:3], "what was acknowledged since the copy is sent again"
    assert len(restored.recent(10)) == 3
    restored.close()


def test_where_no_outbox_is_nothing_is_taken_for_a_copy(tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        back_up(tmp_path)
    assert list(tmp_path.iterdir()) == []


def back_up(folder: Path) -> None:
    """Run the guide's command in the outbox's folder."""
    (command,) = re.findall(r"^python3 -c .*backup.*$", GUIDE.read_text(), re.MULTILINE)
    _, *arguments = shlex.split(command)
    subprocess.run([sys.executable, *arguments], cwd=folder, check=True, timeout=30)
