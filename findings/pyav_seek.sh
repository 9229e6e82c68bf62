#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg 8.0 inside): as documented, container.seek(t, stream=s) moves to a key frame at
# or before t. For files that PyAV has written itself it does not do so in MPEG-TS, MPEG-PS, fragmented
# MP4 and FLV: decoding begins after t, so that a program that relies on the seek loses frames. In an
# MPEG-PS, frames also have other times after a seek than without one.
#
# Output seen (Linux x86_64, Python 3.11): of 60 frames, one seek to the time of each,
#   x.mp4    begins later than asked for:  0, other time:  0
#   x.mkv    begins later than asked for:  0, other time:  0
#   x.ts     begins later than asked for: 60, other time:  0
#   x.mpg    begins later than asked for:  9, other time: 22
#   frag.mp4 begins later than asked for:  8, other time:  0
#   x.flv    begins later than asked for: 11, other time:  0
# Exit code 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip install --quiet --disable-pip-version-check --target packages av==18.1.0 numpy
PYTHONPATH=packages python3 - <<'PYTHON'
import sys
from fractions import Fraction

import av
import numpy as np

av.logging.set_level(None)
H264 = {"x264-params": "b-adapt=0:bframes=3:keyint=12:scenecut=0:log=-1"}
FILES = {  # name: codec, frames a second, options of the encoder, options of the container
    "x.mp4": ("libx264", 10, H264, {}),
    "x.mkv": ("libx264", 10, H264, {}),
    "x.ts": ("libx264", 10, H264, {}),
    "x.mpg": ("mpeg2video", 25, {}, {}),
    "frag.mp4": ("libx264", 10, H264, {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "x.flv": ("libx264", 10, H264, {}),
}


def write(name):
    """60 frames; the n-th shows the bits of n as light and dark stripes."""
    codec, rate, options, container = FILES[name]
    with av.open(name, "w", options=container) as file:
        stream = file.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 32, "yuv420p"
        stream.codec_context.gop_size = 12
        stream.codec_context.max_b_frames = 2 if codec == "mpeg2video" else 3
        stream.bit_rate = 2_000_000
        for number in range(60):
            bits = np.uint8([235 if number >> bit & 1 else 20 for bit in range(8)])
            pixels = np.tile(np.repeat(bits, 16)[None, :, None], (32, 1, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def number(frame):
    stripes = frame.to_ndarray(format="gray").reshape(32, 8, 16)[:, :, 4:12].mean((0, 2))
    return sum(1 << bit for bit in range(8) if stripes[bit] > 128)


def check(name):
    """How many seeks land late, and after how many a frame has another time than without a seek."""
    write(name)
    with av.open(name) as file:
        times = {number(frame): frame.pts for frame in file.decode(video=0)}
    assert sorted(times) == list(range(60)), times
    late = moved = 0
    for wanted in times.values():
        with av.open(name) as file:
            file.seek(wanted, stream=file.streams.video[0])
            found = [(number(frame), frame.pts) for frame in file.decode(video=0)]
        late += not found or found[0][1] > wanted
        moved += any(times[shown] != pts for shown, pts in found)
    return late, moved


seen = {name: check(name) for name in FILES}
for name, (late, moved) in seen.items():
    print(f"{name:8} begins later than asked for: {late:2}, other time: {moved:2}")
right = all(seen[name] == (0, 0) for name in ("x.mp4", "x.mkv"))
wrong = all(seen[name][0] for name in ("x.ts", "x.mpg", "frag.mp4", "x.flv")) and seen["x.mpg"][1]
sys.exit(0 if right and wrong else "the behaviour has changed")
PYTHON
