"""Datasets, protocols and batches of tiny files that have every irregularity of the published
ones."""

import os
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from datasets import UNLABELED, load_dataset
from datasets.loaders import SceneDataset, epoch_batches, train_loader
from datasets.types import Scene
from tests.annotations import cell, struct, write_cuhk, write_image, write_protocol, write_prw
from utils.errors import UserError
from utils.media import read_pixels

A, B, C = (5, 6, 20, 30), (300, 10, 12, 40), (200, 250, 100, 20)  # uint8 and uint16; C overflows


@pytest.fixture
def cuhk(tmp_path):
    images = {
        "s3.jpg": [A, (9, 9, 0, 5)],
        "s1.jpg": [B, A],
        "s2.jpg": [C],
        "g1.jpg": [A, B],
        "g2.jpg": [B, C],
        "g3.jpg": [A],
        "g4.jpg": [(1, 1, 4, 4)],
    }
    queries = [
        ("g1.jpg", A, [("g2.jpg", C), ("g4.jpg", None)]),
        ("g2.jpg", B, [("g3.jpg", A), ("g3.jpg", A), ("g2.jpg", B)]),
    ]
    write_cuhk(
        tmp_path,
        images,
        ["g4.jpg", "g1.jpg", "g2.jpg", "g3.jpg"],
        [[("s3.jpg", A)], [("s1.jpg", A), ("s2.jpg", C)]],
        {50: queries},
    )
    return tmp_path


@pytest.fixture
def prw(tmp_path):
    train = {
        "c1s1_1": [(-2, 1, 1, 9, 9), (932, 2, 2, 9, 9)],
        "c2s1_1": [(5, -3.5, 2, 9, 9)],
        "c6s1_1": [(-1, 3, 3, 8, 0), (480, 1, 1, 9, 9), (5, 1, 2, 8, 9)],
    }
    test = {
        "c1s1_2": [(7, 1, 2, 10, 20)],
        "c1s1_3": [(7, 3, 3, 9, 9), (7, 20, 3, 9, 9)],
        "c2s1_2": [(7, 4, 4, 9, 9), (8, 5, 5, 9, 9), (-2, 1, 1, 5, 5)],
        "c3s1_2": [],
    }
    queries = [
        (7, "-1.7", 2, 10, 20, "c1s1_2"),
        (8, 5, 5, 9, 9, "c2s1_2"),
        (7, 4, 4, 9, 9, "c2s1_2"),
    ]
    write_prw(tmp_path, train, test, queries)
    return tmp_path


def test_cuhk_labels_and_order(cuhk):
    data = load_dataset("CUHK-SYSU", str(cuhk))
    assert [s.name for s in data.train] == ["s1.jpg", "s2.jpg", "s3.jpg"]
    assert [s.pids.tolist() for s in data.train] == [[UNLABELED, 2], [2], [1]]
    assert data.train[1].boxes.tolist() == [[200, 250, 300, 270]]
    assert data.num_pids == 2
    assert data.dropped == {"train: box without area, dropped": 1}
    assert [s.name for s in data.gallery] == ["g4.jpg", "g1.jpg", "g2.jpg", "g3.jpg"]
    assert [s.pids.tolist() for s in data.gallery] == [[UNLABELED], [1, UNLABELED], [2, 1], [2]]
    assert [(q.scene, q.pid, q.box.tolist()) for q in data.queries] == [
        (1, 1, [5, 6, 25, 36]),
        (2, 2, [300, 10, 312, 50]),
    ]


def test_cuhk_protocols(cuhk):
    data = load_dataset("CUHK-SYSU", str(cuhk))
    lists = data.protocol(50)
    assert lists.listed.tolist() == [[1, 0, 1, 0], [0, 0, 1, 2]]
    assert lists.query.tolist() == [0, 1, 1, 1] and lists.image.tolist() == [2, 3, 3, 2]
    assert lists.boxes[0].tolist() == [200, 250, 300, 270]
    assert lists.box_entry.tolist() == [0, 1, 2, 3] and lists.queries.tolist() == [0, 1]
    whole = data.protocol(-1)  # a query's own image only where it is listed
    assert whole.listed.tolist() == [[1, 0, 1, 1], [1, 1, 1, 2]]
    assert whole.query.tolist() == lists.query.tolist()


