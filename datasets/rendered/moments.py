"""One moment of a place: build the scene, render it through every camera, and label its people."""

import functools

import numpy as np

from datasets.rendered.camera import PinholeCamera
from datasets.rendered.faults import Sensor, draw_sensor, expose
from datasets.rendered.labels import Label, label
from datasets.rendered.places import PLACES
from datasets.rendered.plan import Moment
from datasets.rendered.raycast import NOBODY, Tracer
from datasets.rendered.render import render
from datasets.rendered.site import Site
from datasets.rendered.staging import draw_camera, draw_focus, place_people, trace
from datasets.rendered.weather import draw_light
from utils.errors import UserError

ATTEMPTS = 20  # to build a place in which every camera sees the focus
PLACE, CAMERA, MOMENT, FRAME = 62, 63, 64, 65  # streams of random numbers


@functools.lru_cache(maxsize=2)
def _place(
    number: int, kind: str, framing: str, count: int, size: tuple[int, int], seed: int
) -> tuple[Site, tuple[float, float], list[tuple[PinholeCamera, Sensor]]]:
    """Return the site, the focus and the cameras, which are the same for all moments of a place."""
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([seed, PLACE, number, attempt])
        site = PLACES[kind](rng)
        focus = draw_focus(site, rng)
        if focus is None:
            continue
        tracer = Tracer(site.meshes, [NOBODY] * len(site.meshes))
        cameras = []
        for camera in range(count):
            own = np.random.default_rng([seed, CAMERA, number, camera, attempt])
            if drawn := draw_camera(site, tracer, framing, focus, size, own):
                cameras.append((drawn, draw_sensor(own)))
        if len(cameras) == count:
            return site, focus, cameras
    raise UserError(
        f"cameras: no room for {count} at place {number}, a {kind}; expected fewer, or another seed"
    )


def render_moment(
    moment: Moment, cameras: int, size: tuple[int, int], seed: int
) -> list[tuple[np.ndarray, int, list[tuple[int, Label]]]]:
    """Render the frames of a moment.

    Args:
        cameras: the number of cameras at the place; the moment may use fewer.

    Returns:
        For each frame the picture uint8 [H, W, 3], the quality of its JPEG, and (identity, label)
        of everyone in it.
    """
    site, focus, own = _place(moment.place, moment.place_kind, moment.framing, cameras, size, seed)
    rng = np.random.default_rng([seed, MOMENT, moment.index])
    light = draw_light(site, rng)
    people = place_people(moment, site, [camera for camera, _ in own], focus, seed, rng)
    tracer = trace(site, people)
    frames = []
    for number, (camera, sensor) in enumerate(own[: moment.cameras]):
        rng = np.random.default_rng([seed, FRAME, moment.first_frame + number])
        picture = expose(render(tracer, camera, light, rng), sensor, rng)
        labels = [
            (person.identity, found)
            for owner, person in enumerate(people)
            if (found := label(camera, tracer, owner, person.points))
        ]
        frames.append((picture, sensor.quality, labels))
    return frames
