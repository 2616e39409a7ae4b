"""What several threads together may hold in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """Lets threads hold up to `total` units at once; the others wait."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._change = threading.Condition()

    @contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Hold `amount` units inside the block, or all there are if it is more."""
        held = min(amount, self.total)
        with self._change:
            self._change.wait_for(lambda: self._free >= held)
            self._free -= held
        try:
            yield
        finally:
            with self._change:
                self._free += held
                self._change.notify_all()
