"""The plan of a synthetic dataset: which people appear in which frame. It is drawn before the
images."""

from dataclasses import dataclass

import numpy as np

from datasets.synthetic.looks import Look, make_looks
from datasets.synthetic.output import check_at_least
from datasets.synthetic.places import PLACES
from datasets.synthetic.scenes import NO_IDENTITY, PEOPLE, SceneContent
from utils.errors import UserError

PLAN = 4  # number of this module's random stream
GALLERY_SHARE = 0.2  # of the frames
TEST_SHARE = 1 / 3  # of the identities
CAMERAS = len(PLACES)
CROWD = (0.03, 0.06, 0.11, 0.18, 0.2, 0.2, 0.13, 0.09)  # of frames with 0, 1, ... identities


@dataclass(frozen=True)
class Plan:
    """The people, frames and queries of a dataset."""

    looks: list[Look]  # of identity 1..N: training identities, then test identities
    train: list[SceneContent]
    gallery: list[SceneContent]
    queries: list[tuple[int, int]]  # (index in the gallery, index among the frame's people)


def deal(pids: np.ndarray, pool: list[int], count: int, rng: np.random.Generator) -> list[int]:
    """Take different identities from a shuffled list, which is shuffled again when it is used up.

    Args:
        pids: all identities, at least `count`.
        pool: what is left of the list; it is changed.
    """
    people: list[int] = []
    while len(people) < count:
        new = next((k for k, pid in enumerate(pool) if pid not in people), None)
        if new is None:  # the list is empty, or only these people are left in it
            pool += rng.permutation(pids).tolist()
        else:
            people.append(pool.pop(new))
    return people


def _frames(
    first: int, count: int, pids: np.ndarray, rng: np.random.Generator
) -> list[SceneContent]:
    """Draw `count` frames, numbered from `first` on, whose people are chosen by `deal`."""
    cameras = rng.permutation(np.arange(count) % CAMERAS) + 1
    frames: list[SceneContent] = []
    pool: list[int] = []
    for index in range(count):
        known = min(int(rng.choice(len(CROWD), p=CROWD)), len(pids))
        people = deal(pids, pool, known, rng)
        others = int(rng.choice([0, 1, 2], p=[0.4, 0.4, 0.2])) or int(known == 0)
        frames.append(
            SceneContent(first + index, int(cameras[index]), (*people, *[NO_IDENTITY] * others))
        )
    return frames


def _queries(
    gallery: list[SceneContent], count: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Choose `count` queries: boxes of people who also appear in frames of other cameras.

    All identities are taken once before any is taken a second time, and so on.
    """
    seen: dict[int, list[tuple[int, int]]] = {}
    for g, frame in enumerate(gallery):
        for k, pid in enumerate(frame.people):
            if pid != NO_IDENTITY:
                seen.setdefault(pid, []).append((g, k))
    found = [places for places in seen.values() if len({gallery[g].camera for g, _ in places}) > 1]
    found = [[places[i] for i in rng.permutation(len(places))] for places in found]
    rounds = max((len(places) for places in found), default=0)
    order = [places[r] for r in range(rounds) for places in found if r < len(places)]
    if len(order) < count:
        raise UserError(
            f"--queries: expected at most {len(order)} with {len(gallery)} gallery frames, found "
            f"{count}; use more frames or fewer identities"
        )
    return order[:count]


def make_plan(identities: int, frames: int, queries: int, seed: int, alike: float) -> Plan:
    """Draw training and gallery frames with disjoint identities, and the queries.

    Args:
        identities: Number of people with an identity.
        frames: Number of training and gallery frames together.
        queries: Number of queries.
        seed: Determines the plan.
        alike: Share of the people who are look-alikes of others.

    Raises:
        UserError: The numbers are too small, or the gallery has too few boxes for the queries.
    """
    check_at_least(
        identities=(identities, 3), frames=(frames, 10), queries=(queries, 1), seed=(seed, 0)
    )
    rng = np.random.default_rng([seed, PLAN])
    test, shown = max(1, round(identities * TEST_SHARE)), max(2, round(frames * GALLERY_SHARE))
    looks = make_looks(identities, np.random.default_rng([seed, PEOPLE]), alike)
    train = _frames(0, frames - shown, np.arange(1, identities - test + 1), rng)
    gallery = _frames(frames - shown, shown, np.arange(identities - test + 1, identities + 1), rng)
    return Plan(looks, train, gallery, _queries(gallery, queries, rng))
