"""Measure the time of detection and search scoring at the size of the real datasets, and of plain
loops.

    python -m tools.bench_eval [--seed 1] [--threads 2] [--loop-queries 10] [--scale 1]

Detections and features are random: about 20 detections per image, 256 dimensions, and the features
of one person lie around a common centre. The loops run on a few queries (detection: on a tenth of
the images), and their times are scaled up. "AP difference" compares the scores on these queries; a
difference above 1e-6 is an error.
"""

import argparse
import os
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from tabulate import tabulate

from datasets.cuhk_sysu import SIZES
from datasets.protocol import Protocol
from engine.evaluation import metrics
from engine.evaluation.cbgm import CBGM
from models import reference
from tools.measure.machine import describe_machine, peak_gib
from utils.arguments import positive, program_parser, whole
from utils.errors import UserError, run_main

DIM, DETECTIONS = 256, 20


@dataclass
class Case:
    """A random gallery with queries and the true locations of their people."""

    name: str
    truth: list
    dets: list
    feats: list
    query_feats: torch.Tensor
    cbgm: CBGM
    matches: list  # per query: indices of the images with the same person
    places: list  # per query: boxes of that person in these images, [m, 4]


def draw(name: str, images: int, queries: int, matches: int, k1: int, k2: int, seed: int) -> Case:
    """Return a random case.

    Args:
        matches: average number of gallery images that show the person of a query.
    """
    rng = np.random.default_rng(seed)
    counts = rng.poisson(DETECTIONS, images)
    corner = rng.uniform(0, 1200, (counts.sum(), 2))
    width = rng.uniform(20, 120, (counts.sum(), 1))
    boxes = np.concatenate([corner, corner + width * [1, 2.3]], 1).astype(np.float32)
    scores = rng.uniform(0.5, 1, (counts.sum(), 1)).astype(np.float32)
    feats = rng.standard_normal((counts.sum(), DIM), dtype=np.float32)
    query_feats = rng.standard_normal((queries, DIM), dtype=np.float32)
    starts, held, places = counts.cumsum() - counts, [], []
    for query in range(queries):
        own = rng.choice(images, min(images, 1 + rng.poisson(matches - 1)), replace=False)
        own = own[counts[own] > 0]
        at = starts[own] + rng.integers(0, counts[own])
        feats[at] = query_feats[query] * rng.uniform(0, 1, (len(at), 1)) + feats[at]
        held.append(own)
        places.append(boxes[at] + rng.normal(0, 4, (len(at), 4)).astype(np.float32))
    feats = scores * feats / np.linalg.norm(feats, axis=1, keepdims=True)
    query_feats /= np.linalg.norm(query_feats, axis=1, keepdims=True)
    dets = torch.from_numpy(np.concatenate([boxes, scores], 1)).split(counts.tolist())
    truth = [d[:6, :4] + 3 for d in dets]
    people = [
        torch.cat(
            [
                torch.from_numpy(query_feats[q : q + 1]),
                torch.from_numpy(feats[rng.integers(0, len(feats), 5)]),
            ]
        )
        for q in range(queries)
    ]
    return Case(
        name,
        truth,
        list(dets),
        list(torch.from_numpy(feats).split(counts.tolist())),
        torch.from_numpy(query_feats),
        CBGM(people, k1, k2),
        held,
        places,
    )


def protocol_of(case: Case, size: int, seed: int) -> Protocol:
    """Return a protocol over the whole gallery (size -1) or over `size` images for each query.

    The latter are the images that show the person of the query, and random others.
    """
    rng, images = np.random.default_rng(seed), len(case.dets)
    listed = np.full((len(case.matches), images), size < 0, dtype=np.uint8)
    for row, own in enumerate(case.matches):
        if size > 0:
            listed[row, rng.choice(images, max(0, size - len(own)), replace=False)] = 1
        listed[row, own] = 1
    lengths = [len(own) for own in case.matches]
    return Protocol(
        f"gallery {size}" if size > 0 else "whole gallery",
        np.arange(len(lengths)),
        listed,
        np.repeat(np.arange(len(lengths)), lengths),
        np.concatenate(case.matches),
        np.arange(sum(lengths)),
        np.concatenate(case.places),
    )


def some_queries(case: Case, protocol: Protocol, count: int) -> Protocol:
    """Return the protocol restricted to `count` evenly spaced queries, for the loop."""
    rows = np.linspace(0, len(protocol.queries) - 1, count).astype(int)
    keep = np.isin(protocol.query, rows)
    return replace(
        protocol,
        queries=protocol.queries[rows],
        listed=protocol.listed[rows],
        query=np.searchsorted(rows, protocol.query[keep]),
        image=protocol.image[keep],
        box_entry=np.arange(keep.sum()),
        boxes=protocol.boxes[keep],
    )


def seconds(function, *args) -> tuple[float, object]:
    """Return the wall-clock seconds of a call, and its result."""
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def detection_row(case: Case) -> list:
    """Return the table row for the detection scores."""
    took, _ = seconds(metrics.detection, case.truth, case.dets, 0.5)
    some = len(case.dets) // 10
    loop, want = seconds(reference.detection_scores, case.truth[:some], case.dets[:some], 0.5)
    got = metrics.detection(case.truth[:some], case.dets[:some], 0.5)
    return [
        f"{case.name} detection",
        took,
        10 * loop,
        10 * loop / took,
        abs(got["ap"] - want["ap"]),
        peak_gib(),
    ]