def test_cuhk_irregular_lists_are_counted(tmp_path):
    """The gallery lists an image twice, and an identity has a box that its image does not have."""
    images = {"s1.jpg": [A], "g1.jpg": [A], "g2.jpg": [A]}
    people = [[("s1.jpg", A)], [("s1.jpg", B)]]
    queries = {50: [("g1.jpg", A, [("g2.jpg", A)])]}
    write_cuhk(tmp_path, images, ["g1.jpg", "g2.jpg", "g1.jpg"], people, queries)
    data = load_dataset("CUHK-SYSU", str(tmp_path))
    assert [scene.name for scene in data.gallery] == ["g1.jpg", "g2.jpg"]
    assert [scene.pids.tolist() for scene in data.train] == [[1]] and data.num_pids == 2
    assert data.dropped == {
        "pool.mat: image listed twice": 1,
        "train: identity's box not in Images.mat, ignored": 1,
    }


def test_cuhk_subset_with_a_query_of_its_own(cuhk):
    write_protocol(
        cuhk / "annotation/test/subset/Occlusion.mat",
        "Occlusion1",
        [("g2.jpg", B, [("g3.jpg", A)]), ("g3.jpg", A, [("g2.jpg", B), ("g1.jpg", None)])],
    )
    data = load_dataset("CUHK-SYSU", str(cuhk))
    assert len(data.queries) == 3 and data.queries[2].pid == 2
    assert data.protocol("Occlusion").queries.tolist() == [1, 2]
    assert data.protocol(50).queries.tolist() == [0, 1]


@pytest.mark.parametrize("size, said", [(77, "EVAL_GALLERY_SIZE"), (100, "TestG100.mat")])
def test_cuhk_protocol_that_is_not_there(cuhk, size, said):
    with pytest.raises(UserError, match=said):
        load_dataset("CUHK-SYSU", str(cuhk)).protocol(size)


def test_cuhk_protocol_names_an_unknown_image(cuhk):
    path = cuhk / "annotation/test/train_test/TestG100.mat"
    write_protocol(path, "TestG100", [("g1.jpg", A, [("nowhere.jpg", A)])])
    with pytest.raises(UserError, match="TestG100.mat: .*nowhere.jpg"):
        load_dataset("CUHK-SYSU", str(cuhk)).protocol(100)


def test_cuhk_query_image_outside_the_gallery(cuhk):
    path = cuhk / "annotation/test/train_test/TestG50.mat"
    write_protocol(path, "TestG50", [("s1.jpg", A, [("g1.jpg", A)])])
    with pytest.raises(UserError, match="s1.jpg"):
        load_dataset("CUHK-SYSU", str(cuhk))


def test_prw_labels(prw):
    data = load_dataset("PRW", str(prw))
    assert [s.pids.tolist() for s in data.train] == [[UNLABELED, 3], [1], [2, 1]]
    assert data.num_pids == 3 and [s.camera for s in data.train] == [1, 2, 6]
    assert data.train[1].boxes.tolist() == [[0, 2, 5.5, 11]]
    assert data.dropped == {
        "train: box without area, dropped": 1,
        "train: negative corner, clipped": 1,
    }
    assert [s.pids.tolist() for s in data.gallery] == [[7], [7, 7], [7, 8, UNLABELED], []]
    np.testing.assert_allclose(data.queries[0].box, [0, 2, 8.3, 22], rtol=1e-6)


