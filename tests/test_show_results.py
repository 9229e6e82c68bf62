"""tools.show_results: the page of queries and matches, and errors."""

import base64
import io
import json
import re
import shutil
from functools import partial

import pytest
import torch
from PIL import Image

from configs.defaults import load_cfg
from engine.evaluation import evaluate as ev
from engine.evaluation.cache import CACHE
from tests.tiny import TINY, pairs
from tools import show_results


@pytest.fixture(scope="module")
def evaluated(net, dataset, root, tmp_path_factory):
    """Return the OUTPUT_DIR of an evaluation with annotated boxes, in which everyone is found."""
    folder = tmp_path_factory.mktemp("evaluated")
    places = {"OUTPUT_DIR": folder, "INPUT.DATA_ROOT": root}
    options = {"EVAL_USE_GT": True, "EVAL_GALLERY_SIZE": 50}
    cfg = load_cfg(None, pairs(TINY | places | options))
    ev.evaluate(net, dataset, cfg, torch.device("cpu"))
    (folder / "config.yaml").write_text(cfg.dump())
    return folder


@pytest.fixture
def show(evaluated, program):
    return partial(program, show_results.main, "--cfg", evaluated / "config.yaml")


def test_config_values_after_the_numbers_of_queries(evaluated, show):
    assert show("--query", 1, 2, "EVAL_GALLERY_SIZE", 50)[0] == 0
    assert show("--query", "one")[0] == 2


def test_the_page_shows_what_the_results_say(evaluated, show):
    assert show("--show", "worst")[0] == 0
    page = (evaluated / "queries.html").read_text()
    results = json.loads((evaluated / "results.json").read_text())
    by_ap = sorted(results["queries"], key=lambda q: q["ap"])
    assert re.findall(r"Query (\d+)", page) == [str(q["query"]) for q in by_ap]
    for query, section in zip(by_ap, page.split("<section>")[1:]):
        assert f"AP {100 * query['ap']:.1f} %" in section
        assert f"first correct match at rank {query['first_hit']}" in section
        colors = re.findall("border-color:(#[0-9a-f]+)", section)
        assert colors[0] == show_results.css(show_results.BLUE)
        right = [c == show_results.css(show_results.GREEN) for c in colors[1:]]
        assert right.index(True) + 1 == query["first_hit"]
        assert sum(right) == query["present"]
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == 2 * page.count("<figure ")
    assert {Image.open(io.BytesIO(base64.b64decode(p))).format for p in pictures} == {"JPEG"}
    assert "://" not in page  # self-contained; base64 contains no colon


def test_best_random_and_given_queries(evaluated, show, tmp_path):
    results = json.loads((evaluated / "results.json").read_text())
    aps = {str(query["query"]): query["ap"] for query in results["queries"]}
    assert len(set(aps.values())) > 1

    def shown(*args) -> list[str]:
        assert show(*args, "--out", tmp_path / "x.html")[0] == 0
        return re.findall(r"Query (\d+)", (tmp_path / "x.html").read_text())

    for kind, order in (("worst", sorted(aps.values())), ("best", sorted(aps.values())[::-1])):
        assert [aps[number] for number in shown("--show", kind)] == order
    drawn = {seed: shown("--show", "random", "--count", 2, "--seed", seed) for seed in range(8)}
    assert drawn[0] == shown("--show", "random", "--count", 2)  # 0 is the default
    assert {len(some) for some in drawn.values()} == {2}
    assert {number for some in drawn.values() for number in some} == set(aps)
    assert shown("--query", 2, 0) == ["2", "0"]


def test_a_sheet(show, tmp_path):
    sheet = tmp_path / "a new folder/sheet.png"
    code, out, _ = show("--count", 2, "--out", sheet)
    assert code == 0 and str(sheet) in out
    assert Image.open(sheet).width == 1900


@pytest.mark.parametrize(
    "args, said",
    [
        (["--out", "x.pdf"], "ends in .html or .png"),
        (["--count", "0"], "--count 0"),
        (["--query", "7"], "--query 7: expected one of"),
        (["--query", "0", "--show", "best"], "--show"),
        (["--query", "0", "--count", "3"], "--count"),
        (["--seed", "3"], "--seed"),
        (["--out", f"{__file__}/x.png"], f"--out {__file__}"),
        (["EVAL_USE_CBGM", "True"], "EVAL_USE_CBGM"),
        (["EVAL_USE_GT", "False"], "EVAL_USE_GT"),
        (["OUTPUT_DIR", "/nowhere"], f"/nowhere/{CACHE}: no such file"),
    ],
)
def test_bad_input(show, args, said):
    code, _, err = show(*args)
    assert code == 2 and said in err and err.count("\n") == 1


def test_a_missing_image_is_named(show, evaluated, root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    (tmp_path / "data/Image/SSM/g1.jpg").unlink()
    code, _, err = show("INPUT.DATA_ROOT", tmp_path / "data")
    assert code == 2 and "g1.jpg: missing image" in err
