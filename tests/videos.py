"""Small videos for tests."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    times: Sequence[float] | None = None,
    rotation: int = 0,
    codec: str = "mpeg4",
    sound: bool = False,
    aspect: Fraction = Fraction(1),
) -> None:
    """Write a small video.

    Args:
        frames: [H, W, 3] uint8.
        times: of the frames in seconds (default: 10 frames per second).
        rotation: by which a player rotates the frames, degrees counterclockwise.
        aspect: width of a pixel over its height.
    """
    height, width = frames[0].shape[:2]
    times = [i / 10 for i in range(len(frames))] if times is None else times
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=100)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size = 5
        stream.bit_rate = 4_000_000
        stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        if sound:
            container.add_stream("aac", rate=8000)
        for time, pixels in zip(times, frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


# Options of `write_numbered` for each kind of file that is read. B frames are stored in another
# order than they are shown in.
B_FRAMES = {"x264-params": "b-adapt=0:bframes=3:b-pyramid=normal:keyint=12:scenecut=0:log=-1"}
H264 = dict(codec="libx264", options=B_FRAMES)
HEVC = dict(codec="libx265", options={"x265-params": "log-level=none:keyint=12:bframes=3"})
MPEG2 = dict(codec="mpeg2video", b_frames=2, rate=25)
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
VIDEOS: dict[str, dict[str, Any]] = {
    "plain.mp4": H264,
    "fragments.mp4": H264 | dict(container=FRAGMENTS),
    "dash.mp4": H264 | dict(container={"movflags": "dash+frag_keyframe"}),
    "thousands.mp4": H264 | dict(rate=2000),
    "refresh.mp4": dict(codec="libx264", options={"x264-params": "intra-refresh=1:keyint=12"}),
    "open.mp4": dict(
        codec="libx264", options={"x264-params": "open-gop=1:b-adapt=0:bframes=3:keyint=12"}
    ),
    "x.m4v": H264 | dict(format="mp4"),
    "x.mov": H264,
    "x.f4v": H264 | dict(format="f4v"),
    "x.3gp": dict(codec="mpeg4", format="3gp"),
    "x.3g2": dict(codec="mpeg4"),
    "h264.mkv": H264,
    "hevc.mkv": HEVC,
    "thousands.mkv": H264 | dict(rate=2000),
    "vp8.webm": dict(codec="libvpx", options={"deadline": "realtime"}),
    "vp9.webm": dict(codec="libvpx-vp9", options={"deadline": "realtime"}),
    "mpeg4.avi": dict(codec="mpeg4"),
    "reordered.avi": dict(codec="mpeg4", b_frames=2),
    "h264.avi": H264,
    "mjpeg.avi": dict(codec="mjpeg"),
    "h264.ts": H264 | dict(format="mpegts"),
    "hevc.ts": HEVC | dict(format="mpegts"),
    "mpeg2.ts": MPEG2 | dict(format="mpegts"),
    "thousands.ts": H264 | dict(format="mpegts", rate=2000),
    "refresh.ts": dict(
        codec="libx264", options={"x264-params": "intra-refresh=1:keyint=12"}, format="mpegts"
    ),
    "open.ts": dict(
        codec="libx264",
        options={"x264-params": "open-gop=1:b-adapt=0:bframes=3:keyint=12"},
        format="mpegts",
    ),
    "x.m2ts": H264 | dict(format="mpegts", container={"mpegts_m2ts_mode": "1"}),
    "x.mts": H264 | dict(format="mpegts", container={"mpegts_m2ts_mode": "1"}),
    "mpeg2.mpg": MPEG2 | dict(format="mpeg"),
    "mpeg1.mpeg": dict(codec="mpeg1video", b_frames=2, rate=25, format="mpeg"),
    "mpeg1.mpe": dict(codec="mpeg1video", rate=25, format="mpeg"),
    "h264.mpg": H264 | dict(format="mpeg", rate=25),
    "x.vob": MPEG2 | dict(format="vob"),
    "x.m2v": MPEG2 | dict(format="mpeg2video"),
    "h264.flv": H264 | dict(format="flv"),
    "thousands.flv": H264 | dict(format="flv", rate=2000),
    "sorenson.flv": dict(codec="flv", format="flv"),
    "x.wmv": dict(codec="wmv2", format="asf"),
    "x.asf": H264 | dict(format="asf"),
    "x.ogv": dict(codec="libvpx", format="ogg", options={"deadline": "realtime"}),
    "x.mxf": MPEG2 | dict(format="mxf"),
    "x.mjpeg": dict(codec="mjpeg", format="mjpeg", rate=25),
    "x.mjpg": dict(codec="mjpeg", format="mjpeg", rate=25),
    "x.h264": H264 | dict(format="h264", rate=25),
    "x.h265": HEVC | dict(format="hevc", rate=25),
    "x.hevc": HEVC | dict(format="hevc", rate=25),
    "x.y4m": dict(codec="wrapped_avframe", format="yuv4mpegpipe"),
}
BITS = 8  # of the number of a frame, shown as stripes of 16 pixels width


def write_numbered(
    path: Path,
    count: int,
    codec: str,
    rate: int = 10,
    format: str | None = None,
    b_frames: int = 0,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> None:
    """Write a video whose frames show their numbers, counted from 0.

    Frames have 128 x 32 pixels, and every 12th is a key frame.

    Args:
        options: of the encoder.
        container: options of the file format.
    """
    with av.open(str(path), "w", format=format, options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = 16 * BITS, 32
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = 12
        stream.codec_context.max_b_frames = b_frames
        stream.bit_rate = 2_000_000
        for number in range(count):
            bits = [235 if number >> bit & 1 else 20 for bit in range(BITS)]
            pixels = np.tile(np.repeat(np.uint8(bits), 16)[None, :, None], (32, 1, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def number_in(pixels: torch.Tensor) -> int:
    """Return the number that a frame, [3, H, W] uint8, shows."""
    stripes = pixels.float().mean((0, 1)).view(BITS, 16)[:, 4:12].mean(1)
    return sum(1 << bit for bit, light in enumerate(stripes.tolist()) if light > 128)
