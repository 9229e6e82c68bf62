"""tools.identities: one number for each person, manual decisions, and removal of people."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from engine.cameras import identities as by_number
from engine.cameras.alarms import ALARMS, SENT
from engine.cameras.identities import (
    FILE,
    Identities,
    choose_similarity,
    identify,
    open_identities,
)
from engine.cameras.pictures import Pictures, picture_path
from engine.cameras.tracklet_table import apart, read_tracklets
from engine.index import grouping
from engine.index.gallery_index import open_index, writing
from engine.index.grouping import components, group, group_people, similarity_for
from engine.index.local import PEOPLE
from engine.index.people import People
from engine.index.records import Origin, PersonFilter, Sample, Source, camera_path
from models.outputs import Detections
from tools import identities
from tools.web import persons
from tools.web.persons import PersonsController
from utils.errors import UserError
from utils.pages import clock, period

WIDTH, PEOPLE_COUNT = 32, 8
ORIGIN = Origin("net.pth", "MIN_SIZE 64", np.eye(WIDTH, dtype=np.float32)[0])
BEGAN = 1769846400.0  # 2026-01-31T08:00:00Z
CAMERAS = ("hall", "door")


def looks(who: list[int], rng: np.random.Generator) -> torch.Tensor:
    """Return embeddings of these people, with random variation."""
    rows = np.eye(WIDTH)[who] + rng.normal(0, 0.08, (len(who), WIDTH))
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32))


def write(people: People, folder: Path, slots: range, seed: int = 0) -> dict[int, int]:
    """Add two people in each camera for three seconds in every slot.

    Returns:
        The person of each tracklet, counted from 0.
    """
    truth, pictures = {}, Pictures(people, folder)
    for slot in slots:
        rng = np.random.default_rng([seed, slot])
        who = rng.permutation(PEOPLE_COUNT)[:4].tolist()
        for number, camera in enumerate(CAMERAS):
            mine, given = who[2 * number : 2 * number + 2], [None, None]
            source = Source(camera_path(camera), 0, 0, 1.0)
            for second in range(4):
                boxes = torch.tensor([[0.0, 0, 10, 30], [40, 0, 50, 30]])
                found = Detections(boxes, torch.ones(2), looks(mine, rng))
                time = BEGAN + 60 * slot + second
                (given,) = people.add_tracked(source, [(Sample(time, found), given)])
                if second == 0:
                    place = camera, time
                    size = pictures.write(place, torch.zeros(3, 40, 60, dtype=torch.uint8))
                    pictures.add(place, size, False)
            truth |= dict(zip(given, mine))
    return truth


@pytest.fixture
def index(tmp_path: Path) -> Path:
    pytest.importorskip("faiss")
    return tmp_path / "people"


def fill(index: Path, slots: range) -> dict[int, int]:
    with writing(index, ORIGIN) as gallery:
        return write(gallery.people, index, slots)


def numbers(index: Path) -> dict[int, int]:
    return open_identities(index, open_index(index).people).members()


def run(program, index: Path, *words: object) -> str:
    code, out, err = program(identities.main, "--index", index, *words)
    assert code == 0, err
    return out


def same_people(given: dict[int, int], truth: dict[int, int]) -> bool:
    pairs = {(given[tracklet], who) for tracklet, who in truth.items()}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_groups_are_average_linkage() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = group(rows @ rows.T, np.zeros((30, 30), bool), 0.4)
    expected = fcluster(linkage(pdist(rows, "cosine"), "average"), 0.6, "distance")
    assert np.array_equal(found[:, None] == found, expected[:, None] == expected)
    different = np.zeros((30, 30), bool)
    different[0, 1:] = different[1:, 0] = True
    alone = group(np.ones((30, 30)), different, 0.5)
    assert (alone == alone[0]).sum() == 1 and len(set(alone[1:])) == 1
    assert len(group(np.ones((1, 1)), np.zeros((1, 1), bool), 0.5)) == 1


@pytest.mark.parametrize("min_similarity", [0.3, 0.5, 0.7])
def test_parts_are_grouped_as_the_whole(monkeypatch, min_similarity: float) -> None:
    monkeypatch.setattr(grouping, "BLOCK", 7)
    rng = np.random.default_rng(2)
    rows = np.eye(24)[rng.integers(24, size=200)] + rng.normal(0, 0.15, (200, 24))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    owner = np.minimum(rng.permutation(200), 170)  # 30 rows of one person
    apart = np.triu(rng.random((200, 200)) < 0.02, 1)
    apart |= apart.T
    similarity = rows @ rows.T
    similarity[owner[:, None] == owner] = np.inf
    whole = group(similarity, apart[owner[:, None], owner], min_similarity)
    divided = group_people(rows, owner, apart, min_similarity)
    parts = components(rows, owner, min_similarity)
    assert sorted(np.concatenate(parts)) == list(range(200))
    assert np.array_equal(whole[:, None] == whole, divided[:, None] == divided)
    assert len(parts) > 5 or min_similarity == 0.3
    assert components(rows[:0], owner[:0], 0.5) == []


@pytest.mark.parametrize("precision", [0.8, 0.95])
def test_a_stated_precision_is_reached(precision: float) -> None:
    rng = np.random.default_rng(1)
    who = rng.integers(20, size=300)
    rows = np.eye(32)[who] + rng.normal(0, 0.2, (300, 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    same = who[:, None] == who
    known = ~same & (rng.random(same.shape) < 0.02)
    similarity = similarity_for(precision, rows @ rows.T, known | known.T)
    found = group(rows @ rows.T, np.zeros_like(same), similarity)
    joined = np.triu(found[:, None] == found, 1)
    assert same[joined].mean() >= precision - 0.05
    assert joined[same].sum() / np.triu(same, 1).sum() > 0.3


def test_who_is_certainly_different(index: Path) -> None:
    fill(index, range(2))
    with writing(index, ORIGIN) as gallery:
        walk = Source(Path("/walk.mp4"), 1, 1, 1.0)
        picture = Source(Path("/a.jpg"), 1, 1)
        boxes = torch.tensor([[0.0, 0, 10, 30], [40, 0, 50, 30]])
        found = Detections(boxes, torch.ones(2), torch.eye(WIDTH)[:2])
        gallery.people.add(walk, [Sample(0.0, found)])
        gallery.people.add(picture, [Sample(None, found)])
    found = read_tracklets(open_index(index).people)
    names = [found.paths[source].name for source in found.sources]
    different = apart(found, found)
    assert np.array_equal(different, different.T)
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            live = one.startswith("camera") and other.startswith("camera")
            one_time = live and abs(found.first[i] - found.first[j]) < 3
            assert different[i, j] == (one_time or (not live and one == other))
    shared = apart(found, found, CAMERAS)
    assert not any(shared[i, j] for i in range(8) for j in range(8) if names[i] != names[j])


def test_two_boxes_of_one_person_may_be_the_same(index: Path) -> None:
    who = Detections(
        torch.tensor([[0.0, 0, 20, 60], [2, 0, 18, 30], [15, 0, 35, 60]]),
        torch.ones(3),
        torch.eye(WIDTH)[:3],
    )
    with writing(index, ORIGIN) as gallery:
        gallery.people.add(Source(Path("/a.jpg"), 1, 1), [Sample(None, who)])
        crossing = [Sample(1.0 * i, who[[0, 1 if i == 0 else 2]]) for i in range(3)]
        source = Source(Path("/b.mp4"), 1, 1, 1.0)
        given: list = [None, None]
        for sample in crossing:  # within the other's box once, beside it twice
            (given,) = gallery.people.add_tracked(source, [(sample, given)])
    found = read_tracklets(open_index(index).people)
    whole, part, *others = found.tracklets.tolist()
    assert found.doubled.tolist() == [[whole, part]] and len(others) == 3
    expected = np.ones((5, 5), bool)
    expected[:3, 3:] = expected[3:, :3] = expected[0, 1] = expected[1, 0] = False
    assert np.array_equal(apart(found, found), expected)
    order = np.array([4, 1, 3, 0, 2])
    assert np.array_equal(apart(found[order], found[:2]), expected[order][:, :2])


def test_false_detections_do_not_change_the_similarity(index: Path) -> None:
    fill(index, range(30))
    found = read_tracklets(open_index(index).people)
    expected = choose_similarity(found, 0.9)
    with writing(index, ORIGIN) as gallery:
        boxes = torch.tensor([[0.0, 0, 10, 30], [40, 0, 50, 30]])
        things = Detections(boxes, torch.full((2,), 0.6), torch.eye(WIDTH)[[20, 20]])
        for i in range(100):
            gallery.people.add(Source(Path(f"/{i}.jpg"), 1, 1), [Sample(None, things)])
    found = read_tracklets(open_index(index).people)
    assert len(found) == 320 and choose_similarity(found, 0.9) == expected
    trusted = dataclasses.replace(found, scores=np.ones(len(found)))
    with pytest.raises(UserError, match="no similarity"):
        choose_similarity(trusted, 0.9)


def test_each_person_keeps_their_number(index: Path, program) -> None:
    truth = fill(index, range(30))
    run(program, index, "--precision", 0.9)
    first = numbers(index)
    assert first.keys() == truth.keys() and same_people(first, truth)
    run(program, index)
    assert numbers(index) == first
    truth |= fill(index, range(30, 40))
    out = run(program, index)
    assert first.items() <= numbers(index).items() and same_people(numbers(index), truth)
    assert len(out.splitlines()) == 3 + PEOPLE_COUNT


def test_decisions_by_hand_are_kept(index: Path, program, tmp_path: Path) -> None:
    truth = fill(index, range(20))
    run(program, index)
    given = numbers(index)
    run(program, index, "--call", 1, "Anna", "--merge", 2, 1)
    merged = {t: 1 if n == 2 else n for t, n in given.items()}
    assert numbers(index) == merged
    mine = [t for t, n in merged.items() if n == 3]
    run(program, index, "--split", 3, *mine[: len(mine) // 2])
    split = numbers(index)
    moved = {n for t, n in split.items() if t in mine[: len(mine) // 2]}
    assert moved == {max(given.values()) + 1}
    truth |= fill(index, range(20, 30))
    run(program, index)
    assert split.items() <= numbers(index).items()
    (person,) = moved
    names = open_identities(index, open_index(index).people).names()
    assert names[1] == "Anna" and 2 not in names and {3, person} <= names.keys()
    run(program, index, "--merge", "Anna", 3)
    run(program, index, "--out", tmp_path / "page")
    page = (tmp_path / "page/index.html").read_text()
    assert page.count("<section>") == len(set(numbers(index).values()))
    shown = {int(number) for number in re.findall(r"tracklet (\d+)", page)}  # for --split
    assert {numbers(index)[tracklet] for tracklet in shown} == set(numbers(index).values())
    one = next(tracklet for tracklet, number in numbers(index).items() if number == 1)
    for wrong in (
        ("--split", 1, one, 999),
        ("--merge", 1, 1),
        ("--merge", 1, "Otto"),
        ("--split", 1),
        ("--split", 1, 999),
        ("--call", 99, "Otto"),
        ("--call", 3, "17"),
        ("--camera", "cellar"),
        ("--forget", "--camera", "cellar"),
        ("--overlapping", ""),
        ("--overlapping", "hall"),
        ("--precision", 1),
        ("--forget",),
        ("--overlapping", "cellar"),
        ("--forget", 1, "--call", 3, "Eve"),
        ("--forget", 1, "--out", tmp_path / "other"),
        ("--merge", 1, 3, "--min-similarity", 0.5),
    ):
        code, _, err = program(identities.main, "--index", index, *wrong)
        assert code == 2 and len(err.splitlines()) == 1, wrong
    assert numbers(index).keys() == truth.keys() and not (tmp_path / "other").exists()


def test_an_empty_word_does_not_mean_the_only_person_without_a_name(tmp_path: Path) -> None:
    people = Identities(tmp_path, b"index")
    people.assign([set(), set()], [[1], [2]])
    people.rename(1, "Otto")
    with pytest.raises(UserError, match="person: "):
        people.number_of("")
    assert people.number_of("Otto") == 1 and people.names() == {1: "Otto", 2: ""}


def test_a_name_that_is_not_utf8(index: Path, program) -> None:
    fill(index, range(3))
    run(program, index, "--min-similarity", 0.5)
    words = "--index", index, "--call", 1, "Zo\udceb"
    assert program(identities.main, *words)[0] == 2
    assert set(open_identities(index, open_index(index).people).names().values()) == {""}


def test_the_app_shows_a_file_whose_name_is_not_utf8(index: Path, program) -> None:
    with writing(index, ORIGIN) as gallery:
        person = Detections(torch.rand(1, 4), torch.ones(1), looks([1], np.random.default_rng(0)))
        gallery.people.add(Source(Path("/Zo\udceb.jpg"), 1, 1), [Sample(None, person)])
    run(program, index, "--min-similarity", 0.5)
    controller = PersonsController(lambda: open_index(index), index)
    (_, everyone), (_, tracklet) = controller.people()[0][0], controller.person(1)[1][0]
    assert "Zo" in everyone.encode().decode() and "Zo" in tracklet.encode().decode()


def test_no_decision_is_made_while_people_are_numbered(index: Path, monkeypatch) -> None:
    """It is refused instead of lost, and the persons can be read meanwhile."""
    fill(index, range(5))
    people = open_index(index).people
    numbered = open_identities(index, people)
    identify(numbered, read_tracklets(people), 0.5)
    monkeypatch.setattr(by_number, "TIMEOUT", 0)

    def group_slowly(*args):
        other = open_identities(index, people)
        assert other.names()[1] == ""
        with pytest.raises(UserError):
            other.rename(1, "Eve")
        return group(*args)

    monkeypatch.setattr(grouping, "group", group_slowly)
    fill(index, range(5, 8))
    identify(numbered, read_tracklets(people), 0.5)
    open_identities(index, people).rename(1, "Eve")
    assert numbered.names()[1] == "Eve"


def test_two_runs_at_once_keep_what_the_other_one_has_numbered(index: Path) -> None:
    fill(index, range(2))
    people = open_index(index).people
    numbered = open_identities(index, people)
    found = read_tracklets(people)  # by a run that is slower than the following
    fill(index, range(2, 4))
    identify(numbered, read_tracklets(people), 0.5)
    newest = max(numbered.members())
    numbered.rename(numbered.members()[newest], "Eve")
    before = numbered.members(), numbered.names()
    identify(numbered, found, 0.5)
    assert (numbered.members(), numbered.names()) == before


def test_a_source_that_is_removed_while_it_is_read(index: Path, monkeypatch) -> None:
    fill(index, range(2))
    people, select = open_index(index).people, People.select

    def removing(self, statement: str, values=()) -> list[tuple]:
        rows = select(self, statement, values)
        if self is people and "GROUP BY appearance" in statement:
            People(index / PEOPLE).remove([camera_path("hall")])
        return rows

    monkeypatch.setattr(People, "select", removing)
    assert len(read_tracklets(people)) == 8


def test_too_little_is_known_for_a_precision(index: Path, program) -> None:
    fill(index, range(2))
    assert program(identities.main, "--index", index)[0] == 2
    run(program, index, "--min-similarity", 0.5)
    found = read_tracklets(open_index(index).people)
    fill(index, range(2, 20))
    everyone = read_tracklets(open_index(index).people)
    assert len(everyone) > len(found) and 0 < choose_similarity(everyone, 0.9) < 1


def on_disk(index: Path, needles: list[bytes]) -> list[str]:
    """Return the files that contain one of these byte sequences."""
    files = [path for path in index.rglob("*") if path.is_file()]
    return [path.name for path in files if any(one in path.read_bytes() for one in needles)]


def test_what_is_forgotten_is_on_no_file(index: Path, program) -> None:
    truth = fill(index, range(20))
    run(program, index)
    run(program, index, "--call", 1, "Annabella")
    given = numbers(index)
    mine = {t for t, n in given.items() if n == 1}
    people = open_index(index).people
    rows = people.persons(people.ids_of(sorted(mine)))
    needles = [row.embedding.tobytes() for row in rows] + [b"Annabella"]
    lines = [json.dumps({"tracklet": t, "picture": None}) + "\n" for t in sorted(given)]
    (index / ALARMS).write_text("".join(lines))
    place = sum(map(len, lines[:10]))
    (index / SENT).write_text(json.dumps({"a": place, "b": sum(map(len, lines))}))
    assert {"people.sqlite", "people.faiss", FILE} <= set(on_disk(index, needles))
    people.close()
    run(program, index, "--forget", "Annabella")
    assert on_disk(index, needles) == []
    left = open_index(index).people
    assert left.persons([row.id for row in rows]) == []
    assert left.count() == 4 * (len(truth) - len(mine))
    assert sorted(left.vectors.ids) == left.numbers().tolist()
    for row in rows:
        assert not picture_path(index, row.path.name.removeprefix("camera:"), row.time).exists()
    kept = (index / ALARMS).read_text().splitlines(keepends=True)
    assert kept == [line for line in lines if json.loads(line)["tracklet"] not in mine]
    before = [line for line in lines[:10] if line in kept]
    expected = {"a": sum(map(len, before)), "b": sum(map(len, kept))}
    assert json.loads((index / SENT).read_text()) == expected
    assert numbers(index) == {t: n for t, n in given.items() if n != 1}


def test_who_is_no_longer_in_the_index_is_forgotten_too(index: Path, program) -> None:
    """Their detections were removed before, as by tools.watch --keep-days."""
    fill(index, range(20))
    run(program, index, "--min-similarity", 0.5)
    run(program, index, "--call", 1, "Annabella")
    given = numbers(index)
    mine = sorted(t for t, n in given.items() if n == 1)
    (index / ALARMS).write_text(json.dumps({"tracklet": mine[0], "name": "Annabella"}) + "\n")
    with writing(index, None) as gallery:
        gallery.people.select(f"DELETE FROM people WHERE appearance IN {tuple(mine)}")
    run(program, index, "--forget", "Annabella")
    assert on_disk(index, [b"Annabella"]) == []
    assert numbers(index) == {t: n for t, n in given.items() if n != 1}


def test_forgetting_by_camera_and_time(index: Path, program) -> None:
    fill(index, range(10))
    run(program, index, "--min-similarity", 0.5)
    run(program, index, "--forget", "--camera", "hall", "--before", "2026-01-31T08:04:59+00:00")
    people = open_index(index).people
    left = people.persons(people.numbers().tolist())
    kept = [(str(one.path), one.time >= BEGAN + 300) for one in left]
    assert kept.count(("camera:hall", False)) == 0
    assert kept.count(("camera:hall", True)) == kept.count(("camera:door", True)) == 40
    assert kept.count(("camera:door", False)) == 40
    assert numbers(index).keys() == {one.tracklet for one in left}


def test_times_continue_after_the_people_who_are_left(index: Path, program) -> None:
    """A wrong time of a camera is repaired by forgetting."""
    fill(index, range(3))
    run(program, index, "--forget", "--camera", "hall", "--after", "2026-01-31T08:01:00+00:00")
    people = open_index(index).people
    assert people.read_until(camera_path("hall")) == BEGAN + 3
    assert people.read_until(camera_path("door")) == BEGAN + 123
    run(program, index, "--forget", "--camera", "hall")
    assert people.read_until(camera_path("hall")) == 0


def test_an_unfinished_new_version_of_a_file_is_forgotten_too(index: Path, program) -> None:
    old, new = (Source(Path("/walk.mp4"), size, 1, 0.0) for size in (1, 2))
    walker = Detections(torch.rand(1, 4), torch.ones(1), looks([1], np.random.default_rng(0)))
    with writing(index, ORIGIN) as gallery:
        gallery.people.add(old, [Sample(0.0, walker)])
        gallery.people.add(new, [Sample(0.0, walker)], finished=False)
    run(program, index, "--forget", "--camera", "walk")
    people = open_index(index).people
    assert not len(people.numbers())
    assert [one.source for one in people.known(hidden=True)] == [old]


def test_a_filter_by_time_prefers_pictures_of_that_time(index: Path) -> None:
    with writing(index, ORIGIN) as gallery:
        hall, pictures = Source(camera_path("hall"), 0, 0, 1.0), Pictures(gallery.people, index)
        look = looks([1], np.random.default_rng(0))
        given = [None]
        for second, side in ((0, 30), (5, 20), (9, 40)):
            box = torch.tensor([[0.0, 0, side, 2 * side]])
            sample = Sample(BEGAN + second, Detections(box, torch.ones(1), look))
            (given,) = gallery.people.add_tracked(hall, [(sample, given)])
            if second < 9:
                pictures.add(("hall", BEGAN + second), 100, False)
    opened = open_index(index)

    def when(after: float, before: float) -> float:
        chosen = PersonFilter((), BEGAN + after, BEGAN + before)
        (match,) = opened.search(look, 1, person_filter=chosen)
        return match.person.time - BEGAN

    assert [when(0, 9), when(4, 9), when(8, 9)] == [0, 5, 0]
    best = opened.people.best_of(given, PersonFilter((), BEGAN + 4, BEGAN + 8))
    assert [one.time - BEGAN for one in best.values()] == [5]
    assert opened.people.best_of(given)[given[0]].time == BEGAN + 9


def test_the_app_shows_the_newest_tracklets(index: Path, program, monkeypatch) -> None:
    fill(index, range(4))
    run(program, index, "--min-similarity", 0.5)
    monkeypatch.setattr(persons, "MOST", 2)
    controller = PersonsController(lambda: open_index(index), index)
    number = controller.people()[1][0]
    members = numbers(index)
    mine = sorted(tracklet for tracklet, who in members.items() if who == number)
    assert len(mine) > 2
    _, pictures, tracklets, *_ = controller.person(number)
    assert sorted(tracklets) == mine[-2:] and len(pictures) == 2
    assert controller.scene(number, 1) is not None and controller.scene(number, 2) is None


def test_alarms_of_people_who_are_gone_are_forgotten_by_camera_and_time(index, program) -> None:
    """As of people whom --keep-days has removed."""
    fill(index, range(1))
    kept = {"name": "Anna", "camera": "hall", "time": "2026-01-31T08:00:30+00:00"}
    kept |= {"tracklet": None, "picture": None}
    changes = {"time": "2026-01-30T08:00:00+00:00"}, {"camera": "door"}
    lines = [json.dumps(kept | change) + "\n" for change in ({}, *changes)]
    (index / ALARMS).write_text("".join(lines))
    run(program, index, "--forget", "--camera", "hall", "--after", "2026-01-31T08:00:10+00:00")
    assert (index / ALARMS).read_text() == "".join(lines[1:])
    run(program, index, "--forget", "--camera", "hall")
    assert (index / ALARMS).read_text() == lines[2]


def test_pictures_of_others_stay(index: Path, program) -> None:
    """The user's own folder `pictures` may be within the index."""
    fill(index, range(1))
    own = index / "pictures/hall/holiday_1.jpg", index / "pictures/2024/1.5.jpg"
    left = index / "pictures/hall/12.500.jpg", index / "pictures/hall/13.000.jpg.2.part"
    for path in (*own, *left):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"picture")
    run(program, index, "--forget", "--camera", "door")
    assert [path.exists() for path in (*own, *left)] == [True, True, False, False]


def test_a_person_in_a_video_and_before_a_camera(index: Path, program, tmp_path: Path) -> None:
    """Times of the video are not compared with times of day."""
    rng = np.random.default_rng(0)
    person = lambda: Detections(torch.rand(1, 4), torch.ones(1), looks([1], rng))  # noqa: E731
    video = Source(tmp_path / "walk.mp4", 1, 1, 1.0)
    with writing(index, ORIGIN) as gallery:
        for source, began in ((video, 0.0), (Source(camera_path("hall"), 0, 0, 1.0), BEGAN)):
            given = [None]
            for second in range(3):
                samples = [(Sample(began + second, person()), given)]
                (given,) = gallery.people.add_tracked(source, samples)
    out = run(program, index, "--min-similarity", 0.5)
    assert clock(BEGAN) in out and clock(BEGAN + 2) in out and clock(0.0) not in out
    controller = PersonsController(lambda: open_index(index), index)
    (number,) = controller.people()[1]
    shown = controller.person(number)[3]
    assert period(0.0, 2.0) in shown and period(BEGAN, BEGAN + 2) in shown
    assert period(0.0, BEGAN + 2) not in shown and "width:100.00%" in shown
