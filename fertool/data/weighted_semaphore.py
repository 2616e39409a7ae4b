"""A semaphore of many units, of which a thread acquires several at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class WeightedSemaphore:
    """Lets threads hold up to `total` units together; the others wait."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._changed = threading.Condition()

    @contextmanager
    def acquire(self, amount: int) -> Iterator[None]:
        """Hold `amount` units inside the block, or all there are if it is more."""
        # One that asks for more than there is would wait forever; it runs alone instead.
        held = min(amount, self.total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= held)
            self._free -= held
        try:
            yield
        finally:
            with self._changed:
                self._free += held
                # All of them: the one that would be woken alone may need more than is free now.
                self._changed.notify_all()
