"""`python -m demo`. Ctrl-C while the libraries still load ends it quietly."""

from __future__ import annotations

import sys

from monitor.__main__ import INTERRUPTED

if __name__ == "__main__":
    try:
        from demo.show import main
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(main())
