"""Measure build time, size, search time and recall of indexes.

    python -m tools.bench_index --people 100000 --kinds Flat HNSW32 "IVF256,Flat"

Recall is the share of the exact best matches that an approximate kind finds. Embeddings are drawn
from the seed: ten views of each identity in few effective dimensions, so that different identities
are as similar as those of a real network. A query is an eleventh view. Times are CPU seconds, so
they do not depend on the number of threads or on other processes. From --bare people on, only FAISS
is measured, without SQLite. --milvus adds kinds of Milvus Lite, which runs in this process.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tabulate import tabulate

from engine.index.gallery_index import GalleryIndex
from engine.index.local import PEOPLE, VECTORS, LocalPeople
from engine.index.milvus import Address
from engine.index.milvus_writer import MilvusWriter, writing
from engine.index.people import People
from engine.index.records import Origin, Person, Sample, Source
from engine.index.vectors import MARK, Vectors, load_faiss
from models.outputs import Detections
from tools.measure.machine import describe_machine, peak_gib
from utils.arguments import positive, program_parser, whole
from utils.errors import UserError, run_main
from utils.files import make_folder

VIEWS = 10  # detections of each identity
PART = 50_000  # people drawn together
SPREAD = 0.6  # standard deviation of views, relative to that of identities
PICTURE = 10  # people in each picture
QUERIES, TOP = 100, 10
MILVUS_QUERIES = 10


class Crowd:
    """Random people, computed from the seed at each access. Vectors accepts it in place of
    People."""

    def __init__(self, count: int, width: int, seed: int):
        self.size, self.width, self.seed = count, width, seed
        self.spread = (1 / np.sqrt(1 + np.arange(width))).astype(np.float32)

    def count(self) -> int:
        return self.size

    def part(self, start: int) -> Detections:
        """Return the people from position `start` on: PART people, or the remaining ones."""
        rng = np.random.default_rng([self.seed, start])
        count = min(PART, self.size - start)
        identities = self._draw(rng, -(-count // VIEWS))
        views = np.repeat(identities, VIEWS, 0)[:count]
        views += SPREAD * self._draw(rng, count)
        scores = torch.from_numpy(rng.uniform(0.5, 1, count).astype(np.float32))
        return Detections(torch.rand(count, 4), scores, _unit(views))

    def embeddings(
        self, after: int = 0, one_in: int = 1
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield ids, counted from 1, and embeddings, as People.embeddings does."""
        for start in range(after, self.size, PART):
            rows = self.part(start).weighted_embeddings.numpy()
            ids = np.arange(start + 1, start + len(rows) + 1)
            keep = ids % one_in == 0
            yield ids[keep], rows[keep]

    def queries(self, count: int) -> np.ndarray:
        """Return further views of identities from all parts, [count, D]."""
        starts = range(0, self.size, PART)
        rng, found = np.random.default_rng(self.seed), []
        for start in (starts[i * len(starts) // count] for i in range(count)):
            identity = self._draw(np.random.default_rng([self.seed, start]), VIEWS)
            view = identity[rng.integers(len(identity))]
            found.append(view + SPREAD * self._draw(rng, 1)[0])
        return _unit(np.stack(found)).numpy()

    def _draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return rng.standard_normal((count, self.width), dtype=np.float32) * self.spread


def _unit(rows: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(rows))


def write(crowd: Crowd, people: People | MilvusWriter) -> None:
    """Write the crowd as pictures with PICTURE people each, in transactions of PART people."""
    for start in range(0, crowd.size, PART):
        part = crowd.part(start)
        samples = (Sample(None, part[i : i + PICTURE]) for i in range(0, len(part.scores), PICTURE))
        people.add(Source(Path(f"/pictures/{start}"), 1, 1), samples)


def exact(crowd: Crowd, queries: np.ndarray) -> np.ndarray:
    """Return the ids of the most similar people, best first: [q, TOP], or fewer in a small
    crowd."""
    best = np.full((len(queries), TOP), -np.inf)
    who = np.zeros((len(queries), TOP), np.int64)
    for ids, rows in crowd.embeddings():
        values = np.concatenate([best, queries @ rows.T], 1)
        numbers = np.concatenate([who, np.broadcast_to(ids, (len(queries), len(ids)))], 1)
        some = np.argpartition(-values, TOP - 1, 1)[:, :TOP]
        best, who = np.take_along_axis(values, some, 1), np.take_along_axis(numbers, some, 1)
    return np.take_along_axis(who, np.argsort(-best, 1), 1)[:, : crowd.size]


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of a call of `work`, and its result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def recall(found: list[list[int]], truth: np.ndarray) -> float:
    """Return the share of the true best matches that are among those found."""
    hits = [np.isin(true, some).mean() for true, some in zip(truth, found)]
    return float(np.mean(hits))


def measure(
    kind: str, crowd: Crowd, people: LocalPeople | None, truth: np.ndarray, folder: Path
) -> list:
    """Measure one kind, and return a row of the table."""
    queries = crowd.queries(QUERIES)
    source = cast(People, people or crowd)
    build, vectors = seconds(lambda: Vectors.empty(kind, crowd.width).made_from(source))
    vectors.save(folder / VECTORS, b"0" * MARK, b"0" * MARK)
    size = (folder / VECTORS).stat().st_size / crowd.size
    together, (_, nearest) = seconds(lambda: vectors.nearest(queries, TOP))
    alone, _ = seconds(lambda: [vectors.nearest(query[None], TOP)[1] for query in queries])
    row = [crowd.size, kind, build, size, 1e3 * alone / QUERIES, 1e3 * together]
    row += [recall(nearest[:, :1].tolist(), truth[:, :1]), recall(nearest.tolist(), truth)]
    if people is None:
        return [*row, None, None]
    people.vectors = vectors
    return [*row, *searched(GalleryIndex(people), queries, truth, lambda one: one.id)]


def searched(
    index: GalleryIndex, queries: np.ndarray, truth: np.ndarray, number: Callable[[Person], int]
) -> list[float]:
    """Return milliseconds for each search, and the recall.

    Args:
        number: a function from a match's person to their number, as in `truth`.
    """
    query_embeddings = torch.from_numpy(queries)
    index.search(query_embeddings[:1], TOP)  # the first search looks for people not in FAISS
    took, matches = seconds(lambda: [index.search(query[None], TOP) for query in query_embeddings])
    found = [[number(match.person) for match in some] for some in matches]
    return [1e3 * took / len(queries), recall(found, truth)]


def measure_milvus(kind: str, crowd: Crowd, truth: np.ndarray, folder: Path, count: int) -> list:
    """Measure one kind of Milvus Lite with the first `count` queries, and return a row of the
    table."""
    file = folder / f"{kind}.db"
    origin = Origin("crowd", "", np.zeros(crowd.width, np.float32))

    def number(person: Person) -> int:
        version = people.row_of(person.path)
        return int(person.path.name) + person.id - version["id"]

    with writing(Address(str(file)), origin, kind) as people:
        build, _ = seconds(lambda: write(crowd, people))
        size = sum(one.stat().st_size for one in file.rglob("*") if one.is_file()) / crowd.size
        queries = crowd.queries(QUERIES)[:count]
        found = searched(GalleryIndex(people), queries, truth[:count], number)
    return [crowd.size, f"Milvus Lite {kind}", build, size, None, None, None, None, *found]


def bench(count: int, kinds: list[str], args: argparse.Namespace) -> list[list]:
    crowd = Crowd(count, args.width, args.seed)
    truth = exact(crowd, crowd.queries(QUERIES))
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder, people = Path(name), None
        if count < args.bare:
            people = LocalPeople(folder / PEOPLE)
            took, _ = seconds(lambda: write(crowd, people))
            size = (folder / PEOPLE).stat().st_size / count
            print(f"{count:,} people in SQLite: {took:.1f} s, {size:.0f} bytes each", flush=True)
        rows = []
        for kind in kinds:
            rows.append(measure(kind, crowd, people, truth, folder))
            print(f"{kind} of {count:,} people: built in {rows[-1][2]:.1f} s", flush=True)
        for kind in args.milvus:
            rows.append(
                measure_milvus(kind, crowd, truth, folder, args.milvus_queries or MILVUS_QUERIES)
            )
        if people:
            people.close()
    return rows


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument(
        "--people",
        type=positive,
        nargs="+",
        default=[10_000, 100_000],
        metavar="N",
        help="sizes of the indexes (default: 10000 100000)",
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        default=["Flat", "HNSW32", "IVF64,Flat"],
        metavar="KIND",
        help="factory strings of FAISS (default: Flat HNSW32 IVF64,Flat)",
    )
    parser.add_argument(
        "--width",
        type=positive,
        default=256,
        metavar="N",
        help="length of an embedding (default: 256)",
    )
    parser.add_argument(
        "--bare",
        type=positive,
        default=5_000_000,
        metavar="N",
        help="measure only FAISS from this many people on (default: 5000000)",
    )
    parser.add_argument("--folder", metavar="FOLDER", help="folder for temporary files")
    parser.add_argument(
        "--threads", type=positive, default=2, metavar="N", help="CPU threads (default: 2)"
    )
    parser.add_argument(
        "--milvus", nargs="+", default=[], metavar="KIND", help="kinds of Milvus Lite: FLAT HNSW"
    )
    parser.add_argument(
        "--milvus-queries",
        type=positive,
        metavar="N",
        help=f"number of queries to Milvus Lite (default: {MILVUS_QUERIES})",
    )
    parser.add_argument(
        "--seed", type=whole, default=1, metavar="N", help="of the embeddings (default: 1)"
    )
    args = parser.parse_args()
    if args.milvus_queries and not args.milvus:
        raise UserError("--milvus-queries: expected with --milvus, found without")
    if args.folder:
        make_folder(Path(args.folder), "--folder")
    load_faiss("tools.bench_index").omp_set_num_threads(args.threads)
    torch.set_num_threads(args.threads)
    print(f"{describe_machine(torch.device('cpu'))}, seed {args.seed}, {args.width} numbers each")
    headers = ["people", "kind", "build s", "bytes each", "ms a query", "ms 100 queries"]
    headers += ["recall@1", f"recall@{TOP}", "ms a search", f"found of {TOP}"]
    rows = [row for count in args.people for row in bench(count, args.kinds, args)]
    digits = (",.0f", "", ".1f", ".0f", ".2f", ".1f", ".3f", ".3f", ".2f", ".3f")
    print(tabulate(rows, headers, floatfmt=digits, intfmt=","))
    print(f"peak {peak_gib():.2f} GiB")


if __name__ == "__main__":
    run_main(main)
