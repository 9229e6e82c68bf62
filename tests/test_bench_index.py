"""tools.bench_index: a crowd that depends on the seed only, and correct tables."""

import heapq
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.index.gallery_index import GalleryIndex
from engine.index.people import People
from tools import bench_index

pytest.importorskip("faiss")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_index, "PART", 300)


def test_the_crowd_is_always_the_same_and_written_as_it_is() -> None:
    crowd, people = bench_index.Crowd(1000, 32, 1), People()
    bench_index.write(crowd, people)
    drawn = [np.concatenate(parts) for parts in zip(*crowd.embeddings())]
    stored = [np.concatenate(parts) for parts in zip(*people.embeddings())]
    assert drawn[0].tolist() == stored[0].tolist() == list(range(1, 1001))
    np.testing.assert_array_equal(drawn[1], stored[1])
    every_seventh = np.concatenate([ids for ids, _ in crowd.embeddings(one_in=7)])
    assert every_seventh.tolist() == list(range(7, 1001, 7))


def test_the_exact_answer_and_who_looks_alike() -> None:
    crowd = bench_index.Crowd(1000, 32, 1)
    queries = crowd.queries(20)
    everyone = np.concatenate([rows for _, rows in crowd.embeddings()])
    order = np.argsort(-(queries @ everyone.T), 1)[:, : bench_index.TOP] + 1
    assert bench_index.exact(crowd, queries).tolist() == order.tolist()
    few = bench_index.exact(bench_index.Crowd(4, 32, 1), queries)
    assert np.sort(few, 1).tolist() == [[1, 2, 3, 4]] * 20  # fewer than TOP
    units = everyone / np.linalg.norm(everyone, axis=1, keepdims=True)
    own = [(units[i] @ units[i + 1]).item() for i in range(0, 1000, bench_index.VIEWS)]
    others = [(units[i] @ units[i - 1]).item() for i in range(10, 1000, bench_index.VIEWS)]
    assert np.mean(own) > 0.6 > 0.1 > np.mean(others)


@pytest.mark.slow
def test_the_table_says_what_each_kind_finds(program) -> None:
    options = "--people", 1500, "--kinds", "Flat", "IVF16,PQ4x4", "--width", 32, "--threads", 1
    code, out, _ = program(bench_index.main, *options)
    assert code == 0 and "1,500 people in SQLite" in out
    rows = (line.split() for line in out.splitlines())
    exact, coarse = (row for row in rows if row[:1] == ["1,500"] and row[1] != "people")
    assert exact[1] == "Flat" and [exact[i] for i in (6, 7, 9)] == ["1.000"] * 3
    assert int(exact[3]) > 4 * 32 > int(coarse[3])
    assert 0 < float(coarse[7]) < 0.9  # of its candidates only
    assert float(coarse[7]) < float(coarse[9]) <= 1  # compared by their own embeddings
    code, out, _ = program(bench_index.main, *options, "--bare", 1000)
    assert code == 0 and "SQLite" not in out


def test_indexes_searched_one_by_one_find_what_one_index_finds() -> None:
    crowd, folders = bench_index.Crowd(900, 32, 1), [GalleryIndex() for _ in range(4)]
    bench_index.write(crowd, folders[0].people)
    for i, shard in enumerate(folders[1:]):
        other = bench_index.Crowd(300, 32, 1)
        part = crowd.part(300 * i)
        other.part = lambda start, part=part: part  # type: ignore[method-assign]
        bench_index.write(other, shard.people)
    query_embeddings = torch.from_numpy(crowd.queries(1))
    whole, *parts = (index.search(query_embeddings, 10) for index in folders)
    merged = list(heapq.merge(*parts, key=lambda match: -match.similarity))[:10]
    assert [match.similarity for match in merged] == [match.similarity for match in whole]


@pytest.mark.slow
def test_files_are_in_the_given_folder_and_are_deleted(
    tmp_path: Path, program, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, used = bench_index.measure, []
    monkeypatch.setattr(
        bench_index, "measure", lambda *args: used.append(args[-1].parent) or measure(*args)
    )
    options = "--people", 100, "--kinds", "Flat", "--width", 16, "--folder", tmp_path
    assert program(bench_index.main, *options)[0] == 0
    assert used == [tmp_path] and list(tmp_path.iterdir()) == []


def test_queries_to_milvus_need_milvus(program) -> None:
    code, _, err = program(bench_index.main, "--milvus-queries", 3)
    assert code == 2 and "--milvus" in err
