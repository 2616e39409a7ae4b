"""Where `fertool` and `python -m fertool` (for torchrun, and for machines without the console script) begin."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported ends the process without a word."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    from fertool.cli import app

    signal.signal(signal.SIGINT, handler)
    app.main()


if __name__ == "__main__":
    main()
