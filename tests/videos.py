"""Small videos for tests."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    times: Sequence[float] | None = None,
    rotation: int = 0,
    codec: str = "mpeg4",
    sound: bool = False,
) -> None:
    """frames: [H, W, 3] uint8; times: of each, seconds (default: 10 a second); rotation: by which
    a player turns them, degrees counterclockwise."""
    height, width = frames[0].shape[:2]
    times = [i / 10 for i in range(len(frames))] if times is None else times
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=100)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size = 5
        stream.bit_rate = 4_000_000
        if rotation:
            stream.set_display_rotation(rotation)
        if sound:
            container.add_stream("aac", rate=8000)
        for time, pixels in zip(times, frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