def test_prw_protocols(prw):
    data = load_dataset("PRW", str(prw))
    every = data.protocol()
    assert every.queries.tolist() == [0, 2]  # person 8 is in no other image
    assert every.listed.tolist() == [[0, 1, 1, 1], [1, 1, 0, 1]]
    assert (every.query.tolist(), every.image.tolist()) == ([0, 0, 1, 1], [1, 2, 0, 1])
    boxes = [every.boxes[every.box_entry == e, 0].tolist() for e in range(4)]
    assert boxes == [[3, 20], [4], [1], [3, 20]]  # either of two boxes is right
    other = data.protocol(cross_camera=True)
    assert other.listed.tolist() == [[0, 0, 1, 1], [1, 1, 0, 1]]
    assert (other.query.tolist(), other.image.tolist()) == ([0, 1, 1], [2, 0, 1])


def test_prw_query_file_with_unix_line_ends(prw):
    (prw / "mini.txt").write_text("7 4 4 9 9 c2s1_2\n")
    data = load_dataset("PRW", str(prw))
    assert data.protocol(query_file="mini.txt").queries.tolist() == [2]
    (prw / "mini.txt").write_text("9 4 4 9 9 c2s1_2\n")
    with pytest.raises(UserError, match="person 9 in c2s1_2.jpg"):
        data.protocol(query_file="mini.txt")


@pytest.mark.parametrize(
    "line, said",
    [
        ("7 1 2 3 c1s1_2", "line 1"),
        ("7 1 2 x 4 c1s1_2", "line 1"),
        ("7 1 2 0 4 c1s1_2", "line 1"),
        ("", "found none"),
        ("7 nan 2 3 4 c1s1_2", "line 1"),
        ("2147483647 1 2 3 4 c1s1_2", "line 1"),  # the label of unlabelled people
        ("-2 1 2 3 4 c1s1_2", "line 1"),
        ("7 1 2 3 4 c9", "c9 is not in the gallery"),
    ],
)
def test_prw_bad_query(prw, line, said):
    (prw / "query_info.txt").write_text(line)
    with pytest.raises(UserError, match=said):
        load_dataset("PRW", str(prw))


def same_scenes(ours, theirs):
    assert [one.pids.tolist() for one in ours] == [one.pids.tolist() for one in theirs]
    assert [one.boxes.tolist() for one in ours] == [one.boxes.tolist() for one in theirs]


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".tif", ".webp"])
def test_prw_frames_of_any_format(prw, suffix):
    expected = load_dataset("PRW", str(prw))
    for frame in (prw / "frames").iterdir():
        frame.rename(frame.with_suffix(suffix))
    (prw / "frames/._c1s1_1.bmp").touch()
    (prw / "annotations/c1s1_1.jpg.mat").rename(prw / "annotations/c1s1_1.mat")
    (prw / "annotations/c1s1_2.jpg.mat").rename(prw / f"annotations/c1s1_2{suffix}.mat")
    for ending in ("", ".jpg", suffix):
        text = f"7 -1.7 2 10 20 c1s1_2{ending}\n8 5 5 9 9 c2s1_2{ending}\n"
        (prw / "query_info.txt").write_text(text)
        data = load_dataset("PRW", str(prw))
        same_scenes(data.train + data.gallery, expected.train + expected.gallery)
        assert [s.name for s in data.gallery] == [
            f"{name}{suffix}" for name in ("c1s1_2", "c1s1_3", "c2s1_2", "c3s1_2")
        ]
        assert all(Path(scene.path).is_file() for scene in data.train + data.gallery)
        assert [(q.scene, q.pid) for q in data.queries] == [(0, 7), (2, 8)]


def test_prw_takes_the_frame_that_the_list_names(prw):
    write_image(prw / "frames/c1s1_2.png")
    assert load_dataset("PRW", str(prw)).gallery[0].name == "c1s1_2.jpg"
    savemat(prw / "frame_test.mat", {"img_index_test": cell(["c1s1_2.png", "c2s1_2"])})
    assert [s.name for s in load_dataset("PRW", str(prw)).gallery] == ["c1s1_2.png", "c2s1_2.jpg"]


