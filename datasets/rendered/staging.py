"""The scene of a moment: the positions of cameras and people."""

import math
from dataclasses import dataclass

import numpy as np

from datasets.rendered.camera import PinholeCamera, look_at
from datasets.rendered.meshes import Mesh, dot, moved, unit
from datasets.rendered.people import make_person
from datasets.rendered.plan import Moment
from datasets.rendered.poses import CYCLING, KINDS, SEATED, UMBRELLA
from datasets.rendered.raycast import NOBODY, Tracer
from datasets.rendered.site import Site

TALL = 1.7  # metres of a person, for framing
SPREAD = {"closeup": 1.1, "group": 2.8, "wide": 6.0, "crowd": 3.6}  # metres around the focus
SHARE = {  # share of the picture's height of a person in the focus
    "closeup": (0.75, 1.9),
    "group": (0.38, 0.95),
    "wide": (0.13, 0.42),
    "crowd": (0.2, 0.75),
}
APART = {"closeup": 0.5, "group": 0.5, "wide": 0.55, "crowd": 0.42}  # metres between two people
TRIES = 60
POSE = 67  # stream of random numbers
NEAREST = 1.1  # metres from a camera to the focus
ROOM = 0.35  # metres around a camera that stay free
STEEP = 0.45  # how far a camera may hang above people, over its distance


Place = tuple[float, float, float]  # of a lens


@dataclass(frozen=True)
class Staged:
    """A person in the scene, in world coordinates."""

    identity: int
    own: list[Mesh]
    other: list[Mesh]
    points: np.ndarray  # [n, 3]


def draw_focus(site: Site, rng: np.random.Generator) -> tuple[float, float] | None:
    """Return the point at which the cameras of a place are aimed: a free position near the middle,
    or None."""
    x1, x2, y1, y2 = site.area
    for attempt in range(2 * TRIES):
        x = (x1 + x2) / 2 + (x2 - x1) * rng.uniform(-0.3, 0.3)
        y = (y1 + y2) / 2 + (y2 - y1) * rng.uniform(-0.3, 0.3)
        if site.free(x, y, 0.8 if attempt < TRIES else 0.4):
            return float(x), float(y)
    return None


def draw_camera(
    site: Site, tracer: Tracer, framing: str, focus, size: tuple[int, int], rng
) -> PinholeCamera | None:
    """Return a camera that sees the focus, if possible at the distance of the framing; None if no
    position that was tried sees it."""
    width, height = size
    focal = width / 2 / math.tan(math.radians(rng.uniform(42, 88)) / 2)
    low, high = SHARE[framing]
    share = math.exp(rng.uniform(math.log(low), math.log(high)))
    far = max(focal * TALL / (share * height), NEAREST)
    up = _camera_height(framing, site.ceiling, rng)
    aim = rng.uniform(0.85, 1.45) if framing == "closeup" else rng.uniform(0.5, 1.2)
    target = (*focus, aim)
    place = _place_at(site, tracer, target, far, up, rng)
    place = place or _place_anywhere(site, tracer, target, up, rng)
    if place is None:
        return None
    side = rng.normal(0, 0.12)  # the focus is not always in the middle
    dx, dy = place[0] - focus[0], place[1] - focus[1]
    aside = (focus[0] - side * dy, focus[1] + side * dx, aim)
    return look_at(place, aside, focal, size, rng.normal(0, 0.015))


def _place_at(site: Site, tracer: Tracer, target, far: float, up: float, rng) -> Place | None:
    """Return a position about `far` metres from the target and at most `up` high. The distance
    shrinks after failed attempts."""
    for attempt in range(TRIES):
        lens = min(up, 1.4 + STEEP * far)
        flat = math.sqrt(max(far**2 - (lens - target[2]) ** 2, 0.8**2))
        angle = rng.uniform(0, 2 * math.pi)
        place = (target[0] + flat * math.cos(angle), target[1] + flat * math.sin(angle), lens)
        if _inside(site, place) and _clear(tracer, place, target, (1.6, 0.5)):
            return place
        if attempt % 6 == 5:
            far = max(far * 0.87, NEAREST)
    return None


def _place_anywhere(site: Site, tracer: Tracer, target, up: float, rng) -> Place | None:
    x1, x2, y1, y2 = site.area
    for _ in range(TRIES):
        x, y = float(rng.uniform(x1, x2)), float(rng.uniform(y1, y2))
        far = math.hypot(x - target[0], y - target[1])
        place = (x, y, min(up, 1.4 + STEEP * far))
        if far > NEAREST and _inside(site, place) and _clear(tracer, place, target, (1.6,)):
            return place
    return None


def _camera_height(framing: str, ceiling: float, rng: np.random.Generator) -> float:
    if framing == "closeup":
        up = rng.uniform(1.1, 2.1)
    else:
        up = rng.choice([rng.uniform(1.3, 1.9), rng.uniform(2.0, 3.8), rng.uniform(3.8, 6.0)])
    return float(min(up, ceiling - 0.25))


