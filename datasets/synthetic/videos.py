"""Synthetic videos of several cameras at one place, with the true tracks of all people.

A person walks through the view of a camera, leaves it, and appears some seconds later in the same
or another camera. Each video has a file of boxes in the form of MOTChallenge; an identity has the
same number in all of them. Each camera depends on the seed and its number only.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from datasets.synthetic.figures import draw_person
from datasets.synthetic.looks import Look, Pose, make_looks
from datasets.synthetic.output import (
    VERSION,
    check_at_least,
    check_common,
    in_parallel,
    is_finished,
    write_record,
)
from datasets.synthetic.places import PLACES
from datasets.synthetic.scenes import (
    CAMERA,
    OVERSAMPLE,
    PEOPLE,
    camera_effects,
    draw_shadow,
)
from datasets.synthetic.stage import Stage
from utils.errors import UserError
from utils.files import make_folder
from utils.optional import optional

WALKS = 6  # stream of random numbers
STEPS = 1.9  # of a walking person, a second
PAUSE = (1.0, 6.0)  # seconds out of sight between two walks
DURATION = (4.0, 10.0)  # seconds of one walk through a camera's view


@dataclass(frozen=True)
class Walk:
    """One walk of an identity (1..N) through the view of a camera (1..C).

    Attributes:
        start, end: seconds.
        across: positive from left to right, negative from right to left.
        depth: at start and end, 0 (far) to 1 (near).
    """

    person: int
    camera: int
    start: float
    end: float
    across: int
    depth: tuple[float, float]


def plan_walks(identities: int, cameras: int, seconds: float, seed: int) -> list[Walk]:
    """Return the walks of all people in order of their start. Nobody is in two places at the same
    time."""
    walks = []
    for person in range(1, identities + 1):
        rng = np.random.default_rng([seed, WALKS, person])
        time = float(rng.uniform(0, min(seconds / 2, 20)))
        camera = int(rng.integers(cameras))
        while time < seconds:
            end = time + float(rng.uniform(*DURATION))
            across = 1 if rng.random() < 0.5 else -1
            depth = tuple(rng.uniform(0.05, 0.95, 2).tolist())
            walks.append(Walk(person, camera + 1, time, end, across, (depth[0], depth[1])))
            time = end + float(rng.uniform(*PAUSE))
            camera = (camera + int(rng.integers(-1, 2))) % cameras
    return sorted(walks, key=lambda walk: (walk.start, walk.person))


@dataclass(frozen=True)
class CameraVideo:
    """The video of one camera. The walks determine who is where."""

    camera: int
    size: tuple[int, int]  # width, height in pixels
    seed: int
    difficulty: float

    def frames(
        self, walks: list[Walk], looks: list[Look], times: np.ndarray
    ) -> Iterator[tuple[Image.Image, list[tuple[int, list[float], float]]]]:
        """Yield, for each time, the picture and its people: identity, box x1 y1 x2 y2 in pixels,
        visible share."""
        rng = np.random.default_rng([self.seed, CAMERA, self.camera, 2])
        w, h = (side * OVERSAMPLE for side in self.size)
        empty = Stage(w, h, float(rng.uniform(0.14, 0.26)), rng)
        PLACES[(self.camera - 1) % len(PLACES)](empty)
        light = float(rng.uniform(-1, 1))
        mine = [walk for walk in walks if walk.camera == self.camera]
        for number, time in enumerate(times.tolist()):
            stage = empty.copy()
            here = [walk for walk in mine if walk.start <= time < walk.end]
            people = _draw_people(stage, here, looks, time, light)
            pixels = np.asarray(stage.image.reduce(OVERSAMPLE), np.float32)
            # The camera's settings are constant; only its noise differs between frames.
            settings = np.random.default_rng([self.seed, CAMERA, self.camera, 3])
            noise = np.random.default_rng([self.seed, CAMERA, self.camera, 4, number])
            scale = self.size[1] / 256
            yield (
                camera_effects(
                    pixels, scale, self.seed, self.camera, settings, self.difficulty, noise
                ),
                people,
            )


def _draw_people(
    stage: Stage, walks: list[Walk], looks: list[Look], time: float, light: float
) -> list[tuple[int, list[float], float]]:
    """Draw the people from far to near. Return their boxes and visible shares."""
    placed = []
    for walk in walks:
        share = (time - walk.start) / (walk.end - walk.start)
        depth = walk.depth[0] + share * (walk.depth[1] - walk.depth[0])
        far = stage.ground + 0.1 * stage.h
        y = far + (stage.h * 1.05 - far) * depth
        x = stage.w * ((share if walk.across > 0 else 1 - share) * 1.2 - 0.1)
        placed.append((y, x, walk))
    owner = np.full((stage.h, stage.w), 0, np.int32)  # the visible person of each pixel
    found = []
    for y, x, walk in sorted(placed, key=lambda item: item[:2]):
        look, p = looks[walk.person - 1], (y - stage.horizon) * 0.78
        facing = walk.across * np.pi / 2
        phase = 2 * np.pi * STEPS / 2 * (time - walk.start)
        draw_shadow(stage, x, y, p, light)
        pose = Pose(facing, phase, 0.4, "swing", light)
        figure, (fx, fy) = draw_person(look, pose, p * look.height)
        left, top = int(x - fx), int(y - fy)
        stage.image.paste(figure, (left, top), figure)
        mask = np.asarray(figure.getchannel("A")) > 90
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = np.array(
            [left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1]
        )
        _mark(owner, mask, left, top, walk.person)
        found.append((walk.person, box, int(mask.sum())))
    limits = np.array([stage.w, stage.h, stage.w, stage.h])
    people = []
    for person, box, pixels in found:
        clipped = np.clip(box, 0, limits)
        if (clipped[2:] - clipped[:2] < 2 * OVERSAMPLE).any():
            continue
        visible = float((owner == person).sum()) / pixels
        people.append((person, (clipped / OVERSAMPLE).tolist(), visible))
    return people


def _mark(owner: np.ndarray, mask: np.ndarray, left: int, top: int, person: int) -> None:
    """Write `person` into `owner` where the mask, placed at (left, top), is inside the picture."""
    height, width = owner.shape
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + mask.shape[0], height), min(left + mask.shape[1], width)
    if y0 < y1 and x0 < x1:
        owner[y0:y1, x0:x1][mask[y0 - top : y1 - top, x0 - left : x1 - left]] = person


def write_videos(
    out: str,
    identities: int = 20,
    cameras: int = 3,
    seconds: float = 60.0,
    rate: int = 10,
    size: tuple[int, int] = (640, 384),
    seed: int = 0,
    difficulty: float = 1.0,
    workers: int | None = None,
) -> bool:
    """Draw the videos of `cameras` cameras into the folder `out`/video.

    Args:
        rate: frames a second.
        size: width and height in pixels, even numbers.
        difficulty: as in `write_dataset`.
        workers: processes; one per core if None.

    Returns:
        False if `out` already holds these videos, finished.

    Raises:
        UserError: `out` has other content, a number is out of its range, or PyAV is missing.
    """
    optional("av", "--layout video", "requirements-index.txt")
    check_at_least(identities=(identities, 1), cameras=(cameras, 1), rate=(rate, 1), seed=(seed, 0))
    if not 1 <= seconds <= 36000:
        raise UserError(f"--seconds: expected 1 to 36000, found {seconds:g}")
    if size[0] % 2 or size[1] % 2:
        raise UserError(
            f"--width, --height: expected even numbers of pixels, found {size[0]} and {size[1]}"
        )
    asked = {
        "version": VERSION,
        "layout": "video",
        "identities": identities,
        "cameras": cameras,
        "seconds": seconds,
        "rate": rate,
        "size": list(size),
        "seed": seed,
        "difficulty": difficulty,
    }
    check_common(size, workers, difficulty)
    if is_finished(out, asked):
        return False
    root = Path(out, "video")
    make_folder(root, "--out")
    write_record(out, asked, finished=False)
    write = functools.partial(
        write_video,
        root=root,
        walks=plan_walks(identities, cameras, seconds, seed),
        looks=make_looks(identities, np.random.default_rng([seed, PEOPLE]), 0.55 * difficulty),
        frames=round(seconds * rate),
        rate=rate,
    )
    videos = [CameraVideo(camera + 1, size, seed, difficulty) for camera in range(cameras)]
    for _ in tqdm(in_parallel(write, videos, workers), "drawing videos", cameras):
        pass
    write_record(out, asked, finished=True)
    return True


def write_video(
    video: CameraVideo, root: Path, walks: list[Walk], looks: list[Look], frames: int, rate: int
) -> None:
    """Write `camera_N.mp4` and its boxes, `camera_N.txt`, into `root`.

    The boxes' lines are frame, identity, left, top, width, height, 1, 1, visible share; frames and
    pixels count from 1, as in MOTChallenge.
    """
    av = optional("av", "--layout video", "requirements-index.txt")
    times = np.arange(frames) / rate
    lines, name = [], f"camera_{video.camera}"
    with av.open(str(root / f"{name}.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20"})
        stream.width, stream.height = video.size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the same bytes, whatever the number of cores
        for number, (image, people) in enumerate(video.frames(walks, looks, times), 1):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
            for person, (x1, y1, x2, y2), visible in people:
                box = f"{x1 + 1:.1f},{y1 + 1:.1f},{x2 - x1:.1f},{y2 - y1:.1f}"
                lines.append(f"{number},{person},{box},1,1,{visible:.2f}")
        container.mux(stream.encode())
    (root / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
