"""Where `fertool` and `python -m fertool` begin.

The second is for torchrun, and for machines without the console script.
"""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line; Ctrl-C during its import ends the process without a message."""
    # Python's own handler would print a traceback of half-imported modules.
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    from fertool.cli import app

    signal.signal(signal.SIGINT, handler)
    app.main()


if __name__ == "__main__":
    main()
