"""The index by itself, with made-up people: what a search finds, and what becomes of the folder
when it is changed, damaged, locked, of another network, or its process is killed."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.index.gallery_index import PEOPLE, VECTORS, GalleryIndex, Origin, open_index, writing
from engine.index.people import People, Sample, Source
from models.outputs import Detections
from tests.training import FORKS, die
from utils.errors import UserError

WIDTH = 16
ORIGIN = Origin("net.pth", "MIN_SIZE 64", np.eye(WIDTH, dtype=np.float32)[0])


def units(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, WIDTH, generator=generator))


def crowd(count: int, seed: int) -> Detections:
    generator = torch.Generator().manual_seed(seed)
    corners = 50 * torch.rand(count, 2, generator=generator)
    scores = 0.5 + torch.rand(count, generator=generator) / 2
    return Detections(torch.cat([corners, corners + 20], 1), scores, units(count, seed))


def fill(index: GalleryIndex, pictures: range, each: int = 10) -> None:
    for i in pictures:
        source = Source(Path(f"/pictures/{i}.jpg"), 1000, i)
        index.people.add(source, [Sample(None, crowd(each, i))])


def found(index: GalleryIndex, query_embeddings: Tensor, top: int = 8, **options) -> list[tuple]:
    matches = index.search(query_embeddings, top, **options)
    return [(m.person.path, m.person.box, m.person.score, m.similarity, m.query) for m in matches]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Flat", "HNSW16", "IVF4,Flat", "IVF4,SQ8", "SQ8"])
def test_any_kind_finds_what_comparing_everyone_finds(tmp_path: Path, kind: str) -> None:
    memory = GalleryIndex()
    fill(memory, range(40))
    with writing(tmp_path / "index", ORIGIN, kind) as index:
        fill(index, range(39, -1, -1))
    query_embeddings = units(3, 99)
    index = open_index(tmp_path / "index", ORIGIN)
    assert index.vectors is not None and len(index.vectors.ids) == 400
    assert found(index, query_embeddings) == found(memory, query_embeddings)
    best = found(index, query_embeddings, top=1)[0]
    everyone = torch.cat([crowd(10, i).weighted_embeddings for i in range(40)])
    assert best[3] == pytest.approx(float((everyone @ query_embeddings.T).max()), abs=1e-6)


def test_min_similarity_exclude_and_equal_people() -> None:
    index = GalleryIndex()
    fill(index, range(20))
    for copy in "zyx":  # as often as one likes: equal ones stand in the order of their paths
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
    left = found(index, query_embeddings, top=999, exclude={Path("/pictures/3.jpg")})
    assert len(left) == 220


def test_no_more_is_asked_for_than_there_is(tmp_path: Path, monkeypatch) -> None:
    with writing(tmp_path / "index", ORIGIN, "Flat") as index:
        fill(index, range(5))
    index, asked, nearest = open_index(tmp_path / "index"), [], GalleryIndex.nearest

    def counting(self, queries, count):
        asked.append(count)
        return nearest(self, queries, count)

    monkeypatch.setattr(GalleryIndex, "nearest", counting)
    assert len(index.search(units(1, 9), 10**8)) == 50
    assert asked == [51]


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
        assert sorted(reader.vectors.ids) == reader.people.numbers().tolist()
        assert found(reader, query_embeddings) == found(memory, query_embeddings)
        with writing(folder, ORIGIN) as index:
            index.people.remove([Path(f"/pictures/{i}.jpg") for i in range(8)])
        assert found(open_index(folder), query_embeddings) == []


@pytest.mark.parametrize("kind", ["Flat", "HNSW16", "IVF4,Flat"])
def test_vectors_that_lag_behind_hide_nobody(tmp_path: Path, kind: str) -> None:
    """People are gone from people.sqlite, not yet from people.faiss: of all, those most similar."""
    query_embeddings = units(1, 7)
    with writing(tmp_path, ORIGIN, kind) as index:
        fill(index, range(40))
    everyone = [m[0] for m in found(open_index(tmp_path), query_embeddings, top=400)]
    near = list(dict.fromkeys(everyone))[:35]  # most of them
    People(tmp_path / PEOPLE).remove(near)
    memory = GalleryIndex()
    fill(memory, [i for i in range(40) if Path(f"/pictures/{i}.jpg") not in near])
    late = open_index(tmp_path)
    assert len(late.vectors.ids) == 400 and late.people.count() == 50
    assert found(late, query_embeddings) == found(memory, query_embeddings) != []


def test_too_few_people_to_train_a_kind(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="--kind IVF64,Flat: cannot be trained on 50 people"),
        writing(tmp_path, ORIGIN, "IVF64,Flat") as index,
    ):
        fill(index, range(5))
    assert len(found(open_index(tmp_path), units(1, 7))) == 8
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(5, 20))
    assert len(open_index(tmp_path).vectors.ids) == 200


@pytest.mark.parametrize("kind", ["Nonsense", "LSH"])
def test_no_such_kind(tmp_path: Path, kind: str) -> None:
    with (
        pytest.raises(UserError, match=f"--kind {kind}: expected a factory string of FAISS"),
        writing(tmp_path, ORIGIN, kind),
    ):
        raise AssertionError("found before the work")


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
        with pytest.raises(UserError, match=f"made by the network net.pth, not by b.pth .{why}"):
            open_index(tmp_path, other)
        with (
            pytest.raises(UserError, match="made by the network net.pth"),
            writing(tmp_path, other),
        ):
            raise AssertionError("nothing is written")


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
def test_damaged_vectors_are_named_and_made_again(tmp_path: Path, how: str, capsys) -> None:
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(30))
    before = found(open_index(tmp_path), units(1, 7))
    damage(tmp_path / VECTORS, how)
    with pytest.raises(UserError, match=f"{VECTORS}: damaged"):
        open_index(tmp_path)
    with writing(tmp_path, ORIGIN):
        pass
    assert f"{VECTORS}: damaged" in capsys.readouterr().out
    assert found(open_index(tmp_path), units(1, 7)) == before


def test_vectors_of_another_index(tmp_path: Path) -> None:
    for name in "ab":
        with writing(tmp_path / name, ORIGIN) as index:
            fill(index, range(3))
    os.replace(tmp_path / "a" / VECTORS, tmp_path / "b" / VECTORS)
    with pytest.raises(UserError, match=f"b/{VECTORS}: belongs to another index"):
        open_index(tmp_path / "b")


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
    with pytest.raises(UserError, match=f"--index {tmp_path}/none: no index there"):
        open_index(tmp_path / "none")
    People(tmp_path / PEOPLE).close()  # its process was killed as it began
    with pytest.raises(UserError, match=f"--index {tmp_path}: no index there"):
        open_index(tmp_path)


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(3))
    with (
        pytest.raises(UserError, match=f"{PEOPLE}: the disk is full"),
        writing(tmp_path, ORIGIN) as index,
    ):
        pages = index.people.ask("PRAGMA page_count")[0][0]
        index.people.ask(f"PRAGMA max_page_count = {pages + 8}")
        fill(index, range(3, 99))
    index = open_index(tmp_path)
    assert index.people.count() % 10 == 0 and len(found(index, units(1, 7))) == 8
    with writing(tmp_path, ORIGIN) as index:
        fill(index, range(50, 60))
    assert open_index(tmp_path).people.count() >= 130


# --- processes ---


def _write(folder: Path, stop: Callable[[], None]) -> None:
    with writing(folder, ORIGIN) as index:
        for i in range(1000):
            fill(index, range(i, i + 1))
            stop(i)


def _die_after_five(i: int) -> None:
    if i == 4:
        die()


@pytest.mark.slow
def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    holder = f"--index .*in use by process {os.getpid()}"
    with (
        writing(tmp_path, ORIGIN),
        pytest.raises(UserError, match=holder),
        writing(tmp_path, ORIGIN),
    ):
        raise AssertionError("two at once")
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
