"""The plan of rendered data: who appears in which moment. It is made before anything is rendered.

A moment is one time at one place, recorded by some cameras simultaneously; each records one frame.
"""

from dataclasses import dataclass

import numpy as np

from datasets.rendered.places import PLACES, SHARES
from datasets.synthetic.output import check_at_least
from datasets.synthetic.plan import GALLERY_SHARE, TEST_SHARE, deal

PLAN = 61  # stream of random numbers
MOMENTS_OF_A_PLACE = 4
FRAMINGS = {"closeup": 0.24, "group": 0.26, "wide": 0.26, "crowd": 0.24}
PEOPLE = {
    "closeup": (1, 6),
    "group": (3, 10),
    "wide": (8, 20),
    "crowd": (12, 24),
}  # minimum, maximum + 1
PASSERS = {"closeup": 0.4, "group": 0.6, "wide": 1.5, "crowd": 2.5}  # unlabelled people, on average


@dataclass(frozen=True)
class Moment:
    index: int
    first_frame: int  # number of its first frame
    cameras: int
    place: int  # number of the place, whose layout and cameras it shares with other moments
    place_kind: str  # a key of PLACES
    framing: str  # a key of FRAMINGS
    people: tuple[int, ...]  # identities from 1, unlabelled people below 0

    def identity_is_far(self, number: int) -> bool:
        """Return True if the person with this number is only passing in the distance."""
        return self.people[number] < 0 and number % 3 > 0


@dataclass(frozen=True)
class Plan:
    train: list[Moment]
    test: list[Moment]


def make_plan(identities: int, frames: int, cameras: int, seed: int) -> Plan:
    """Return moments for training and test, which share neither places nor identities.

    Raises:
        UserError: if a number is too small.
    """
    check_at_least(
        identities=(identities, 3), frames=(frames, 2), cameras=(cameras, 1), seed=(seed, 0)
    )
    rng = np.random.default_rng([seed, PLAN])
    tested, shown = max(1, round(identities * TEST_SHARE)), max(1, round(frames * GALLERY_SHARE))
    ids = np.arange(1, identities + 1)
    train = _moments(ids[:-tested], 0, frames - shown, cameras, 0, rng)
    places = 1 + max(moment.place for moment in train)
    test = _moments(ids[-tested:], len(train), shown, cameras, places, rng, frames - shown)
    return Plan(train, test)


def _moments(pids, index, frames, cameras, place, rng, frame=0) -> list[Moment]:
    """Return moments, whose people are chosen by `deal`."""
    moments: list[Moment] = []
    pack: list[int] = []
    end = frame + frames
    while frame < end:
        if len(moments) % MOMENTS_OF_A_PLACE == 0:
            kind = str(rng.choice(list(PLACES), p=SHARES))
            framing = str(rng.choice(list(FRAMINGS), p=list(FRAMINGS.values())))
            if kind == "room" and framing in ("wide", "crowd"):
                framing = "closeup"
            number, place = place, place + 1
        count = min(int(rng.integers(*PEOPLE[framing])), len(pids))
        people = deal(pids, pack, count, rng)
        passers = int(rng.poisson(PASSERS[framing]))
        people += [-(1000 * (index + 1) + k) for k in range(passers)]
        seen_by = min(cameras, end - frame)
        moments.append(Moment(index, frame, seen_by, number, kind, framing, tuple(people)))
        index, frame = index + 1, frame + seen_by
    return moments