def test_prw_names_with_spaces_and_a_byte_order_mark(tmp_path):
    train, test = {"c1 a": [(5, 1, 2, 9, 9)]}, {"c1 b  c": [(7, 1, 2, 9, 9)], "c2 d": []}
    write_prw(tmp_path, train, test, [(7, 1, 2, 9, 9, "c1 b  c")])
    info = tmp_path / "query_info.txt"
    info.write_bytes(b"\xef\xbb\xbf" + info.read_bytes())
    data = load_dataset("PRW", str(tmp_path))
    assert [(q.scene, q.pid) for q in data.queries] == [(0, 7)]
    assert [scene.name for scene in data.train + data.gallery] == [
        "c1 a.jpg",
        "c1 b  c.jpg",
        "c2 d.jpg",
    ]


@pytest.mark.parametrize("layout", ["no rows", "no scene", "an empty cell"])
def test_cuhk_identity_without_scenes_is_an_empty_one(cuhk, layout):
    empty = {
        "no rows": struct([{"scene": np.zeros((0, 0))}]),
        "no scene": np.zeros((0, 0)),
        "an empty cell": struct([{"scene": struct([])}]),
    }[layout]
    scene = struct([{"imname": "s3.jpg", "idlocate": np.array([A])}])
    people = np.empty((3, 1), object)
    people[:, 0] = [struct([{"scene": scene}]), empty, struct([{"scene": scene}])]
    people[2, 0]["scene"][0, 0]["imname"][0, 0] = "s1.jpg"
    savemat(cuhk / "annotation/test/train_test/Train.mat", {"Train": people})
    data = load_dataset("CUHK-SYSU", str(cuhk))
    assert data.num_pids == 3


def test_cuhk_query_without_a_gallery_is_unmatched(cuhk):
    write_protocol(
        cuhk / "annotation/test/train_test/TestG50.mat",
        "TestG50",
        [("g1.jpg", A, [("g2.jpg", C)]), ("g2.jpg", B, [])],
    )
    lists = load_dataset("CUHK-SYSU", str(cuhk)).protocol(50)
    assert lists.listed.tolist() == [[0, 0, 1, 0]] and lists.unmatched == 1


@pytest.mark.parametrize("head", [b"MATLAB 7.3 MAT-file, Platform: GLNXA64", b"\x89HDF\r\n\x1a\n"])
def test_the_error_for_matlab_7_3_states_the_remedy(cuhk, head):
    (cuhk / "annotation/Images.mat").write_bytes(head.ljust(124) + b"\0\2IM" + bytes(500))
    with pytest.raises(UserError, match="Images.mat: .*MATLAB 7.3 .HDF5.*save.*'-v7'"):
        load_dataset("CUHK-SYSU", str(cuhk))


@pytest.mark.parametrize("name", ["CUHK-SYSU", "PRW"])
def test_the_error_for_a_missing_dataset_names_its_folder_and_the_generator(name, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}.*make_synthetic"):
        load_dataset(name, str(tmp_path))


@pytest.mark.parametrize(
    "file", ["Images.mat", "pool.mat", "test/train_test/Train.mat", "test/train_test/TestG50.mat"]
)
@pytest.mark.parametrize("damage", ["missing", "cut", "text"])
def test_damaged_annotation_file_is_named(cuhk, file, damage):
    path = cuhk / "annotation" / file
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"not MATLAB" * 99)
    with pytest.raises(UserError, match=file.split("/")[-1]) as error:
        load_dataset("CUHK-SYSU", str(cuhk))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["query_info.txt", "frame_test.mat", "annotations/c1s1_2.jpg.mat"])
def test_an_annotation_that_is_no_file_never_hangs(prw, file):
    (prw / file).unlink()
    os.mkfifo(prw / file)
    with pytest.raises(UserError, match=f"{Path(file).name}: "):
        load_dataset("PRW", str(prw))


def test_missing_prw_annotation_is_named(prw):
    (prw / "annotations/c2s1_1.jpg.mat").unlink()
    with pytest.raises(UserError, match="c2s1_1.jpg.mat: missing"):
        load_dataset("PRW", str(prw))


