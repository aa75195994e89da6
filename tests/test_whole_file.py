"""Files that appear whole or not at all, also where two processes write the same one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from monitor.whole_file import whole_file

WRITER = """
import sys
from pathlib import Path
from monitor.whole_file import whole_file
for number in range(200):
    with whole_file(Path(sys.argv[1])) as file:
        for _ in range(64):
            file.write(bytes([int(sys.argv[2])]) * 4096)
"""


def test_two_processes_that_write_one_file_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "features.npy"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, number]) for number in ("1", "2")]
    seen: set[int] = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 64 * 4096
            assert len(set(content)) == 1
            seen |= set(content)
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen == {1, 2}
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_that_was_left_behind_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    (tmp_path / "engine.part").write_bytes(b"much longer than what comes")
    with whole_file(path) as file:
        file.write(b"short")
    assert path.read_bytes() == b"short"


def test_what_stood_there_stays_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
