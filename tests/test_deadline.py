"""One budget for many steps."""

from __future__ import annotations

import time

from monitor.deadline import Deadline


def test_what_is_left_shrinks_and_never_is_negative():
    deadline = Deadline(0.05)
    assert 0.0 < deadline.remaining() <= 0.05
    assert deadline.remaining(at_most=0.01) <= 0.01
    assert not deadline.passed
    time.sleep(0.06)
    assert deadline.remaining() == 0.0
    assert deadline.passed
