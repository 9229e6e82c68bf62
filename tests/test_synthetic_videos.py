"""Synthetic videos of several cameras, with their tracks."""

import json
from itertools import pairwise

import numpy as np
import pytest

from datasets.synthetic.videos import plan_walks
from tools import convert_tracks, make_synthetic
from utils.videos import read_frames

SMALL = ("--layout", "video", "--identities", 3, "--cameras", 2, "--seconds", 8, "--rate", 2)
SIZE = ("--width", 96, "--height", 64, "--workers", 1)


@pytest.mark.parametrize("seed", range(5))
def test_nobody_is_in_two_places_at_one_time(seed):
    walks = plan_walks(6, 3, 60, seed)
    assert {walk.camera for walk in walks} == {1, 2, 3}
    for person in range(1, 7):
        mine = [walk for walk in walks if walk.person == person]
        assert len(mine) > 2  # everyone returns
        assert all(a.end <= b.start for a, b in pairwise(mine))


def tracks(path):
    return np.loadtxt(path, delimiter=",", ndmin=2)


def test_videos_with_their_tracks_become_custom_data(tmp_path, program):
    out = tmp_path / "drawn"
    code, _, _ = program(make_synthetic.main, *SMALL, *SIZE, "--out", out)
    assert code == 0
    names = sorted(path.name for path in (out / "video").iterdir())
    assert names == ["camera_1.mp4", "camera_1.txt", "camera_2.mp4", "camera_2.txt"]
    seen = set()
    for camera in (1, 2):
        frames = list(read_frames(out / "video" / f"camera_{camera}.mp4", print))
        assert len(frames) == 16 and frames[0][1].size == (96, 64)
        rows = tracks(out / "video" / f"camera_{camera}.txt")
        frame, person, left, top, width, height, flag, kind, visible = rows.T
        assert frame.min() >= 1 and frame.max() <= 16
        assert (left >= 1).all() and (left + width <= 97).all()
        assert (top >= 1).all() and (top + height <= 65).all()
        assert (flag == 1).all() and (kind == 1).all()
        assert ((visible >= 0) & (visible <= 1)).all() and visible.max() > 0.9
        seen |= set(person.astype(int))
    assert seen == {1, 2, 3}
    again = program(make_synthetic.main, *SMALL, *SIZE, "--out", out)
    assert again[0] == 0
    videos = sorted((out / "video").glob("*.mp4"))
    data = tmp_path / "own"
    code, _, said = program(
        convert_tracks.main, *videos, "--out", data, "--test-share", 0.5, "--shared-identities"
    )
    assert code == 0, said
    people = {
        a.get("person_id") for a in json.loads((data / "train.json").read_text())["annotations"]
    }
    assert people and all("/" not in str(person) for person in people)


def test_the_same_seed_gives_the_same_tracks(tmp_path, program):
    for name in ("a", "b"):
        options = (*SMALL[:7], 2, *SMALL[8:], *SIZE)  # two seconds
        assert program(make_synthetic.main, *options, "--out", tmp_path / name)[0] == 0
    for camera in (1, 2):
        a, b = (tmp_path / name / "video" / f"camera_{camera}.txt" for name in ("a", "b"))
        assert a.read_text() == b.read_text()


@pytest.mark.parametrize(
    "options",
    [
        ("--layout", "video", "--frames", 3),
        ("--layout", "coco", "--cameras", 3),
        ("--layout", "video", "--cameras", 0),
        ("--layout", "video", "--width", 97),
        ("--layout", "video", "--seconds", 0),
        ("--layout", "video", "--seed", -1),
        ("--layout", "coco", "--width", 0),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, program, options):
    code, _, said = program(make_synthetic.main, *options, "--out", tmp_path / "x")
    assert code == 2 and options[2].strip("-") in said
    assert not (tmp_path / "x").exists()
