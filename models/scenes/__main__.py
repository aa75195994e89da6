"""`python -m models.scenes OUT --clips N --seed S`: writes labelled clips of drawn scenes."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.progress import track

from models.scenes.clips import plan_clips, write_clips, write_recordings


def main() -> None:
    """Read the command line and write clips, and long recordings where asked."""
    parser = argparse.ArgumentParser(prog="python -m models.scenes", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--clips", type=int, default=2000, help="clips to write, half of each label")
    parser.add_argument("--seed", type=int, default=1, help="equal seeds write equal clips")
    parser.add_argument("--recordings", type=int, default=0, help="long recordings instead, with events.csv")
    parser.add_argument("--minutes", type=float, default=5.0, help="length of a recording")
    options = parser.parse_args()
    if options.recordings:
        paths = write_recordings(options.out, options.recordings, options.seed, duration_seconds=60 * options.minutes)
        for _ in track(paths, description="Drawing recordings", total=options.recordings):
            pass
        return
    plans = plan_clips(options.clips, options.seed)
    for _ in track(write_clips(options.out, plans), description="Drawing clips", total=len(plans)):
        pass


if __name__ == "__main__":
    main()