def _inside(site: Site, place: Place) -> bool:
    x1, x2, y1, y2 = site.area
    more = -0.05 if site.indoors else 0.0
    within = x1 + more < place[0] < x2 - more and y1 + more < place[1] < y2 - more
    return within and site.free(place[0], place[1], 0.1 if place[2] > 2.6 else 0.35)


def _clear(tracer: Tracer, place: Place, target, heights: tuple[float, ...]) -> bool:
    """Return True if nothing hides the target and the points above it, and nothing is close to the
    lens."""
    ends = np.array([target, *((*target[:2], z) for z in heights)], np.float32)
    ways = ends - np.asarray(place, np.float32)
    far = np.sqrt(dot(ways, ways))
    if tracer.blocked(_from(place, len(ways)), ways / far[:, None], far * 0.97).any():
        return False
    around = unit(np.mgrid[-1:2, -1:2, -1:2].reshape(3, -1).T + 0.1)
    return not tracer.blocked(_from(place, len(around)), around, np.full(len(around), ROOM)).any()


def _from(place: Place, count: int) -> np.ndarray:
    return np.repeat(np.array([place], np.float32), count, 0)


def place_people(
    moment: Moment,
    site: Site,
    cameras: list[PinholeCamera],
    focus,
    seed: int,
    rng: np.random.Generator,
) -> list[Staged]:
    """Place the people of a moment at a distance from each other, from things and from cameras.

    People for whom there is no room are left out.
    """
    taken: list[tuple[float, float, float]] = []
    staged = []
    for number, identity in enumerate(moment.people):
        kind = _kind(moment, site, rng)
        radius = {SEATED: 0.5, CYCLING: 0.8}.get(kind, APART[moment.framing] / 2)
        at = _spot(moment, site, cameras, focus, taken, radius, number, rng)
        facing = _facing(at, focus, rng) if at else 0.0
        own = np.random.default_rng([seed, POSE, moment.index, number])
        if at is None:
            continue
        taken.append((*at, radius))
        person = make_person(identity, kind, seed, own)
        own_meshes = [moved(mesh, (*at, 0), facing) for mesh in person.own]
        other = [moved(mesh, (*at, 0), facing) for mesh in person.other]
        points = np.concatenate([mesh.vertices for mesh in own_meshes])
        staged.append(Staged(identity, own_meshes, other, points))
    return staged


def _kind(moment: Moment, site: Site, rng: np.random.Generator) -> str:
    chance = rng.random()
    if chance < (0.14 if site.indoors else 0.05):
        return SEATED
    if not site.indoors and chance > 0.92:
        return CYCLING if chance > 0.945 else UMBRELLA
    return str(rng.choice(list(KINDS), p=list(KINDS.values())))


def _facing(at, focus, rng: np.random.Generator) -> float:
    """Draw the direction in which a person looks: any one with a probability of 60 %, otherwise
    about that of the focus."""
    if rng.random() < 0.6:
        return float(rng.uniform(0, 2 * math.pi))
    dx, dy = focus[0] - at[0], focus[1] - at[1]
    return math.atan2(dx, -dy) + float(rng.normal(0, 0.5))


def _spot(moment, site, cameras, focus, taken, radius, number, rng) -> tuple[float, float] | None:
    x1, x2, y1, y2 = site.area
    spread = SPREAD[moment.framing]
    near = number > 0 and rng.random() < 0.1  # a person close to a camera, cut by the border
    for _ in range(TRIES):
        if near:
            x, y = _before(cameras[int(rng.integers(len(cameras)))], rng)
        else:
            angle, far = rng.uniform(0, 2 * math.pi), spread * math.sqrt(rng.random())
            if moment.identity_is_far(number):
                far *= 2.2
            x, y = focus[0] + far * math.cos(angle), focus[1] + far * math.sin(angle)
        if not (x1 < x < x2 and y1 < y < y2 and site.free(x, y, radius)):
            continue
        if any(math.hypot(x - a, y - b) < radius + r for a, b, r in taken):
            continue
        if all(_off(camera, x, y) > radius + 0.45 for camera in cameras):
            return float(x), float(y)
    return None


def _off(camera: PinholeCamera, x: float, y: float) -> float:
    """Return the distance from a camera in metres on the ground; infinite for a camera high enough
    to walk under."""
    if camera.place[2] > 2.8:
        return math.inf
    return math.hypot(x - camera.place[0], y - camera.place[1])


def _before(camera: PinholeCamera, rng: np.random.Generator) -> tuple[float, float]:
    """Return a position near a camera, at the side of its picture."""
    half = math.atan(camera.size[0] / 2 / camera.focal)
    angle = camera.yaw + rng.choice([-1, 1]) * half * rng.uniform(0.6, 1.0)
    far = rng.uniform(1.0, 2.6)
    return camera.place[0] - far * math.sin(angle), camera.place[1] + far * math.cos(angle)


def trace(site: Site, people: list[Staged]) -> Tracer:
    """Return the whole scene, in which owners are indices of `people`."""
    meshes, owners = list(site.meshes), [NOBODY] * len(site.meshes)
    for number, person in enumerate(people):
        meshes += person.own + person.other
        owners += [number] * len(person.own) + [NOBODY] * len(person.other)
    return Tracer(meshes, owners)
