"""The reader of MATLAB files equals scipy's, and reports damaged files in one line."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import load_dataset
from datasets.mat import cells, fields, load, load_structs, numbers, text
from tests.annotations import cell, struct, write_cuhk, write_prw
from utils.errors import UserError

GOLDEN = Path(__file__).parent / "golden/eval"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4", "f8", "i8"])
def test_numbers_equal_scipys(tmp_path, compressed, dtype):
    array = np.arange(15).reshape(3, 5).astype(dtype)
    path = str(tmp_path / "a.mat")
    scipy.io.savemat(path, {"other": "x", "a": array}, do_compression=compressed)
    assert np.array_equal(numbers(load(path, "b", "a")).reshape(5, 3).T, array)
    with pytest.raises(UserError, match="expected a variable b, found other, a"):
        load(path, "b")


@pytest.mark.parametrize("compressed", [False, True])
def test_structs_cells_and_names(tmp_path, compressed):
    path = str(tmp_path / "a.mat")
    inner = struct(
        [
            {"imname": "long name.jpg", "box": np.zeros((1, 0))},
            {"imname": "é", "box": np.zeros((0, 0))},
        ]
    )
    scipy.io.savemat(
        path,
        {"s": inner, "c": cell(["abc", "s1.jpg"]), "none": np.zeros((0, 0))},
        do_compression=compressed,
    )
    found = fields(load(path, "s"))
    assert [text(name) for name in found["imname"]] == ["long name.jpg", "é"]
    assert [len(numbers(box)) for box in found["box"]] == [0, 0]
    assert [record["imname"] for record in load_structs(path, "s")] == found["imname"]
    assert [text(name) for name in cells(load(path, "c"))] == ["abc", "s1.jpg"]
    assert fields(load(path, "none")) == {} and cells(load(path, "none")) == []


def test_golden_protocol_equals_scipys():
    path = str(GOLDEN / "cuhk/annotation/test/train_test/TestG50.mat")
    theirs = scipy.io.loadmat(path)["TestG50"][0]
    ours = list(load_structs(path, "TestG50"))
    assert len(ours) == len(theirs)
    for record, expected in zip(ours, theirs):
        gallery = fields(record["Gallery"])
        names, boxes = (expected["Gallery"][field][0] for field in ("imname", "idlocate"))
        assert [text(name) for name in gallery["imname"]] == [name[0] for name in names]
        for place, box in zip(gallery["idlocate"], boxes):
            assert numbers(place).tolist() == box.ravel().tolist()


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """A small dataset of each layout."""
    a, b = (5, 6, 20, 30), (300, 10, 12, 40)
    cuhk, prw = (tmp_path_factory.mktemp(name) for name in ("cuhk", "prw"))
    write_cuhk(
        cuhk,
        {"t.jpg": [a, b], "g.jpg": [a], "h.jpg": [b]},
        ["g.jpg", "h.jpg"],
        [[("t.jpg", a)]],
        {50: [("g.jpg", a, [("h.jpg", b), ("g.jpg", None)])]},
    )
    write_prw(
        prw,
        {"c1_1": [(3, 1, 2, 8, 9)]},
        {"c1_2": [(7, 1, 2, 8, 9)], "c2_2": [(7, 1, 3, 8, 9)]},
        [(7, 1, 2, 8, 9, "c1_2")],
    )
    return {"CUHK-SYSU": cuhk, "PRW": prw}


@pytest.mark.slow
@settings(max_examples=300)
@given(st.data())
def test_damaged_files_end_in_one_clear_line(roots, data):
    """A dataset with a damaged file loads or raises a UserError."""
    name = data.draw(st.sampled_from(sorted(roots)))
    files = sorted(f for f in roots[name].rglob("*") if f.suffix in (".mat", ".txt"))
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    places = st.integers(0, len(whole) - 1)
    damage = data.draw(st.sampled_from(["cut", "flip", "swap"]))
    if damage == "cut":
        changed = whole[: data.draw(places)]
    elif damage == "flip":
        changed = bytearray(whole)
        flips = st.dictionaries(places, st.integers(0, 255), max_size=4)
        for place, value in data.draw(flips).items():
            changed[place] = value
    else:
        changed = data.draw(st.sampled_from(files)).read_bytes()
    path.write_bytes(changed)
    try:
        load_dataset(name, str(roots[name])).protocol(50)
    except UserError as error:
        assert "\n" not in str(error)
    finally:
        path.write_bytes(whole)
