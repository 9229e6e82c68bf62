"""The time of day as a clock that never goes back."""

import time
from collections.abc import Callable
from threading import Lock


class WallClock:
    """Seconds since 1970 that only increase, even if the machine's clock is set back.

    If the machine's clock is ahead, this clock follows it. If it is behind, this clock continues at
    its usual pace from the latest reading until the machine's clock has caught up.

    Args:
        after: no reading is earlier.
    """

    def __init__(
        self,
        after: float = 0.0,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ):
        self._wall, self._steady = wall, steady
        self._latest, self._at = after, steady()
        self._lock = Lock()

    def now(self) -> float:
        with self._lock:
            wall, steady = self._wall(), self._steady()
            self._latest = max(wall, self._latest + steady - self._at)
            self._at = steady
            return self._latest

    def ahead(self) -> float:
        """Return by how many seconds this clock is ahead of the machine's."""
        return self.now() - self._wall()
