"""The index in Milvus: the same results as the local index, several writers, and killed writers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import demo
from engine.index import milvus, milvus_writer
from engine.index.gallery_index import GalleryIndex, index_place, open_index, writing
from engine.index.local import LocalPeople
from engine.index.milvus import Address, MilvusPeople
from engine.index.milvus_writer import MilvusWriter
from engine.index.records import Origin, PersonFilter, Sample, Source, camera_path
from tests.crowds import make_world, moving
from tests.indexes import ORIGIN, WIDTH, crowd, fill, units
from tests.videos import write_video
from tools import index_gallery
from utils.errors import UserError

pytest.importorskip("pymilvus")
server = pytest.importorskip("milvus_lite.adapter.grpc.server")

OTHER = Origin("other.pth", ORIGIN.settings, np.eye(WIDTH, dtype=np.float32)[1])
WALK = Source(Path('/videos/a "walk" é.mp4'), 5000, 3, 0.5)


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Address:
    """Return an index of 20 pictures and a video in Milvus Lite."""
    place = index_place(str(tmp_path_factory.mktemp("milvus") / "people.db"))
    with writing(place, ORIGIN) as index:
        fill_all(index)
    return place


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Address]:
    """Return the address of a server that several processes can reach."""
    running, database, port = server.start_server_in_thread(str(tmp_path / "db"), max_workers=1)
    yield Address(f"http://someone:secret@127.0.0.1:{port}")
    running.stop(0)
    database.close()


def samples(count: int) -> list[Sample]:
    """Return frames of a video with the same four people, and one new person in each frame."""
    everyone = crowd(4 + count, 77)
    return [Sample(0.5 * i, everyone[[0, 1, 2, 3, 4 + i]]) for i in range(count)]


def fill_all(index: GalleryIndex) -> None:
    with index.people.changing():
        fill(index, range(20))
    index.people.add(WALK, samples(4)[:2], finished=False)
    index.people.add(WALK, samples(4)[2:], note="a note")


def answers(index: GalleryIndex, query: torch.Tensor, top: int = 8, **options) -> list[tuple]:
    found = index.search(query, top, **options)
    ids = {match.person.tracklet for match in found}
    assert len(ids) == len(found)
    return [
        (p.path, p.time, p.box, p.score, m.query, m.span, pytest.approx(m.similarity, abs=1e-6))
        for m, p in ((match, match.person) for match in found)
    ]


def names(people: MilvusPeople | LocalPeople) -> list[str]:
    return [one.source.path.name for one in people.known()]


def test_answers_are_those_of_the_local_index(lite: Address) -> None:
    local, there = GalleryIndex(), open_index(lite, ORIGIN)
    fill_all(local)
    for query in (units(1, 5), samples(1)[0].people.embeddings[:3]):
        assert answers(there, query) == answers(local, query)
        excluded = {"exclude": [WALK.path], "min_similarity": 0.1}
        assert answers(there, query, 30, **excluded) == answers(local, query, 30, **excluded)
    everyone = answers(there, units(1, 5), 999)
    assert len(everyone) == 208 and everyone == answers(local, units(1, 5), 999)
    people, same = there.people, local.people
    assert people.count() == same.count() and people.known() == same.known()
    for place in ((WALK.path, 0.5), (Path("/pictures/3.jpg"), None), (Path("/none.jpg"), None)):
        found, expected = people.in_scene(*place), same.in_scene(*place)
        assert [p.box for p in found] == [p.box for p in expected]
    assert people.version(WALK.path) == (5000, 3) and people.read_until(WALK.path) == 1.5
    assert people.is_current()


def test_filters_select_in_the_database(lite: Address) -> None:
    local, there = GalleryIndex(), open_index(lite)
    fill_all(local)
    for person_filter, count in (
        (PersonFilter(('a "walk" é', "3")), 18),
        (PersonFilter(after=0.0), 0),
        (PersonFilter(("7",), before=1.0), 0),
    ):
        found = answers(there, units(1, 5), 99, person_filter=person_filter)
        assert len(found) == count and found == answers(
            local, units(1, 5), 99, person_filter=person_filter
        )


def test_times_of_cameras(cluster: Address) -> None:
    hall = Source(camera_path("hall"), 0, 0, 0.0)
    with writing(cluster, ORIGIN) as index:
        index.people.add(hall, [Sample(one.time + 1e9, one.people) for one in samples(3)])
        for person_filter, count in (
            (PersonFilter(("hall",), after=1e9 + 0.75), 5),
            (PersonFilter(after=1e9 + 0.25, before=1e9 + 0.75), 5),
            (PersonFilter(after=1e9 + 2), 0),
            (PersonFilter(("gate",)), 0),
        ):
            assert len(index.search(units(1, 5), 99, person_filter=person_filter)) == count


def test_more_rows_than_one_answer_has(lite: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    local, there = GalleryIndex(), open_index(lite)
    fill_all(local)
    monkeypatch.setattr(milvus, "LIMIT", 16)
    assert answers(there, units(2, 5), 60) == answers(local, units(2, 5), 60)


def test_another_network_is_refused(lite: Address) -> None:
    for use in (lambda: open_index(lite, OTHER), lambda: writing(lite, OTHER).__enter__()):
        with pytest.raises(UserError, match=r"other\.pth"):
            use()
    assert open_index(lite, ORIGIN).people.origin.name == "net.pth"


def test_bad_addresses_and_kinds(tmp_path: Path, lite: Address) -> None:
    missing = tmp_path / "none.db"
    with pytest.raises(UserError, match=f"--index {missing}: "):
        open_index(index_place(str(missing)))
    wrong = ("", "[", "someone:secret@host:port", "someone:secret/@host:1", "someone:secret@host:0")
    for place in wrong:
        with pytest.raises(UserError, match="--index http://") as refused:
            index_place(f"http://{place}")
        assert "secret" not in str(refused.value) and "\n" not in str(refused.value)
    (tmp_path / "text.db").write_text("no database")
    nothing = Address("http://someone:secret@127.0.0.1:1")
    for place in (Address(str(tmp_path / "text.db")), nothing):
        with pytest.raises(UserError) as refused:
            open_index(place)
        assert "secret" not in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(UserError, match="IVF_PQ"), writing(lite, ORIGIN, "IVF_PQ"):
        pass
    assert answers(open_index(lite), units(1, 5))


def test_a_new_version_replaces_the_old_one_when_it_is_finished(cluster: Address) -> None:
    old, new = (Source(Path("/a.jpg"), 1, i) for i in (1, 2))
    broken = crowd(2, 9)
    broken.embeddings[1, 0] = torch.nan
    with writing(cluster, ORIGIN) as index:
        index.people.add(old, [Sample(None, crowd(3, 1))])
        index.people.add(new, [Sample(None, crowd(5, 2))], finished=False)
        reader = open_index(cluster)
        assert [one.source for one in reader.people.known()] == [old]
        assert len(answers(reader, units(1, 1), 99)) == 3
        index.people.add(new, [])
        assert [one.source for one in reader.people.known()] == [new]
        assert len(answers(reader, units(1, 1), 99)) == 5 == reader.people.count()
        with pytest.raises(UserError):
            index.people.add(Source(Path("/b.jpg"), 1, 1), [Sample(None, broken)])
    assert names(open_index(cluster).people) == ["a.jpg"]
    with writing(cluster, None, "HNSW,M=8") as index:
        assert index.people.remove([Path("/a.jpg"), Path("/b.jpg")]) == 1
    assert answers(reader, units(1, 1), 99) == [] and reader.people.count() == 0


def test_every_source_is_taken_by_one_writer(cluster: Address, monkeypatch) -> None:
    monkeypatch.setattr(milvus_writer, "BEATS", 200)  # 0.15 seconds between them
    monkeypatch.setattr(milvus_writer, "CLAIMED", 2)
    sources = [Source(Path(f"/{i}.jpg"), 1, 1) for i in range(6)]
    with writing(cluster, ORIGIN) as one, writing(cluster, ORIGIN) as two:
        first, second = one.people.portions(sources), two.people.portions(sources)
        mine, theirs = next(first), next(second)
        assert len(mine) == 2 and theirs and not {*mine} & {*theirs}
        for source in theirs:
            two.people.add(source, [Sample(None, crowd(1, 1))])
        rest = [source for part in first for source in part]
        assert {*mine, *theirs, *rest} == {*sources} and not {*rest} & {*mine, *theirs}
    with writing(cluster, ORIGIN) as three:
        assert {s for part in three.people.portions(sources) for s in part} == {*mine, *rest}


WRITER = """
import sys, time
from pathlib import Path
from engine.index.gallery_index import index_place, writing
from engine.index.records import Sample, Source
from tests.indexes import ORIGIN, crowd
from tests.test_milvus import WALK, samples
with writing(index_place(sys.argv[1]), ORIGIN) as index:
    index.people.add(Source(Path("/b.jpg"), 1, 1), [Sample(None, crowd(3, 1))])
    index.people.add(WALK, samples(4)[:3], finished=False)
    print("written", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_killed_writer(tmp_path: Path) -> None:
    place = str(tmp_path / "people.db")
    command = [sys.executable, "-c", WRITER, place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout and writer.stdout.readline() == "written\n"
        with pytest.raises(UserError, match=f"--index {place}: "):
            open_index(Address(place))
        writer.kill()
    reader = open_index(Address(place))
    assert names(reader.people) == ["b.jpg"] and len(answers(reader, units(1, 1), 99)) == 3
    with writing(Address(place), ORIGIN) as index:
        assert [WALK] in list(index.people.portions([WALK]))
        index.people.add(WALK, samples(4))
    local = GalleryIndex()
    local.people.add(Source(Path("/b.jpg"), 1, 1), [Sample(None, crowd(3, 1))])
    local.people.add(WALK, samples(4))
    assert answers(reader, units(1, 1), 99) == answers(local, units(1, 1), 99)
    assert reader.people.count() == local.people.count()


def test_a_writer_that_others_have_replaced_changes_nothing(cluster: Address, monkeypatch) -> None:
    monkeypatch.setattr(milvus_writer, "LEASE", 0.6)
    late = MilvusWriter(cluster)
    late.create(WIDTH, milvus_writer.EXACT)
    late.sign_in(ORIGIN)  # and does not beat, as a machine that was suspended
    late.add(WALK, samples(4)[:2], finished=False)
    with writing(cluster, ORIGIN) as index:
        assert [WALK] in list(index.people.portions([WALK]))
        index.people.add(WALK, samples(4))
    before = answers(open_index(cluster), units(1, 1), 99)
    late.add(WALK, samples(4)[2:3])
    assert answers(open_index(cluster), units(1, 1), 99) == before and len(before) == 8
    with writing(cluster, ORIGIN) as index:
        assert index.people.count() == 20


@pytest.mark.slow
def test_programs_index_list_search_and_remove(tmp_path: Path, program) -> None:
    base = make_world(tmp_path)
    write_video(base / "gallery" / "walk.mp4", moving(6))
    network = "--cfg", base / "cfg.yaml", "--ckpt", base / "everyone.pth"
    index, out = base / "gallery" / "people.db", base / "out"
    code, printed, _ = program(index_gallery.main, *network, "--index", index, base / "gallery")
    assert code == 0 and "3 pictures and 6 frames" in printed
    code, _, error = program(
        index_gallery.main, *network[:3], base / "other.pth", "--index", index, base / "gallery"
    )
    assert code == 2 and error.splitlines()[-1].startswith(f"error: --index {index}: ")
    assert (
        program(index_gallery.main, *network, "--index", base / "local", base / "gallery")[0] == 0
    )
    query = "--query", base / "query.jpg", "--box", 10, 10, 60, 60, "--top", 30
    found = []
    for place in (index, base / "local"):
        assert program(demo.main, *network, *query, "--index", place, "--out", out)[0] == 0
        found.append(json.loads((out / "matches.json").read_text()))
    values = [[one.pop("similarity") for one in some] for some in found]
    assert len(values[0]) > 5 and values[0] == pytest.approx(values[1], abs=1e-5)
    assert found[0] == found[1]
    code, printed, _ = program(
        index_gallery.main, "--index", index, "--remove", base / "gallery/s0.jpg", "--list"
    )
    assert code == 0 and "s1.png" in printed and "s0.jpg  " not in printed