def scenes_in(folder, count, boxes=((1, 2, 30, 40), (60, 40, 99, 99), (70, 1, 90, 9))):
    for i in range(count):
        write_image(folder / f"{i}.png")
    array = np.array(boxes, np.float32)
    return [
        Scene(f"{i}.png", str(folder / f"{i}.png"), array, np.arange(len(array)), 0)
        for i in range(count)
    ]


def test_training_item_is_clipped_and_mirrored(tmp_path):
    (scene,) = scenes_in(tmp_path, 1)
    as_is = SceneDataset([scene])[0]
    assert as_is[0].shape == (3, 48, 64) and as_is[0].dtype == torch.uint8
    assert len(as_is[1]["boxes"]) == 3
    seen = {}
    for epoch in range(20):
        image, target = SceneDataset([scene], train=True, seed=3)[epoch, 0]
        assert target["labels"].tolist() == [0, 1]  # the third box lies outside the 64 x 48 image
        mirrored = target["boxes"].tolist() == [[34, 2, 63, 40], [0, 40, 4, 48]]
        assert mirrored or target["boxes"].tolist() == [[1, 2, 30, 40], [60, 40, 64, 48]]
        assert torch.equal(image, as_is[0].flip(2) if mirrored else as_is[0])
        seen[mirrored] = True
    assert len(seen) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_depend_on_seed_and_epoch_alone(tmp_path, workers):
    data = SceneDataset(scenes_in(tmp_path, 7), train=True, seed=1)
    before = torch.get_rng_state()
    whole = list(train_loader(data, 2, 0, seed=1, epoch=4))
    rest = list(train_loader(data, 2, workers, seed=1, epoch=4, start_step=2))
    assert torch.equal(before, torch.get_rng_state())
    assert [len(images) for images, _ in whole] == [2, 2, 2, 1] and len(rest) == 2
    for (images, targets), (again, targets_again) in zip(whole[2:], rest):
        assert all(map(torch.equal, images, again))
        assert all(torch.equal(t["boxes"], u["boxes"]) for t, u in zip(targets, targets_again))
    assert epoch_batches([(7, 1.0)], 2, 1, 4) != epoch_batches([(7, 1.0)], 2, 1, 5)
    assert sorted(chain.from_iterable(epoch_batches([(7, 1.0)], 2, 1, 4))) == list(range(7))
    assert data.outside == {f"{i}.png": 1 for i in range(7)}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_image(tmp_path, workers, damage):
    scenes = scenes_in(tmp_path, 4)
    path = tmp_path / "2.png"
    whole = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"^{path}: [^\n]*$"):
        list(train_loader(SceneDataset(scenes, train=True), 2, workers, 0, 0))
    data = SceneDataset(scenes, train=True, skip_damaged=True)
    batches = list(train_loader(data, 2, workers, 0, 0))
    assert [len(images) for images, _ in batches] == [2, 2]  # replaced by another scene
    assert list(data.damaged) == ["2.png"] and str(path) in data.damaged["2.png"]


def test_all_images_damaged(tmp_path):
    data = SceneDataset(scenes_in(tmp_path / "a", 3), train=True, skip_damaged=True)
    for scene in data.scenes:
        Path(scene.path).write_bytes(b"")
    with pytest.raises(UserError, match="2 more: every image"):
        list(train_loader(data, 2, 0, 0, 0))


def test_a_very_narrow_image_is_refused(tmp_path):
    Image.new("RGB", (1, 60)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="a.png: expected .* at most 50 times .* found 1 x 60"):
        read_pixels(tmp_path / "a.png", upright=False)


def test_golden_counts():
    for name, root in (("CUHK-SYSU", "cuhk"), ("PRW", "prw")):
        data = load_dataset(name, str(Path(__file__).parent / "golden/eval" / root))
        assert (len(data.train), len(data.gallery), len(data.queries)) == (30, 120, 30)
        assert data.num_pids == 26 and sum(len(s.boxes) for s in data.gallery) == 426
        assert len(data.protocol().query) == 195
