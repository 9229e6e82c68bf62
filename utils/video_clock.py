"""A clock that never goes back, for the packets of a video whose times may go back."""

from collections import deque
from typing import Any


class Clock:
    """One clock that never goes back, to which the times of packets are moved, in ticks.

    The times of a recording go back if it was joined from several, or its camera was restarted. The
    clock then continues one frame after the latest one. If the times later return to where they
    were before (one packet had a wrong time), the clock returns with them.

    Times go back if a key frame is earlier than any packet before it, or another packet is earlier
    by more than `window`: frames are stored in another order than they are shown in, but never
    across a key frame. Decoding times (dts) are not used, because FFmpeg invents them for some
    containers.
    """

    def __init__(self, step: int, window: int, leap: int):
        self.step, self.window, self.leap = step, window, leap
        self._offsets = deque([0], maxlen=8)  # the current one is the last
        self._latest: int | None = None  # presentation time

    def place(self, packet: Any) -> bool:
        """Change the packet's pts and dts, if it has them; return True if its time goes back."""
        back = False
        if packet.pts is not None:
            if self._latest is not None:
                back = self._choose(packet, self._latest)
            packet.pts += self._offsets[-1]
            self._latest = packet.pts if self._latest is None else max(self._latest, packet.pts)
        elif self._latest is not None:  # one frame later than the one before
            self._latest += packet.duration or self.step
        if packet.dts is not None:
            packet.dts += self._offsets[-1]
        return back

    def _choose(self, packet: Any, latest: int) -> bool:
        """Choose the offset with which the packet follows the packets before it."""
        ahead = packet.pts + self._offsets[-1] - latest
        back = ahead < (0 if packet.is_keyframe else -self.window)
        if not back and ahead <= self.leap:
            return False
        for offset in reversed(self._offsets):
            if 0 <= packet.pts + offset - latest <= self.leap:
                self._offsets.append(offset)
                return back
        if back:
            self._offsets.append(latest + (packet.duration or self.step) - packet.pts)
        return back