def search_row(case: Case, protocol: Protocol, cbgm: CBGM | None, count: int) -> list:
    """Return the table row for the search scores. The loop runs on `count` queries."""
    count = min(count, len(case.matches))
    data = case.dets, case.feats, case.query_feats
    took, got = seconds(metrics.search, *data, protocol, 0.5, cbgm)
    some = some_queries(case, protocol, count)
    loop, want = seconds(reference.search_scores, *data, some, cbgm)
    loop *= len(case.matches) / count
    rows = np.linspace(0, len(case.matches) - 1, count).astype(int)
    name = f"{case.name} {protocol.name}{' + CBGM' if cbgm else ''}"
    return [
        name,
        took,
        loop,
        loop / took,
        np.abs(got["ap"].numpy()[rows] - want["ap"]).max(),
        peak_gib(),
    ]


def together_row(case: Case, protocols: list[Protocol], cbgm: CBGM | None) -> list:
    """Return the table row for the search scores of several galleries in one call."""
    took, _ = seconds(
        metrics.search_many, case.dets, case.feats, case.query_feats, protocols, 0.5, cbgm
    )
    name = f"{case.name} all {len(protocols)} galleries in one pass{' + CBGM' if cbgm else ''}"
    return [name, took, None, None, None, peak_gib()]


def growth_row(images: int, queries: int, seed: int) -> list:
    """Return the table row with the search time for a number of images and queries, without and
    with CBGM."""
    case = draw("PRW", images, queries, 40, 30, 4, seed)
    protocol = protocol_of(case, -1, seed)
    plain, context = (
        seconds(metrics.search, case.dets, case.feats, case.query_feats, protocol, 0.5, cbgm)[0]
        for cbgm in (None, case.cbgm)
    )
    pairs = queries * sum(map(len, case.dets))
    return [
        queries,
        images,
        pairs / 1e6,
        plain,
        plain / pairs * 1e9,
        context,
        context / pairs * 1e9,
    ]


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    parser.add_argument("--seed", type=whole, default=1, help="of the random case (default: 1)")
    parser.add_argument(
        "--threads", type=positive, default=2, metavar="N", help="CPU threads (default: 2)"
    )
    parser.add_argument(
        "--loop-queries",
        type=positive,
        default=10,
        metavar="N",
        help="number of queries that the loop is timed on (default: 10)",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        metavar="X",
        help="factor on the real numbers of images and queries, 0.01 to 100 (default: 1)",
    )
    args = parser.parse_args()
    if not 0.01 <= args.scale <= 100:
        raise UserError(f"--scale: expected 0.01 to 100, found {args.scale:g}")
    return args


SCORE_COLUMNS = ["", "seconds", "loop (scaled) s", "speed-up", "AP difference", "peak GiB so far"]
GROWTH_COLUMNS = [
    "queries",
    "images",
    "million pairs",
    "seconds",
    "ns per pair",
    "+ CBGM s",
    "ns per pair",
]


def prw_rows(images: int, queries: int, args: argparse.Namespace) -> list[list]:
    """Return the table rows for a case as large as PRW."""
    case = draw("PRW", images, queries, 40, 30, 4, args.seed)
    protocol = protocol_of(case, -1, args.seed)
    searches = [search_row(case, protocol, cbgm, args.loop_queries) for cbgm in (None, case.cbgm)]
    return [detection_row(case), *searches]


def cuhk_rows(images: int, queries: int, args: argparse.Namespace) -> list[list]:
    """Return the table rows for a case as large as CUHK-SYSU, with all its gallery sizes."""
    case = draw("CUHK-SYSU", images, queries, 2, 10, 3, args.seed)
    sizes = [size for size in (*SIZES, -1) if size <= len(case.dets)]
    protocols = [protocol_of(case, size, args.seed) for size in sizes]
    rows = [detection_row(case)]
    for cbgm in (None, case.cbgm):
        rows += [search_row(case, protocol, cbgm, args.loop_queries) for protocol in protocols]
        rows.append(together_row(case, protocols, cbgm))
    return rows


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    print(f"{describe_machine(torch.device('cpu'))}, seed {args.seed}")
    images, queries = int(6112 * args.scale), int(2057 * args.scale)
    rows = prw_rows(images, queries, args)
    rows += cuhk_rows(int(6978 * args.scale), int(2900 * args.scale), args)
    print(tabulate(rows, SCORE_COLUMNS, floatfmt=("", ".2f", ".0f", ".0f", ".0e", ".2f")))
    print("\nPRW, whole gallery, at half and double sizes:")
    sizes = [(1, 0.5), (0.5, 1), (1, 1), (1, 2), (2, 1)]
    growth = [growth_row(int(i * images), int(q * queries), args.seed) for i, q in sizes]
    print(tabulate(growth, GROWTH_COLUMNS, floatfmt=".1f"))
    print(f"system load at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    run_main(main)
