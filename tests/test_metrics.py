"""Metrics equal the release's values, and plain loops on difficult cases."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import load_dataset
from datasets.protocol import Protocol
from engine.evaluation import metrics
from engine.evaluation.cbgm import CBGM, rematch
from engine.evaluation.gallery import Gallery
from models import reference
from tests import oracle

GOLDEN = Path(__file__).parent / "golden" / "eval"
NUMBERS = ("mAP", "top1", "top5", "top10")
PLACES = [
    (0, 0, 10, 20),
    (0, 0, 10, 21),
    (0, 0, 10, 10),
    (5, 0, 15, 20),
    (0, 0, 2, 3),
    (0, 1, 2, 4),
    (1, 1, 9, 40),
    (30, 30, 60, 90),
    (32, 30, 60, 95),
    (30, 30, 60, 120),
    (33.5, 32, 60, 61),
]


@pytest.fixture(scope="module")
def golden():
    dataset = load_dataset("CUHK-SYSU", str(GOLDEN / "cuhk"))
    arrays = np.load(GOLDEN / "detections.npz")

    def read(kind):
        names = sorted(key for key in arrays.files if key.startswith(kind + "/"))
        return [torch.from_numpy(arrays[key]) for key in names]

    cache = {kind: read(kind) for kind in ("gallery_dets", "gallery_feats", "query_feats")}
    cache["query_box_feats"] = torch.stack(read("query_box_feats"))
    return dataset, cache, json.loads((GOLDEN / "expected.json").read_text())


def test_golden_detection(golden):
    dataset, cache, expected = golden
    truth = [torch.from_numpy(scene.boxes) for scene in dataset.gallery]
    assert metrics.detection(truth, cache["gallery_dets"], 0.5) == pytest.approx(
        expected["cuhk.det.0.5"], abs=1e-6
    )


@pytest.mark.parametrize("use_cbgm", [0, 1])
def test_golden_search(golden, use_cbgm):
    dataset, cache, expected = golden
    cbgm = CBGM(cache["query_feats"], k1=10, k2=3) if use_cbgm else None
    result = metrics.search(
        cache["gallery_dets"],
        cache["gallery_feats"],
        cache["query_box_feats"],
        dataset.protocol(50),
        cbgm=cbgm,
    )
    numbers = {key: result[key] for key in NUMBERS}
    assert numbers == pytest.approx(expected[f"cuhk.search.g50.cbgm{use_cbgm}"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("use_cbgm", [False, True])
def test_golden_whole_gallery_equals_loops(golden, use_cbgm):
    dataset, cache, _ = golden
    cbgm = CBGM(cache["query_feats"], k1=10, k2=3) if use_cbgm else None
    data = cache["gallery_dets"], cache["gallery_feats"], cache["query_box_feats"]
    protocols = [dataset.protocol(size) for size in (-1, 50, 100)]
    for got, protocol in zip(metrics.search_many(*data, protocols, cbgm=cbgm), protocols):
        check_search(got, reference.search_scores(*data, protocol, cbgm), protocol)


def check_search(got, want, protocol):
    assert [got[key] for key in NUMBERS] == pytest.approx([want[key] for key in NUMBERS], abs=1e-6)
    np.testing.assert_allclose(got["ap"].numpy(), want["ap"], atol=1e-6)
    assert got["first_hit"].tolist() == want["first_hit"]
    wrong, rights = oracle.similarities(want, protocol)
    np.testing.assert_allclose(got["similarities"].wrong.numpy(), wrong, atol=1e-6)
    best = [max(right, default=-np.inf) for right in rights]
    np.testing.assert_allclose(got["similarities"].best_right.numpy(), best, atol=1e-6)
    right = torch.cat(got["similarities"].right).sort().values
    np.testing.assert_allclose(right.numpy(), np.sort(np.concatenate(rights)), atol=1e-6)


# Small whole numbers, so that ties are exact in any order of summation, and frequent.
FEATURE = st.lists(st.integers(-2, 2), min_size=3, max_size=3)


@st.composite
def galleries(draw):
    """Draw ground truth, detections and features of each image. Some scores equal the threshold."""
    truth, dets, feats = [], [], []
    for _ in range(draw(st.integers(1, 6))):
        truth.append(tensor(draw(st.lists(st.sampled_from(PLACES), max_size=4)), 4))
        person = st.tuples(st.sampled_from(PLACES), st.sampled_from([0.3, 0.5, 0.75]), FEATURE)
        found = draw(st.lists(person, max_size=6))
        dets.append(tensor([(*box, score) for box, score, _ in found], 5))
        feats.append(tensor([feature for *_, feature in found], 3))
    return truth, dets, feats


def tensor(rows, width):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, width)


@st.composite
def searches(draw):
    _, dets, feats = draw(galleries())
    images, total = len(dets), draw(st.integers(1, 4))
    queries = sorted(draw(st.sets(st.integers(0, total - 1), min_size=1)))
    row = st.lists(st.sampled_from([0, 1, 1, 2]), min_size=images, max_size=images)
    listed = draw(st.lists(row, min_size=len(queries), max_size=len(queries)))
    listed = np.array(listed, dtype=np.uint8)
    query, image, box_entry, boxes = [], [], [], []
    for row, column in np.argwhere(listed):
        own = draw(st.lists(st.sampled_from(PLACES), max_size=2))  # none: not in the image
        for _ in range(listed[row, column] if own else 0):
            box_entry += [len(query)] * len(own)
            boxes += own
            query.append(row)
            image.append(column)
    order = draw(st.permutations(range(len(query))))  # entries are in no particular order
    rank = np.argsort(np.array(order, dtype=np.int64))
    protocol = Protocol(
        "drawn",
        np.array(queries),
        listed,
        np.array(query, dtype=np.int64)[order],
        np.array(image, dtype=np.int64)[order],
        rank[np.array(box_entry, dtype=np.int64)],
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
    )
    people = [tensor(draw(st.lists(FEATURE, min_size=1, max_size=4)), 3) for _ in range(total)]
    cbgm = draw(st.sampled_from([None, (1, 1), (2, 2), (3, 4), (50, 3)]))
    return dets, feats, people, protocol, cbgm and CBGM(people, *cbgm)


@pytest.mark.slow
@settings(max_examples=400)
@given(searches(), st.sampled_from([1, 2, 64]))
def test_search_equals_loops(case, chunk):
    dets, feats, people, protocol, cbgm = case
    query_feats = torch.stack([p[0] for p in people])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "CHUNK", chunk)
        got = metrics.search(dets, feats, query_feats, protocol, 0.5, cbgm)
    want = reference.search_scores(dets, feats, query_feats, protocol, cbgm)
    check_search(got, want, protocol)
    rows = range(len(protocol.queries))
    lists = metrics.top_matches(dets, feats, query_feats, protocol, rows, 7, 0.5, cbgm)
    for matches, ranking in zip(lists, want["rankings"]):
        assert [(m.similarity, m.right, m.image) for m in matches] == ranking[:7]


@pytest.mark.slow
@settings(max_examples=300)
@given(galleries(), st.sampled_from([0.01, 0.5, 0.75, 0.9]), st.data())
def test_detection_equals_loops(gallery, threshold, data):
    truth, dets, _ = gallery
    assert metrics.detection(truth, dets, threshold) == pytest.approx(
        reference.detection_scores(truth, dets, threshold), abs=1e-6
    )
    labeled = [
        torch.tensor(
            data.draw(st.lists(st.booleans(), min_size=len(t), max_size=len(t))), dtype=torch.bool
        )
        for t in truth
    ]
    assert metrics.detection(truth, dets, threshold, labeled=labeled) == pytest.approx(
        reference.detection_scores(*oracle.labelled(truth, dets, labeled), threshold), abs=1e-6
    )


@pytest.mark.slow
@settings(max_examples=150)
@given(galleries(), st.sampled_from([0.5, 0.75, 0.9]), st.sampled_from([0.01, 0.5]))
def test_detection_errors_equal_loops(gallery, sure, threshold):
    truth, dets, _ = gallery
    got = metrics.detection_errors(truth, dets, sure, threshold)
    assert got == pytest.approx(oracle.errors(truth, dets, sure, threshold))


def test_each_kind_of_detection_error():
    truth = [tensor([(100 * i, 0, 100 * i + 50, 100) for i in range(4)], 4)]
    dets = [
        tensor(
            [
                (0, 0, 50, 90, 0.9),
                (100, 0, 150, 90, 0.4),
                (200, 0, 250, 30, 0.9),
                (310, 0, 320, 5, 0.9),
            ],
            5,
        )
    ]
    assert metrics.detection_errors(truth, dets, 0.5, 0.01) == {
        "people": 4,
        "found": 0.25,
        "low_score": 0.25,
        "poorly_placed": 0.25,
        "missed": 0.25,
    }


@pytest.mark.parametrize("cbgm", [None, CBGM([torch.ones(2, 3)], 10, 3)])
@pytest.mark.parametrize("count", [0, 2])
def test_no_detection_anywhere_that_counts(count, cbgm):
    dets = [torch.tensor([[0, 0, 9, 9, 0.4]]).repeat(count, 1) for _ in range(3)]
    feats = [torch.ones(count, 3) for _ in dets]
    protocol = Protocol(
        "none",
        np.array([0]),
        np.ones((1, 3), np.uint8),
        np.array([0]),
        np.array([1]),
        np.array([0]),
        np.array([[0, 0, 9, 9]], np.float32),
    )
    result = metrics.search(dets, feats, torch.ones(1, 3), protocol, 0.5, cbgm)
    assert [result[name] for name in NUMBERS] == [0] * 4 and result["first_hit"].tolist() == [0]
    truth = [torch.zeros(0, 4), torch.tensor([[0, 0, 9, 9.0]]), torch.zeros(0, 4)]
    assert metrics.detection(truth, dets, 0.5) == {"recall": 0, "ap": 0}


def one_image_search(boxes, sims, truth, times=1, scores=None):
    """Return the search of one query in one gallery image, whose detections have the given
    similarities."""
    count = len(boxes)
    scores = scores or [1.0] * count
    protocol = Protocol(
        "one",
        np.array([0]),
        np.array([[times]], dtype=np.uint8),
        np.zeros(times, int),
        np.zeros(times, int),
        np.repeat(np.arange(times), len(truth)),
        np.array(list(truth) * times, dtype=np.float32),
    )
    dets = tensor([(*box, score) for box, score in zip(boxes, scores)], 5)
    return metrics.search([dets], [tensor([[s] for s in sims], 1)], torch.ones(1, 1), protocol, 0.5)


PERSON, ELSEWHERE = (0, 0, 50, 100), (200, 200, 250, 300)


def test_wrong_detections_stand_before_right_ones_of_the_same_similarity():
    for order in ([PERSON, ELSEWHERE], [ELSEWHERE, PERSON]):
        result = one_image_search(order, [0.7, 0.7], [PERSON])
        assert result["mAP"] == 0.5 and result["first_hit"].tolist() == [2] and result["top1"] == 0


def test_only_the_most_similar_of_several_detections_on_a_person_is_right():
    result = one_image_search([PERSON, PERSON, ELSEWHERE], [0.5, 0.9, 0.7], [PERSON])
    assert result["mAP"] == 1 and result["first_hit"].tolist() == [1]


def test_tiny_people_need_less_overlap():
    half, third = (0, 0, 10, 10), (0, 0, 10, 30)
    assert one_image_search([third], [0.9], [half])["mAP"] == 1  # IoU 0.33, needed 100 / 400
    assert one_image_search([(0, 0, 100, 300)], [0.9], [(0, 0, 100, 100)])["mAP"] == 0


def test_half_overlap_is_enough():
    """An IoU of 0.55 is a match, in detection and in search; 0.45 is not."""
    truth = (0, 0, 100, 100)
    for width, right in ((55, 1), (45, 0)):
        box = (0, 0, width, 100)
        assert one_image_search([box], [0.9], [truth])["mAP"] == right
        dets = [torch.tensor([[*box, 0.9]])]
        assert metrics.detection([torch.tensor([truth]).float()], dets, 0.5)["recall"] == right


def test_cbgm_matches_the_first_people_of_the_query_image():
    """With k2 = 2 the query is matched to detection 0; the third person would be matched to it
    instead."""
    dets = [torch.tensor([[0, 0, 9, 9, 1.0], [9, 0, 18, 9, 1.0]])]
    feats = [torch.tensor([[0.6, 0.1, 0.9], [0.5, 0.1, 0.0]])]
    people = torch.eye(3)
    for k2, expected in ((1, [0.6, 0.5]), (2, [0.6, 0.5]), (3, [0.6, 0.9])):
        gallery = Gallery.above(dets, feats, 0.5)
        sims = people[:1] @ gallery.feats.T
        found = rematch(sims, None, torch.ones(1, 2), gallery, [people], 10, k2)
        assert found[0].tolist() == pytest.approx(expected)


def test_cbgm_matches_the_images_of_the_best_detections():
    """With k1 = 1 only the image with the best detection is matched."""
    box = [0, 0, 9, 9, 1.0]
    dets = [torch.tensor([box]), torch.tensor([box, box])]
    feats = [torch.tensor([[0.5, 0.1]]), torch.tensor([[0.4, 0.9], [0.3, 0.0]])]
    gallery, people = Gallery.above(dets, feats, 0.5), torch.eye(2)
    sims = people[:1] @ gallery.feats.T
    for k1, expected in ((1, [0.5, 0.4, 0.3]), (2, [0.5, 0.4, 0.9])):
        found = rematch(sims, None, torch.ones(1, 3), gallery, [people], k1, 2)
        assert found[0].tolist() == pytest.approx(expected)


def test_a_score_at_the_threshold_counts():
    assert one_image_search([PERSON], [0.9], [PERSON], scores=[0.5])["mAP"] == 1
    assert one_image_search([PERSON], [0.9], [PERSON], scores=[0.4999])["mAP"] == 0


def test_an_image_named_twice_counts_twice():
    assert one_image_search([ELSEWHERE, PERSON], [0.9, 0.8], [PERSON], times=2)["mAP"] == 0.5


def test_any_box_of_the_person_is_right():
    assert one_image_search([ELSEWHERE], [0.9], [PERSON, ELSEWHERE])["mAP"] == 1


def test_several_protocols_over_different_queries_in_one_pass(golden):
    dataset, cache, _ = golden
    data = cache["gallery_dets"], cache["gallery_feats"], cache["query_box_feats"]
    whole = dataset.protocol(-1)
    rows = np.array([7, 3, 20])
    keep = np.isin(whole.query, rows)
    subset = Protocol(
        "three",
        whole.queries[rows],
        whole.listed[rows],
        np.array([list(rows).index(q) for q in whole.query[keep]]),
        whole.image[keep],
        np.cumsum(keep)[whole.box_entry[keep[whole.box_entry]]] - 1,
        whole.boxes[keep[whole.box_entry]],
    )
    everything, three = metrics.search_many(*data, [whole, subset])
    torch.testing.assert_close(three["ap"], everything["ap"][rows], atol=1e-12, rtol=0)
    assert torch.equal(three["first_hit"], everything["first_hit"][rows])
