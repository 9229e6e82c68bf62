"""Evaluation on a tiny dataset and a random network: extraction, the cache, results."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.defaults import load_cfg
from datasets import load_dataset
from datasets.types import Scene
from engine.device import PRECISIONS
from engine.evaluation import evaluate as ev
from engine.evaluation.cache import CACHE, LISTS, load_cache, made_from
from engine.evaluation.extract import collect, extract
from engine.evaluation.records import flat_metrics
from models import reference
from tests.annotations import write_prw
from tests.tiny import TINY, pairs
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def config(root, tmp_path):
    def make(**options):
        places = {"OUTPUT_DIR": tmp_path / "run", "INPUT.DATA_ROOT": root}
        return load_cfg(None, pairs(TINY | places | options))

    return make


def settings(**options):
    return load_cfg(None, pairs(TINY | options))


def run(net, dataset, tmp_path, batch_size=1, ranks=1, **options):
    paths = [tmp_path / f"part{rank}" for rank in range(ranks)]
    for rank, path in enumerate(paths):
        extract(net, dataset, CPU, path, batch_size, 0, part=(rank, ranks), **options)
    return collect(paths, dataset)


def check_same(one, other):
    for key in LISTS:
        assert len(one[key]) == len(other[key])
        for a, b in zip(one[key], other[key]):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"context": True}, {"use_gt": True}, {"context": True, "use_gt": True}]
)
def test_batches_and_ranks_change_nothing(net, dataset, tmp_path, monkeypatch, options):
    one = run(net, dataset, tmp_path, **options)
    if not options:  # some images have detections above it, and some do not
        best = sorted(float(dets[:, 4].max()) for dets in one["gallery_dets"])
        limits = net.limits._replace(score=(best[1] + best[2]) / 2)
        monkeypatch.setattr(net.roi_heads, "limits", limits)
        one = run(net, dataset, tmp_path)
        assert {len(dets) > 0 for dets in one["gallery_dets"]} == {True, False}
    check_same(run(net, dataset, tmp_path, batch_size=4, **options), one)
    check_same(run(net, dataset, tmp_path, batch_size=2, ranks=2, **options), one)


def test_the_backbone_runs_once_per_image(net, dataset, tmp_path, monkeypatch):
    seen, forward = [], net.backbone.forward
    monkeypatch.setattr(net.backbone, "forward", lambda x: seen.append(len(x)) or forward(x))
    cache = run(net, dataset, tmp_path, batch_size=2, context=True)
    assert sum(seen) == len(dataset.gallery)
    assert [len(dets) > 1 for dets in cache["query_dets"]] == [True] * 3
    for query, dets, feats, own in zip(
        dataset.queries, cache["query_dets"], cache["query_feats"], cache["query_box_feats"]
    ):
        assert dets[0].tolist() == [*query.box, 1] and torch.equal(feats[0], own)
        torch.testing.assert_close(feats.norm(dim=1), torch.ones(len(feats)))
        image = ev.SceneDataset(dataset.gallery)[query.scene][0]
        expected = net.embed([image], [torch.from_numpy(query.box[None])])[0][0]
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=0)


def test_ground_truth_boxes_stand_for_detections(net, dataset, tmp_path):
    cache = run(net, dataset, tmp_path, use_gt=True)
    for scene, dets, feats in zip(dataset.gallery, cache["gallery_dets"], cache["gallery_feats"]):
        assert torch.equal(dets[:, :4], torch.from_numpy(scene.boxes)) and (dets[:, 4] == 1).all()
        assert feats.shape == (len(scene.boxes), 16)


def test_the_cache_holds_no_more_than_its_numbers(saved):
    cache, _ = saved
    for key in LISTS:
        for tensor in cache[key]:
            assert tensor.untyped_storage().nbytes() == 4 * tensor.numel()


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_is_close(net, dataset, tmp_path, amp):
    whole, half = (run(net, dataset, tmp_path, amp=PRECISIONS[name]) for name in ("", amp))
    for a, b in zip(whole["query_box_feats"], half["query_box_feats"]):
        assert float(a @ b) > 0.98 and not torch.equal(a, b)
    assert all(t.dtype == torch.float32 for key in LISTS for t in half[key])


@pytest.mark.slow
def test_fast_evaluation_is_close(net, dataset, config):
    """The results are equal to 1e-4, and the network is not changed."""
    before, found = copy.deepcopy(net.state_dict()), []
    for fast in (False, True):
        cfg = config(EVAL_FAST=fast)
        ev.evaluate(net, dataset, cfg, CPU)
        found.append(load_cache(Path(cfg.OUTPUT_DIR) / CACHE, dataset, cfg))
    exact, fast = (cache["query_box_feats"] for cache in found)
    for a, b in zip(exact, fast):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
    assert not all(map(torch.equal, exact, fast))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_several_galleries_give_a_table_and_a_curve(net, dataset, config, capsys):
    cfg = config(EVAL_GALLERY_SIZE="[50, -1, 'Occlusion', 100]", EVAL_USE_CBGM=True)
    results = ev.evaluate(net, dataset, cfg, CPU)
    folder = Path(cfg.OUTPUT_DIR)
    assert json.loads((folder / "results.json").read_text()) == results
    files = [CACHE, "gallery_sizes.png", "results.json", "thresholds.png"]
    assert sorted(p.name for p in folder.iterdir()) == files
    assert [g["gallery_size"] for g in results["galleries"]] == [50, -1, "Occlusion", 100]
    assert [g["queries"] for g in results["galleries"]] == [3, 3, 1, 3]
    for size, gallery in zip((50, -1, "Occlusion", 100), results["galleries"]):
        alone = ev.evaluate(
            None,
            dataset,
            config(EVAL_GALLERY_SIZE=size, EVAL_USE_CACHE=True, EVAL_USE_CBGM=True),
            CPU,
        )
        assert alone["search"] == {name: gallery[name] for name in ev.NUMBERS}
    assert results["search"] == {name: results["galleries"][0][name] for name in ev.NUMBERS}
    assert "CUHK-SYSU gallery Occlusion" in capsys.readouterr().out


@pytest.mark.parametrize("use_cbgm", [False, True])
def test_every_protocol_equals_the_loops(dataset, made, use_cbgm):
    sizes = "[50, 100, -1, 'Occlusion']"
    cfg = settings(EVAL_GALLERY_SIZE=sizes, EVAL_USE_CBGM=use_cbgm)
    cache, protocols = load_cache(made / CACHE, dataset, cfg), ev.protocols_of(dataset, cfg)
    data = cache["gallery_dets"], cache["gallery_feats"], torch.stack(cache["query_box_feats"])
    results = ev.score(cache, dataset, protocols, cfg)
    for gallery, protocol in zip(results["galleries"], protocols):
        want = reference.search_scores(*data, protocol, ev.context_of(cache, cfg))
        assert [gallery[n] for n in ev.NUMBERS] == pytest.approx([want[n] for n in ev.NUMBERS])


def test_results_say_what_became_of_each_query_and_each_person(net, dataset, config):
    results = ev.evaluate(net, dataset, config(EVAL_USE_GT=True), CPU)
    queries = results["queries"]
    found = [(q["query"], q["image"], q["present"]) for q in queries]
    # the third query's own image is in its list
    assert found == [(0, "g1.jpg", 2), (1, "g1.jpg", 1), (2, "g2.jpg", 2)]
    assert np.mean([q["ap"] for q in queries]) == pytest.approx(results["search"]["mAP"])
    assert np.mean([q["first_hit"] == 1 for q in queries]) == results["search"]["top1"]
    assert all(q["first_hit"] > 0 for q in queries)  # every person is in it
    assert results["detection_errors"] == {
        "people": 7,
        "found": 1,
        "low_score": 0,
        "poorly_placed": 0,
        "missed": 0,
    }
    flat = flat_metrics(results)
    assert set(flat) == {
        "detection/recall",
        "detection/ap",
        "detection_labeled/recall",
        *(f"search/{name}" for name in ev.NUMBERS),
    }


@pytest.mark.parametrize(
    "options, said",
    [
        ({"EVAL_GALLERY_SIZE": "77"}, "EVAL_GALLERY_SIZE: expected one of 50, .*found 77"),
        ({"EVAL_GALLERY_SIZE": "[50, 500]"}, "TestG500.mat: missing"),
        ({"EVAL_GALLERY_SIZE": "Resolution"}, "Resolution.mat: missing"),
        ({"EVAL_GALLERY_SIZE": "nonsense"}, "EVAL_GALLERY_SIZE: expected one of .*'nonsense'"),
        ({"EVAL_GALLERY_SIZE": "[]"}, "EVAL_GALLERY_SIZE: expected a size"),
        ({"EVAL_GALLERY_SIZE": "[50, [100]]"}, "EVAL_GALLERY_SIZE: expected a size"),
        ({"EVAL_GALLERY_SIZE": "50.5"}, "EVAL_GALLERY_SIZE: expected a size"),
        ({"EVAL_GALLERY_SIZE": "None"}, "EVAL_GALLERY_SIZE: expected a"),
        ({"INPUT.BATCH_SIZE_TEST": "0"}, "INPUT.BATCH_SIZE_TEST: expected at least 1, found 0"),
        ({"EVAL_CBGM_K1": "0"}, "EVAL_CBGM_K1: expected at least 1"),
        ({"EVAL_AMP": "int4"}, "EVAL_AMP: expected .*'int4'"),
        ({"EVAL_CROSS_CAMERA": "True"}, "EVAL_CROSS_CAMERA"),
        ({"EVAL_QUERY_FILE": "mini.txt"}, "EVAL_QUERY_FILE"),
    ],
)
def test_bad_settings_are_found_before_the_work(dataset, config, options, said):
    with pytest.raises(UserError, match=said):
        ev.evaluate(None, dataset, config(**options), CPU)


def test_a_gallery_size_may_change_its_type_again(tmp_path):
    path = tmp_path / "cfg.yaml"
    for text, size in (("[50, 100]", [50, 100]), ("-1", -1), ("Occlusion", "Occlusion")):
        path.write_text(f"EVAL_GALLERY_SIZE: {text}\n")
        assert size == load_cfg(str(path)).EVAL_GALLERY_SIZE
        assert load_cfg(str(path), ["EVAL_GALLERY_SIZE", "500"]).EVAL_GALLERY_SIZE == 500
    with pytest.raises(UserError, match="SEED"):
        load_cfg(None, ["SEED", "[1]"])


def test_prw_protocols_come_from_the_config(tmp_path):
    frames = {
        "c1s1_2": [(7, 1, 2, 10, 20)],
        "c1s1_3": [(7, 3, 3, 9, 9)],
        "c2s1_2": [(7, 4, 4, 9, 9)],
    }
    queries = [(7, 1, 2, 10, 20, "c1s1_2"), (7, 4, 4, 9, 9, "c2s1_2")]
    write_prw(tmp_path, {"c1s1_1": [(1, 2, 2, 9, 9)]}, frames, queries)
    (tmp_path / "mini.txt").write_text("7 4 4 9 9 c2s1_2\n")
    data = load_dataset("PRW", str(tmp_path))

    def protocol(*pairs):
        cfg = load_cfg(None, ["EVAL_GALLERY_SIZE", "-1", *pairs])
        return ev.protocols_of(data, cfg)[0]

    assert protocol().listed.sum(1).tolist() == [2, 2]
    assert protocol("EVAL_CROSS_CAMERA", "True").listed.sum(1).tolist() == [1, 2]
    assert protocol("EVAL_QUERY_FILE", "mini.txt").queries.tolist() == [1]
    for size in ("50", "100", "'Occlusion'", "[100, -1]"):  # sizes that other datasets have
        with pytest.raises(UserError, match="EVAL_GALLERY_SIZE: .*expected -1, found"):
            protocol("EVAL_GALLERY_SIZE", size)
    with pytest.raises(UserError, match="none.txt: missing"):
        protocol("EVAL_QUERY_FILE", "none.txt")


def test_a_query_outside_its_image_is_named(root, dataset, net, tmp_path):
    outside = np.array([70, 5, 90, 40], np.float32)
    data = load_dataset("CUHK-SYSU", str(root))
    data.queries[1] = type(data.queries[1])(dataset.queries[1].scene, outside, 2)
    with pytest.raises(UserError, match="g1.jpg: query box 70 5 90 40: .* 64 x 48"):
        run(net, data, tmp_path)


def test_a_full_disk_is_said(net, dataset, tmp_path):
    part = tmp_path / "part"
    part.symlink_to("/dev/full")  # the incomplete file is removed, not the device
    with pytest.raises(UserError, match="part"):
        extract(net, dataset, CPU, part, 1, 0)
    assert not part.is_symlink()


# --- invalid caches ---


@pytest.fixture(scope="module")
def made(net, dataset, tmp_path_factory):
    """Return a folder with a complete cache, including the context of queries."""
    folder = tmp_path_factory.mktemp("made")
    ev.make_cache(
        net,
        dataset,
        load_cfg(None, pairs(TINY | {"OUTPUT_DIR": folder, "EVAL_USE_CBGM": True})),
        CPU,
        "0123",
    )
    return folder


@pytest.fixture
def saved(made, tmp_path):
    """Return a copy of the cache, which a test may change, and its path."""
    path = shutil.copy(made / CACHE, tmp_path)
    return torch.load(path), Path(path)


def changed(**entries):
    """Return a cache with changed entries; `list=(index, value or function of the old value)`."""

    def change(cache):
        for key, (index, value) in entries.items():
            cache[key][index] = value(cache[key][index]) if callable(value) else value

    return change


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda c: c.pop("query_feats"), "found none for query_feats"),
        (lambda c: c["gallery_dets"].pop(), "gallery_dets: expected 6 entries .*found 5"),
        (lambda c: c["query_dets"].append(c["query_dets"][0]), "query_dets: expected 3 .*found 4"),
        (changed(gallery_dets=(2, lambda t: t[:, :4])), r"gallery_dets\[2\]: expected .*\[n, 5\]"),
        (
            changed(gallery_feats=(1, lambda t: t[1:])),
            r"gallery_feats\[1\]: expected .*\[6, 16\], found .*\[5, 16\]",
        ),
        (changed(gallery_feats=(3, lambda t: t[:, :8])), r"gallery_feats\[3\]: .*found .*\[6, 8\]"),
        (
            changed(query_box_feats=(2, lambda t: t[:8])),
            r"query_box_feats\[2\]: .*\[16\], found .*\[8\]",
        ),
        (changed(query_box_feats=(0, lambda t: t[0])), r"query_box_feats\[0\]: .*found .*\[\]"),
        (changed(query_box_feats=(0, None)), r"query_box_feats\[0\]: .*found NoneType"),
        (changed(gallery_dets=(0, lambda t: t.double())), r"gallery_dets\[0\]: .*float64"),
        (changed(query_feats=(0, lambda t: t * torch.nan)), r"query_feats\[0\]: expected finite"),
        (changed(query_dets=(0, lambda t: t[:0]), query_feats=(0, lambda t: t[:0])), "own box"),
        (lambda c: c["made"].update(EVAL_USE_GT=True), "EVAL_USE_GT: expected False, found True"),
        (
            lambda c: c["made"].update(EVAL_USE_CBGM=False),
            "EVAL_USE_CBGM: expected True, found False",
        ),
        (
            lambda c: c["made"].update(dataset="PRW of 2 gallery images"),
            "dataset: expected CUHK-SYSU of 6 gallery images, 3 queries, .*, found PRW of 2",
        ),
    ],
)
def test_a_cache_that_does_not_fit_is_refused(saved, dataset, change, said):
    cache, path = saved
    change(cache)
    torch.save(cache, path)
    with pytest.raises(UserError, match=said) as error:
        load_cache(path, dataset, settings(EVAL_USE_CBGM=True))
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("key, value", [("INPUT.MIN_SIZE", 60), ("MODEL.ROI.NMS_THRESH", 0.4)])
def test_features_of_other_settings_are_refused(saved, dataset, key, value):
    _, path = saved
    with pytest.raises(UserError, match=f"{key}: expected {value}, found "):
        load_cache(path, dataset, settings(**{key: value}))


def test_features_of_other_weights_are_refused(saved, dataset):
    """Weights are compared if a checkpoint is given. Caches of earlier versions do not record
    them."""
    cache, path = saved
    assert cache["made"]["weights"] == "0123"
    load_cache(path, dataset, settings(), "0123")
    with pytest.raises(UserError, match="weights: expected 4567, found 0123"):
        load_cache(path, dataset, settings(), "4567")
    del cache["made"]["weights"]
    torch.save(cache, path)
    load_cache(path, dataset, settings(), "4567")


def test_features_of_other_pictures_are_refused(saved, root, tmp_path):
    """Images with the same names are compared by content. Scoring does not need images, so a
    dataset without them is accepted."""
    _, path = saved
    copy = shutil.copytree(root, tmp_path / "copy")
    dataset = load_dataset("CUHK-SYSU", str(copy))
    load_cache(path, dataset, settings())
    first, second, *_ = (Path(scene.path) for scene in dataset.gallery)
    shutil.copy(second, first)
    with pytest.raises(UserError, match="pictures: expected "):
        load_cache(path, dataset, settings())
    first.unlink()
    load_cache(path, dataset, settings())


def test_a_cache_cut_short_or_missing_is_refused(saved, dataset):
    _, path = saved
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match="damaged"):
        load_cache(path, dataset, settings())
    path.unlink()
    with pytest.raises(UserError, match=path.name):
        load_cache(path, dataset, settings())


def test_the_five_lists_alone_are_a_cache(saved, dataset):
    cache, path = saved
    torch.save({key: cache[key] for key in LISTS}, path)
    assert set(load_cache(path, dataset, settings(EVAL_USE_GT=True, EVAL_USE_CBGM=True))) == set(
        LISTS
    )


def test_another_dataset_is_told_apart(root, dataset):
    other = load_dataset("CUHK-SYSU", str(root))
    assert made_from(other, settings(), None) == made_from(dataset, settings(), None)
    first = other.gallery[0]
    other.gallery[0] = Scene("other.jpg", first.path, first.boxes, first.pids, 0)
    assert made_from(other, settings(), None) != made_from(dataset, settings(), None)
    other.gallery[0] = Scene("no\udcff.jpg", first.path, first.boxes, first.pids, 0)  # not UTF-8
    assert made_from(other, settings(), None) != made_from(dataset, settings(), None)
