"""The index with generated people: searches, changes, damage, locks, other networks, killed
processes."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.index import local
from engine.index.gallery_index import GalleryIndex, open_index, writing
from engine.index.local import PEOPLE, VECTORS, LocalPeople
from engine.index.people import People
from engine.index.records import Origin, PersonFilter, Sample, Source, camera_path
from engine.index.vectors import CHECKSUM, MARK, Vectors
from models.outputs import Detections
from tests.indexes import ORIGIN, WIDTH, crowd, fill, units
from tests.training import FORKS, die
from utils.errors import UserError


def found(index: GalleryIndex, query_embeddings: Tensor, top: int = 8, **options) -> list[tuple]:
    matches = index.search(query_embeddings, top, **options)
    return [(m.person.path, m.person.box, m.person.score, m.similarity, m.query) for m in matches]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["Flat", "HNSW16", "IVF4,Flat", "IVF4,SQ8", "SQ8", "IVF4,SQ8,RFlat"]
)
def test_any_kind_finds_what_comparing_everyone_finds(tmp_path: Path, kind: str) -> None:
    memory = GalleryIndex()
    fill(memory, range(40))
    with writing(tmp_path / "index", ORIGIN, kind) as index:
        fill(index, range(39, -1, -1))
    query_embeddings = units(3, 99)
    index = open_index(tmp_path / "index", ORIGIN)
    assert index.people.vectors is not None and len(index.people.vectors.ids) == 400
    assert found(index, query_embeddings) == found(memory, query_embeddings)
    best = found(index, query_embeddings, top=1)[0]
    everyone = torch.cat([crowd(10, i).weighted_embeddings for i in range(40)])
    assert best[3] == pytest.approx(float((everyone @ query_embeddings.T).max()), abs=1e-6)


@pytest.mark.parametrize("kind", ["IVF16,Flat", "IVF16,SQ8,RFlat"])
def test_a_filter_finds_people_in_every_cell(tmp_path: Path, kind: str) -> None:
    """A search without a filter reads 8 of the 16 cells."""
    with writing(tmp_path, ORIGIN, kind) as index:
        fill(index, range(64))
    index, query_embeddings = open_index(tmp_path), units(1, 7)
    for name in ("0", "31", "63"):
        assert len(found(index, query_embeddings, 99, person_filter=PersonFilter((name,)))) == 10
    others = {Path(f"/pictures/{i}.jpg") for i in range(1, 64)}
    assert len(found(index, query_embeddings, 99, exclude=others)) == 10
    assert len(found(index, query_embeddings, 999)) == 640


def test_selected_people_are_compared_as_everyone(tmp_path: Path, monkeypatch) -> None:
    """Whether a filter is applied to the nearest people or before the comparison makes no
    difference."""
    index, query_embeddings = GalleryIndex(), units(2, 7)
    for name in ("hall", "door"):
        source = Source(camera_path(name), 0, 0, 0.0)
        for second in range(20):
            index.people.add_tracked(source, [(Sample(second, crowd(5, second)), [None] * 5)])
    fill(index, range(20))
    for chosen in (
        PersonFilter(("hall",)),
        PersonFilter(("7", "door"), 4.5, 17),
        PersonFilter((), 3, None),
        PersonFilter((), None, -1),
    ):
        results = []
        for limit in (np.inf, 0):
            monkeypatch.setattr(local, "FILTERED", limit)
            results.append(
                [found(index, query_embeddings, n, person_filter=chosen) for n in (3, 99)]
            )
        assert results[0] == results[1]
        assert bool(results[0][0]) == (chosen.before != -1)


def test_min_similarity_exclude_and_equal_people() -> None:
    index = GalleryIndex()
    fill(index, range(20))
    for copy in "zyx":  # equal matches are in the order of their paths
        source = Source(Path(f"/copies/{copy}.jpg"), 1, 1)
        index.people.add(source, [Sample(None, crowd(10, 3))])
    query_embeddings = crowd(10, 3).embeddings[4:5]
    names = [path.name for path, *_ in found(index, query_embeddings, top=4)]
    assert names == ["x.jpg", "y.jpg", "z.jpg", "3.jpg"]
    similarities = [m[3] for m in found(index, query_embeddings, top=999)]
    assert len(similarities) == 230 and similarities == sorted(similarities, reverse=True)
    cut = found(index, query_embeddings, top=999, min_similarity=similarities[5])
    assert [m[3] for m in cut] == similarities[:6]
    assert found(index, query_embeddings, min_similarity=1.5) == []
    assert found(index, query_embeddings, top=0) == []
    left = found(index, query_embeddings, top=999, exclude={Path("/pictures/3.jpg")})
    assert len(left) == 220


def test_no_more_is_asked_for_than_there_is(tmp_path: Path) -> None:
    """The ids of people whom another rank has found are large."""
    with writing(tmp_path / "index", ORIGIN, "Flat") as index:
        index.people.begin_at(1 << 40, 1 << 40)
        fill(index, range(5))
    index = open_index(tmp_path / "index")
    assert len(index.search(units(1, 9), 10**10)) == 50


def test_equal_embeddings_hide_nobody(tmp_path: Path) -> None:
    """They have no links to others in a graph of HNSW."""
    still = Detections(torch.zeros(400, 4), torch.ones(400), units(1, 1).expand(400, -1))
    with writing(tmp_path, ORIGIN, "HNSW16") as index:
        index.people.add(Source(Path("/still.jpg"), 1, 1), [Sample(None, still)])
        fill(index, range(20))
    index, query_embeddings = open_index(tmp_path), units(1, 7)
    assert len(found(index, query_embeddings, 999)) == 600
    assert len(found(index, query_embeddings, 99, person_filter=PersonFilter(("7",)))) == 10


def test_an_index_grows_forgets_and_changes_its_kind(tmp_path: Path) -> None:
    folder, query_embeddings = tmp_path / "index", units(1, 7)
    for kind in (None, None, "HNSW8", None, "IVF2,Flat", "Flat"):
        with writing(folder, ORIGIN, kind) as index:
            fill(index, range(5), each=20)
            index.people.remove([Path("/pictures/2.jpg")])
            fill(index, range(5, 8))
            index.people.remove([Path("/pictures/6.jpg")])
        memory = GalleryIndex()
        fill(memory, range(5), each=20)
        fill(memory, range(5, 8))
        memory.people.remove([Path("/pictures/2.jpg"), Path("/pictures/6.jpg")])
        reader = open_index(folder)
        assert sorted(reader.people.vectors.ids) == reader.people.numbers().tolist()
        assert found(reader, query_embeddings) == found(memory, query_embeddings)
        with writing(folder, ORIGIN) as index:
            index.people.remove([Path(f"/pictures/{i}.jpg") for i in range(8)])
        assert found(open_index(folder), query_embeddings) == []


@pytest.mark.parametrize("kind", ["Flat", "HNSW16", "IVF4,Flat"])
def test_an_older_faiss_file_hides_nobody(tmp_path: Path, kind: str) -> None:
    """The most similar people were removed from people.sqlite, but are still in people.faiss."""
    query_embeddings = units(1, 7)
    with writing(tmp_path, ORIGIN, kind) as index:
        fill(index, range(40))
    everyone = [m[0] for m in found(open_index(tmp_path), query_embeddings, top=400)]
    near = list(dict.fromkeys(everyone))[:35]  # most of them
    People(tmp_path / PEOPLE).remove(near)
    memory = GalleryIndex()
    fill(memory, [i for i in range(40) if Path(f"/pictures/{i}.jpg") not in near])
    late = open_index(tmp_path)
    assert len(late.people.vectors.ids) == 400 and late.people.count() == 50
    assert found(late, query_embeddings) == found(memory, query_embeddings) != []


def test_too_few_people_to_train_a_kind(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="--kind IVF64,Flat: .*50"),
        writing(tmp_path, ORIGIN, "IVF64,Flat") as index,
    ):
        fill(index, range(5))
    assert len(found(open_index(tmp_path), units(1, 7))) == 8
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(5, 20))
    assert len(open_index(tmp_path).people.vectors.ids) == 200


def test_too_few_people_are_left_for_the_kind(tmp_path: Path, capsys) -> None:
    """The index stays usable, and has its kind again when there are enough people."""
    with writing(tmp_path, ORIGIN, "IVF4,Flat") as index:
        fill(index, range(5))
    for _ in range(2):
        with writing(tmp_path, ORIGIN) as index, index.people.changing() as db:
            db.execute("DELETE FROM people WHERE id > 3")
            (tmp_path / VECTORS).unlink(missing_ok=True)  # as tools.identities --forget does
        assert "IVF4,Flat" in capsys.readouterr().err and not (tmp_path / VECTORS).exists()
        assert len(found(open_index(tmp_path), units(1, 7))) == 3
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(5, 10))
    vectors = open_index(tmp_path).people.vectors
    assert vectors.kind == "IVF4,Flat" and len(vectors.ids) == 53


@pytest.mark.parametrize("kind", ["Nonsense", "LSH"])
def test_no_such_kind(tmp_path: Path, kind: str) -> None:
    with (
        pytest.raises(UserError, match=f"--kind {kind}: "),
        writing(tmp_path, ORIGIN, kind),
    ):
        raise AssertionError("accepted")


def test_another_network_is_refused(tmp_path: Path) -> None:
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(3))
    near = Origin("half.safetensors", ORIGIN.settings, ORIGIN.probe + 1e-3)
    assert open_index(tmp_path, near).people.count() == 30
    for other, why in (
        (Origin("b.pth", ORIGIN.settings, ORIGIN.probe[::-1].copy()), "other weights"),
        (Origin("b.pth", ORIGIN.settings, ORIGIN.probe[:8]), "other weights"),
        (Origin("b.pth", "MIN_SIZE 32", ORIGIN.probe), "MIN_SIZE 64 there, MIN_SIZE 32 here"),
    ):
        with pytest.raises(UserError, match=f"net.pth, .*b.pth .{why}"):
            open_index(tmp_path, other)
        with (
            pytest.raises(UserError, match="net.pth"),
            writing(tmp_path, other),
        ):
            raise AssertionError("accepted")


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[len(content) // 2 :]
    elif how == "flipped":
        content[len(content) // 2] ^= 1
    else:
        content[: len(content) // 4 * 3] = os.urandom(len(content) // 4 * 3)
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "flipped", "overwritten"])
def test_damaged_vectors_are_named_and_rebuilt(tmp_path: Path, how: str, capsys) -> None:
    """The FAISS file is rebuilt once, by a search or by a change."""
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(30))
    before = found(open_index(tmp_path), units(1, 7))
    for use in ("search", "change"):
        damage(tmp_path / VECTORS, how)
        if use == "change":
            with writing(tmp_path, None):
                pass
        for reports in (use == "search", False):
            capsys.readouterr()
            index = open_index(tmp_path)
            assert found(index, units(1, 7)) == before
            assert len(index.people.vectors.ids) == 300
            assert capsys.readouterr().err.count(f"{tmp_path}/{VECTORS}: damaged") == reports


def test_vectors_are_rebuilt_in_memory_while_another_process_writes(tmp_path: Path) -> None:
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(3))
    with writing(tmp_path, ORIGIN):
        damage(tmp_path / VECTORS, "cut")
        content = (tmp_path / VECTORS).read_bytes()
        assert len(open_index(tmp_path).people.vectors.ids) == 30
        assert (tmp_path / VECTORS).read_bytes() == content


def test_vectors_of_another_index_are_rebuilt(tmp_path: Path, capsys) -> None:
    for name, pictures in ("a", range(3)), ("b", range(3, 6)):
        with writing(tmp_path / name, ORIGIN) as index:
            fill(index, pictures)
    before = found(open_index(tmp_path / "b"), units(1, 7))
    os.replace(tmp_path / "a" / VECTORS, tmp_path / "b" / VECTORS)
    assert found(open_index(tmp_path / "b"), units(1, 7)) == before
    assert f"b/{VECTORS}: " in capsys.readouterr().err


@pytest.mark.parametrize("file", [PEOPLE, VECTORS])
def test_a_restored_backup_of_one_file_is_noticed(tmp_path: Path, file: str, capsys) -> None:
    """Ids that were assigned after the backup denote other people in the other file."""
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(3))
    backup = (tmp_path / file).read_bytes()
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(3, 6))
    (tmp_path / file).write_bytes(backup)
    if file == PEOPLE:
        fill(GalleryIndex(LocalPeople(tmp_path / PEOPLE)), range(6, 9))
    memory = GalleryIndex()
    fill(memory, [*range(3), *(range(6, 9) if file == PEOPLE else range(3, 6))])
    late = open_index(tmp_path)
    assert found(late, units(3, 7), top=99) == found(memory, units(3, 7), top=99)
    rebuilt = f"{VECTORS}: " in capsys.readouterr().err
    assert rebuilt == (file == PEOPLE)  # an older FAISS file is valid for a newer SQLite file
    assert len(late.people.vectors.ids) == (60 if rebuilt else 30)


def test_a_write_of_faiss_that_is_interrupted_leaves_the_old_file_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(3))
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Vectors, "save", lambda *args: 1 / 0)
        with writing(tmp_path, ORIGIN) as index:
            fill(index, range(3, 5))
    late = open_index(tmp_path)
    assert len(late.people.vectors.ids) == 30 and late.people.count() == 50
    assert len(found(late, units(1, 7), top=99)) == 50
    assert capsys.readouterr().err == ""


def test_an_index_of_an_earlier_release(tmp_path: Path, capsys) -> None:
    """Its FAISS file contains no state."""
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(3))
    content = (tmp_path / VECTORS).read_bytes()
    (tmp_path / VECTORS).write_bytes(content[: -MARK - CHECKSUM] + content[-CHECKSUM:])
    people = People(tmp_path / PEOPLE)
    people.select("DELETE FROM facts WHERE name IN ('state', 'vectors', 'vectors_before')")
    people.close()
    assert len(open_index(tmp_path).people.vectors.ids) == 30
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(3, 5))
    assert len(open_index(tmp_path).people.vectors.ids) == 50
    assert capsys.readouterr().err == ""


def test_an_open_index_notices_that_it_was_replaced(tmp_path: Path) -> None:
    for name in "ab":
        with writing(tmp_path / name, ORIGIN) as index:
            fill(index, range(3))
    index = open_index(tmp_path / "a")
    assert index.people.is_current()
    with writing(tmp_path / "a", ORIGIN) as other:
        fill(other, range(3, 4))
    assert not index.people.is_current()  # the FAISS file has changed
    index = open_index(tmp_path / "a")
    assert index.people.is_current()
    (tmp_path / "a").rename(tmp_path / "c")
    assert not index.people.is_current()
    (tmp_path / "b").rename(tmp_path / "a")
    assert not index.people.is_current()
    content = (tmp_path / "c" / PEOPLE).read_bytes()
    index = open_index(tmp_path / "a")
    (tmp_path / "a" / PEOPLE).write_bytes(content)  # in place
    assert not index.people.is_current()


def test_a_changed_source_is_replaced_when_it_is_finished() -> None:
    index, walk = GalleryIndex(), Path("/walk.mp4")
    old, new, newer = (Source(walk, size, 1, 0.0) for size in (1, 2, 3))
    samples = [Sample(i / 10, crowd(3, i)) for i in range(4)]
    index.people.add(old, samples[:2])
    before = found(index, units(1, 7), top=99)
    index.people.add(new, samples[:3], finished=False)
    assert found(index, units(1, 7), top=99) == before != []
    assert index.people.count() == 6 and len(index.people.in_scene(walk, 0.0)) == 3
    assert [one.source for one in index.people.known()] == [old]
    assert {one.source: one.until for one in index.people.known(hidden=True)} == {
        old: 0.1,
        new: 0.2,
    }
    index.people.add(newer, samples[:1], finished=False)  # changed again meanwhile
    assert {one.source for one in index.people.known(hidden=True)} == {old, newer}
    index.people.add(newer, samples[1:])
    assert [(one.source, one.samples) for one in index.people.known(hidden=True)] == [(newer, 4)]
    assert index.people.count() == 12 == len(index.people.numbers())
    index.people.add(new, samples[:2], finished=False)
    assert index.people.remove([walk]) == 1
    assert len(index.people.numbers()) == 0


def test_tracklets_do_not_depend_on_how_a_video_is_read(tmp_path: Path, monkeypatch) -> None:
    """It is read at once, sample by sample, by two processes in turn, or with a failed
    transaction. Earlier samples are read again only where another process continues."""
    samples = [Sample(i / 10, crowd(3, i // 4)) for i in range(12)]
    source, replayed = Source(Path("/walk.mp4"), 1, 1, 0.0), []
    whole = People()
    whole.add(source, samples)
    replay = People._tracklets
    monkeypatch.setattr(
        People, "_tracklets", lambda self, *who: replayed.append(who) or replay(self, *who)
    )

    def rows(people: People) -> list[tuple]:
        return people.select("SELECT time, appearance FROM people ORDER BY id")

    alone = People()
    for i, sample in enumerate(samples):
        alone.add(source, [sample], finished=i == 11)
    assert rows(alone) == rows(whole) and len(replayed) == 1
    one, other = People(tmp_path / PEOPLE), People(tmp_path / PEOPLE)
    for i, sample in enumerate(samples):
        with pytest.raises(KeyboardInterrupt), one.changing():
            one.add(source, [sample], finished=False)
            raise KeyboardInterrupt
        (one if i % 3 else other).add(source, [sample], finished=False)
    assert rows(one) == rows(whole)


def test_a_part_of_another_rank_replaces_a_changed_source() -> None:
    index, part = GalleryIndex(), People()
    part.begin_at(100, 100)
    old, new = (Source(Path("/a.jpg"), size, 1) for size in (1, 2))
    index.people.add(old, [Sample(None, crowd(3, 1))])
    part.add(new, [Sample(None, crowd(4, 2))])
    for _ in range(2):  # again: known people are not added twice
        index.people.absorb(part)
        assert [(one.source, one.people) for one in index.people.known(hidden=True)] == [(new, 4)]


def test_embeddings_that_are_not_finite(tmp_path: Path) -> None:
    people = crowd(3, 1)
    people.embeddings[1, 0] = torch.nan
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(3))
        with pytest.raises(UserError, match=f"{PEOPLE}: expected"):
            index.people.add(Source(Path("/a.jpg"), 1, 1), [Sample(None, people)])
    assert open_index(tmp_path).people.count() == 30
    stored = People(tmp_path / PEOPLE)  # as an earlier release did
    rows = np.full((2, WIDTH), np.nan, np.float32)
    stored.select("UPDATE people SET embedding = ? WHERE id = 4", [rows[0].tobytes()])
    memory = GalleryIndex()
    fill(memory, range(3))
    memory.people.select("DELETE FROM people WHERE id = 4")
    expected = found(memory, units(2, 7), top=99)
    for again in range(2):
        if again:  # not in FAISS either
            (tmp_path / VECTORS).unlink()
        assert found(open_index(tmp_path), units(2, 7), top=99) == expected
        assert len(expected) == 29


TAMPERED = [
    "UPDATE facts SET value = 7 WHERE name = 'name'",
    "DELETE FROM facts WHERE name = 'name'",
    "UPDATE facts SET value = 'text' WHERE name = 'probe'",
    "UPDATE facts SET value = x'010203' WHERE name = 'probe'",
    "DELETE FROM facts WHERE name = 'probe'",
    "UPDATE facts SET value = 9 WHERE name = 'format'",
    "UPDATE people SET embedding = 'text'",
    "UPDATE people SET embedding = 5",
    "UPDATE people SET embedding = x'00000000'",
    "UPDATE people SET embedding = x'000000'",
    "UPDATE people SET embedding = x'00000000' WHERE id = 3",
    "UPDATE people SET x1 = NULL",
    "UPDATE people SET score = 'high'",
    "UPDATE people SET appearance = 'first'",
    "UPDATE people SET time = 'noon'",
    "UPDATE sources SET path = 5 WHERE id = 1",
    "UPDATE sources SET path = 'text' WHERE id = 1",
    "UPDATE sources SET bytes = 'text'",
    "UPDATE sources SET samples = 'text'",
    "UPDATE sources SET every = 'text'",
    "UPDATE sqlite_sequence SET seq = 'text'",
    "DROP TABLE sources",
    "DROP TABLE people",
    "DROP TABLE facts",
    "ALTER TABLE people RENAME COLUMN embedding TO vector",
    "ALTER TABLE sources RENAME COLUMN every TO pace",
]


@pytest.mark.parametrize("statement", TAMPERED)
def test_a_tampered_file_is_one_line(tmp_path: Path, statement: str) -> None:
    """Each use returns a result or raises a UserError."""
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(3))
    db = sqlite3.connect(tmp_path / PEOPLE)
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute(statement)
    db.commit()
    db.close()

    def search() -> None:
        matches = open_index(tmp_path, ORIGIN).search(units(1, 7), 99)
        assert all(np.isfinite(match.similarity) for match in matches)

    def without_vectors() -> None:
        (tmp_path / VECTORS).unlink(missing_ok=True)
        search()

    def change() -> None:
        with writing(tmp_path, ORIGIN) as index:
            fill(index, range(2, 4))

    errors = 0
    uses = (search, lambda: open_index(tmp_path).people.known(), without_vectors, change)
    for use in uses:
        try:
            use()
        except UserError as error:
            errors += 1
            assert "\n" not in str(error) and len(str(error)) < 300
    assert errors


@pytest.mark.parametrize("how", ["cut", "overwritten"])
def test_damaged_people_are_named(tmp_path: Path, how: str) -> None:
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(30))
    damage(tmp_path / PEOPLE, how)
    with pytest.raises(UserError, match=f"{PEOPLE}: damaged"):
        found(open_index(tmp_path), units(1, 7))
    with pytest.raises(UserError, match=f"{PEOPLE}: damaged"), writing(tmp_path, ORIGIN) as index:
        fill(index, range(30, 31))


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--index {tmp_path}/none: "):
        open_index(tmp_path / "none")
    People(tmp_path / PEOPLE).close()  # the process was killed before its first transaction
    with pytest.raises(UserError, match=f"--index {tmp_path}: "):
        open_index(tmp_path)


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(3))
    with (
        pytest.raises(UserError, match=f"{PEOPLE}: .*full"),
        writing(tmp_path, ORIGIN) as index,
    ):
        pages = index.people.select("PRAGMA page_count")[0][0]
        index.people.select(f"PRAGMA max_page_count = {pages + 8}")
        fill(index, range(3, 99))
    index = open_index(tmp_path)
    assert index.people.count() % 10 == 0 and len(found(index, units(1, 7))) == 8
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(50, 60))
    assert open_index(tmp_path).people.count() >= 130


# --- processes ---


def _write(folder: Path, stop: Callable[[int], None]) -> None:
    with writing(folder, ORIGIN) as index:
        for i in range(1000):
            fill(index, range(i, i + 1))
            stop(i)


def _die_after_five(i: int) -> None:
    if i == 4:
        die()


@pytest.mark.slow
def test_a_lock_names_its_process_and_ends_with_it(tmp_path: Path) -> None:
    with (
        writing(tmp_path, ORIGIN),
        pytest.raises(UserError, match=f"--index {tmp_path}: .* {os.getpid()}"),
        writing(tmp_path, ORIGIN),
    ):
        raise AssertionError("accepted")
    killed = FORKS.Process(target=_write, args=(tmp_path, _die_after_five))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -9
    index = open_index(tmp_path)
    assert index.people.count() == 50 and len(found(index, units(1, 7))) == 8
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(5, 8))
    memory = GalleryIndex()
    fill(memory, range(8))
    assert found(open_index(tmp_path), units(1, 7)) == found(memory, units(1, 7))
