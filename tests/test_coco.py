"""Custom data in the form of COCO: identities, protocols and errors."""

import json
import os
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from datasets import UNLABELED, load_dataset
from datasets.loaders import SceneDataset
from datasets.synthetic import write_dataset
from tests.annotations import write_image, write_own
from tests.training import CONFIG, Run
from utils.errors import UserError

BOX = (5, 6, 20, 30)
TRAIN = {
    "images/a b.jpg": [(900, *BOX), (-1, 1, 1, 9, 9), (None, 2, 2, 9, 9)],
    "images/ä.jpg": [("12", -3, 2, 9, 9), (7, 1, 1, 0, 5)],
    "images/c.jpg": [(12, *BOX), ("Zoë", 9, 9, 5, 5)],
}
TEST = {
    "gate/1.jpg": [("p", *BOX), (12, 1, 1, 20, 20)],
    "gate/2.jpg": [("p", 3, 3, 30, 30), (-2, 1, 1, 5, 5)],
    "gate/3.jpg": [],
    "hall/1.jpg": [("p", 4, 4, 9, 9), ("q", *BOX), ("r", -9, 1, 5, 5)],
}


def gate_or_hall(name: str) -> str:
    return name.split("/")[0]


@pytest.fixture
def own(tmp_path):
    write_own(tmp_path, TRAIN, TEST, gate_or_hall)
    return tmp_path


def load(root: Path):
    return load_dataset("COCO", str(root))


def edit(root: Path, change, file: str = "test.json") -> None:
    content = json.loads((root / file).read_text())
    content = change(content) or content
    (root / file).write_text(json.dumps(content))


def test_labels_names_and_cameras(own):
    data = load(own)
    assert [s.pids.tolist() for s in data.train] == [[2, UNLABELED, UNLABELED], [1], [1, 3]]
    assert data.num_pids == 3 and [s.name for s in data.train] == list(TRAIN)
    assert all(Path(s.path).is_file() for s in data.train + data.gallery)
    assert data.train[1].boxes.tolist() == [[0, 2, 6, 11]]
    assert data.dropped == {
        "train: box without area, dropped": 1,
        "train: negative corner, clipped": 1,
        "test: box outside the image, dropped": 1,
        "person in train.json and in test.json": 1,
    }
    assert [s.camera for s in data.gallery] == [1, 1, 1, 2]
    assert [s.pids.tolist() for s in data.gallery] == [[2, 1], [2, UNLABELED], [], [2, 3]]


def test_chosen_queries_are_the_largest_box_in_each_camera(own):
    queries = load(own).queries
    assert [(q.scene, q.pid, q.box.tolist()) for q in queries] == [
        (1, 2, [3, 3, 33, 33]),
        (3, 2, [4, 4, 13, 13]),
    ]


def test_protocols(own):
    data = load(own)
    assert data.choices() == [{"gallery_size": -1}, {"gallery_size": -1, "cross_camera": True}]
    whole = data.protocol(-1)
    assert whole.listed.tolist() == [[1, 0, 1, 1], [1, 1, 1, 0]] and whole.size == -1
    assert (whole.query.tolist(), whole.image.tolist()) == ([0, 0, 1, 1], [0, 3, 0, 1])
    assert data.protocol(3).listed.tolist() == whole.listed.tolist()  # none is left out
    across = data.protocol(-1, cross_camera=True)
    assert across.listed.tolist() == [[0, 0, 0, 1], [1, 1, 1, 0]]
    assert across.image.tolist() == [3, 0, 1] and across.name == "COCO cross-camera"
    two = data.protocol(2)
    assert two.listed.sum(1).tolist() == [2, 2] and (two.name, two.size) == ("COCO gallery 2", 2)
    assert np.bincount(two.query).tolist() == [1, 1]  # half of two images hold the person


def test_drawn_galleries_are_the_same_each_time_and_hold_the_smaller_ones(tmp_path):
    test = {f"{i}.jpg": [(i % 9, *BOX), (9 + i % 2, *BOX)] for i in range(60)}
    write_own(tmp_path, TRAIN, test)
    data, again = load(tmp_path), load(tmp_path)
    galleries = [data.protocol(size) for size in (4, 12, 40, -1)]
    for gallery, size in zip(galleries, (4, 12, 40, 59)):
        assert (gallery.listed.sum(1) == size).all() and gallery.listed.max() == 1
        assert (gallery.listed == again.protocol(gallery.size).listed).all()
        assert not gallery.listed[np.arange(11), [q.scene for q in data.queries]].any()
    matches = [set(np.bincount(gallery.query).tolist()) for gallery in galleries]
    assert matches == [{2}, {5, 6}, {5, 6, 20}, {5, 6, 29}]  # nine people in 6 or 7, two in 30
    for small, large in pairwise(galleries):
        assert (small.listed <= large.listed).all()
    assert (galleries[1].listed[0] != galleries[1].listed[1]).any()


def test_queries_of_a_file(own):
    (own / "queries.json").write_text("[5, 1]")
    assert [(q.scene, q.box.tolist()) for q in load(own).queries] == [
        (3, [4, 4, 13, 13]),
        (0, [5, 6, 25, 36]),
    ]


@pytest.mark.parametrize(
    "text, said",
    [
        ("[99]", "query 1: expected one annotation 99 in .*test.json, found none"),
        ("[1, 4]", "query 2: annotation 4 has no person_id"),
        ("[7]", r"query 1: annotation 7 has the box \[-9.0, 1.0, 5.0, 5.0\]"),
        ("{}", "expected a list of annotations' ids, found {}"),
        ("[]", r"expected a list of annotations' ids, found \[\]"),
        ("[[1]]", r"query 1: expected a number or a text, found \[1\]"),
        ("[1", "expected JSON"),
    ],
)
def test_bad_queries(own, text, said):
    (own / "queries.json").write_text(text)
    with pytest.raises(UserError, match=f"queries.json: {said}"):
        load(own)


def test_a_query_of_several_annotations_is_refused(own):
    def change(content):
        for row in content["annotations"]:
            row["id"] = 3

    edit(own, change)
    (own / "queries.json").write_text("[3]")
    with pytest.raises(UserError, match=r"queries.json: query 1: .* 3 in .*test\.json, found 7"):
        load(own)


def test_an_image_for_training_and_test_is_counted(tmp_path):
    write_own(tmp_path, TRAIN, TEST | {"images/c.jpg": []})
    assert load(tmp_path).dropped["image in train.json and in test.json"] == 1


def test_ids_as_texts_with_gaps_and_more_of_a_labelling_tool(own):
    def change(content):
        for image in content["images"]:
            image["id"] = f"img {image['id'] * 1000}"
        for row in content["annotations"]:
            row["image_id"] = f"img {row['image_id'] * 1000}"
            row["segmentation"] = [[1, 2, 3]]
        content["info"] = {"year": 2026}
        content["categories"] = [{"id": 0, "name": "car"}, {"id": "1", "name": "Person"}]
        content["annotations"][1]["category_id"] = 0
        content["annotations"][3]["iscrowd"] = 1

    before = [s.pids.tolist() for s in load(own).gallery]
    edit(own, change)
    text = (own / "test.json").read_text()
    (own / "test.json").write_bytes(b"\xef\xbb\xbf" + text.encode())  # a byte order mark
    data = load(own)
    assert before == [[2, 1], [2, UNLABELED], [], [2, 3]]
    assert [s.pids.tolist() for s in data.gallery] == [[1], [1], [], [1, 2]]
    assert data.dropped["test: box of another category than person, dropped"] == 1
    assert data.dropped["test: iscrowd, dropped"] == 1


@pytest.mark.parametrize("folder", ["images", "test"])
def test_images_in_a_folder_that_the_file_leaves_out(tmp_path, folder):
    write_own(tmp_path, TRAIN, {})
    (tmp_path / folder).mkdir(exist_ok=True)
    write_own(tmp_path / folder, {}, TEST)
    (tmp_path / folder / "test.json").rename(tmp_path / "test.json")
    data = load(tmp_path)
    assert [s.path for s in data.gallery] == [str(tmp_path / folder / name) for name in TEST]


def first(content: dict, key: str) -> dict:
    return content[key][0]


BAD = {
    "a list": (lambda c: [1], "expected a list 'images' in an object, found \\[1\\]"),
    "no images": (lambda c: c.pop("images") and None, "expected a list 'images'"),
    "an image that is none": (
        lambda c: c["images"].append(7),
        r"images\[4\]: expected an object, found 7",
    ),
    "an image without id": (
        lambda c: first(c, "images").pop("id") and None,
        r"images\[0\]: expected id, found none",
    ),
    "an image without name": (
        lambda c: first(c, "images").update(file_name=None),
        r"images\[0\]: expected file_name, found null",
    ),
    "a name that is no text": (
        lambda c: first(c, "images").update(file_name=5),
        r"images\[0\]: file_name: expected the name of a file, found 5",
    ),
    "a name with a zero byte": (
        lambda c: first(c, "images").update(file_name="a\0.jpg"),
        r"images\[0\]: file_name: expected the name of a file, found",
    ),
    "a name with half of a character": (
        lambda c: first(c, "images").update(file_name="\ud800.jpg"),
        r"images\[0\]: file_name: expected the name of a file, found",
    ),
    "an id twice": (
        lambda c: first(c, "images").update(id="2"),
        r"images\[1\]: id 2: expected once",
    ),
    "a name twice": (
        lambda c: first(c, "images").update(file_name="gate/2.jpg"),
        r"images\[1\]: file_name gate/2.jpg: expected once",
    ),
    "a camera that is a list": (
        lambda c: first(c, "images").update(camera=[1]),
        r"images\[0\]: camera: expected a number or a text, found \[1\]",
    ),
    "no annotations": (
        lambda c: c.update(annotations={}),
        "expected a list 'annotations' in an object, found {}",
    ),
    "an unknown image": (
        lambda c: first(c, "annotations").update(image_id=55),
        r"annotations\[0\]: image_id 55: no such image",
    ),
    "no box": (
        lambda c: first(c, "annotations").pop("bbox") and None,
        r"annotations\[0\]: expected bbox, found none",
    ),
    "three numbers": (
        lambda c: first(c, "annotations").update(bbox=[1, 2, 3]),
        r"annotations\[0\]: bbox: expected four numbers x y w h, found \[1, 2, 3\]",
    ),
    "a box with NaN": (
        lambda c: first(c, "annotations").update(bbox=[1, 2, 3, float("nan")]),
        r"annotations\[0\]: bbox: expected four numbers x y w h, found .*NaN",
    ),
    "a person who is true": (
        lambda c: first(c, "annotations").update(person_id=True),
        r"annotations\[0\]: person_id: expected a number or a text, found true",
    ),
    "a crowd of many": (
        lambda c: first(c, "annotations").update(iscrowd="many"),
        r'annotations\[0\]: iscrowd: expected 0 or 1, found "many"',
    ),
    "two categories, none of people": (
        lambda c: c.update(categories=[{"id": 1, "name": "Anna"}, {"id": 2, "name": "Ben"}]),
        "categories: expected one, or one that is called person, found Anna, Ben",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_line(own, case):
    change, said = BAD[case]
    edit(own, change)
    with pytest.raises(UserError, match=f"test.json: {said}") as error:
        load(own)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"{", "expected JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[" * 100000, "expected JSON"),
        (b"", "expected JSON"),
    ],
)
def test_what_is_no_json_is_one_line(own, content, said):
    (own / "train.json").write_bytes(content)
    with pytest.raises(UserError, match=f"train.json: {said}"):
        load(own)


def test_a_pipe_is_not_waited_for(own):
    (own / "train.json").unlink()
    os.mkfifo(own / "train.json")
    with pytest.raises(UserError, match="train.json: "):
        load(own)


def test_no_dataset_says_what_is_missing(own):
    (own / "test.json").unlink()
    with pytest.raises(UserError, match=f"no test.json in {own}.*make_synthetic"):
        load(own)


def test_invalid_requests_for_a_protocol(own):
    data = load(own)
    for size in (0, "Occlusion", -2, True):
        with pytest.raises(UserError, match="EVAL_GALLERY_SIZE: "):
            data.protocol(size)
    with pytest.raises(UserError, match=r"queries\.json"):
        data.protocol(query_file="mini.txt")
    edit(own, lambda c: first(c, "images").pop("camera") and None)
    data = load(own)
    assert data.choices() == [{"gallery_size": -1}]
    with pytest.raises(UserError, match="EVAL_CROSS_CAMERA: .* found 1 of 4 without"):
        data.protocol(-1, cross_camera=True)


def test_nobody_is_in_two_images(tmp_path):
    write_own(tmp_path, TRAIN, {"1.jpg": [(1, *BOX), (1, *BOX)], "2.jpg": [(2, *BOX)]})
    with pytest.raises(UserError, match="test.json: .*person_id"):
        load(tmp_path).protocol(-1)


def test_missing_image_is_named_as_the_file_names_it(own):
    (own / "gate/2.jpg").unlink()
    assert load(own).gallery[1].path == str(own / "gate/2.jpg")


def test_boxes_of_phone_pictures_are_where_a_viewer_shows_them(own):
    """Boxes refer to the image after its EXIF orientation is applied, as in labelling tools."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    sideways = Image.new("RGB", (48, 64))
    sideways.paste("white", (0, 20, 10, 64))  # shown at the top, and left of the other 20
    sideways.save(own / "images/c.jpg", exif=exif, quality=100)
    image, _ = SceneDataset(load(own).train)[2]
    assert image.shape == (3, 48, 64)
    assert image[:, :10, :44].min() > 0.9 and image[:, 12:].max() < 0.1


def test_the_table_of_the_guide_becomes_the_files_of_the_guide(tmp_path, monkeypatch):
    """The steps of docs/custom_data.md result in the files shown there."""
    guide = (Path(__file__).parents[1] / "docs/custom_data.md").read_text()
    table = re.search(r"```\n(split,picture.*?)```", guide, re.S)[1]
    program = re.search(r"```python\n(.*?)```", guide, re.S)[1]
    monkeypatch.chdir(tmp_path)
    for name in set(re.findall(r"my pictures/[^,]*", table)):
        write_image(tmp_path / "data/own" / name, (384, 288))
    table += "train,my pictures/IMG 0001.jpg,,,,,\n"
    (tmp_path / "data/own/boxes.csv").write_text(table, encoding="utf-8-sig")
    exec(program, {})
    data = load(tmp_path / "data/own")
    assert [s.pids.tolist() for s in data.train] == [[1, 2], [1]] and data.num_pids == 2
    assert [s.pids.tolist() for s in data.gallery] == [[1], [1, UNLABELED]] and data.queries
    assert data.gallery[0].boxes.tolist() == [[116, 51, 138, 116]]
    assert {s.camera for s in data.train + data.gallery} == {1}


@pytest.mark.slow
def test_training_and_evaluation(tmp_path):
    """The evaluations use drawn galleries and other cameras."""
    write_dataset(str(tmp_path / "data"), "coco", 9, 20, 3, (112, 64), workers=1, progress=False)
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    own = ["INPUT.DATASET", "COCO", "EVAL_GALLERY_SIZE", "[2, 3, -1]"]
    root = tmp_path / "data/COCO"
    started = Run(tmp_path, "out", *own, "SOLVER.MAX_EPOCHS", "1", root=root)
    assert started.wait() == 0, started.text
    again = ["--eval", "--ckpt", str(tmp_path / "out/best.pth"), "EVAL_CROSS_CAMERA", "True"]
    evaluated = Run(tmp_path, "out", *again, *own, root=root)
    assert evaluated.wait() == 0, evaluated.text
    results = json.loads((tmp_path / "out/results.json").read_text())
    names = [gallery["name"] for gallery in results["galleries"]]
    assert names[0] == "COCO cross-camera gallery 2" and results["protocol"]["queries"] == 3
    assert names[-1] == "COCO cross-camera"


def identities(root: Path, split: str = "train") -> list:
    data = load(root)
    return [scene.pids.tolist() for scene in (data.train if split == "train" else data.gallery)]


@pytest.mark.parametrize("key", ["attributes.person_id", "track_id", "attributes.track_id"])
def test_identities_where_annotation_tools_keep_them(own, key):
    """Identities are read from `attributes`, as Datumaro and CVAT write them, or from track ids.
    Annotation ids are not identities."""
    before = identities(own)

    def change(content):
        for row in content["annotations"]:
            person = row.pop("person_id", None)
            inside = row.setdefault("attributes", {}) if "." in key else row
            inside[key.rpartition(".")[2]] = person
            row["id"] = 1

    edit(own, change, "train.json")
    assert identities(own) == before
    assert load(own).dropped[f"train: identity taken from {key}"] == 5


def test_a_person_who_has_left_a_video_is_not_boxed(own):
    edit(own, lambda c: first(c, "annotations").update(attributes={"outside": True}), "train.json")
    data = load(own)
    assert [len(scene.boxes) for scene in data.train] == [2, 1, 2]
    assert [number for why, number in data.dropped.items() if "attributes.outside" in why] == [1]


def test_a_rotated_box_of_cvat_becomes_the_box_around_it(own):
    path = own / "test.json"
    content = json.loads(path.read_text())
    content["annotations"][0] |= {"bbox": [20, 10, 20, 10], "attributes": {"rotation": 90.0}}
    path.write_text(json.dumps(content))
    first = load_dataset("COCO", str(own)).gallery[0]
    np.testing.assert_allclose(first.boxes[0], [25, 5, 35, 25], atol=1e-3)


def test_keys_that_are_not_taken_for_identities_are_named(own):
    def change(content):
        for row in content["annotations"]:
            row.pop("person_id", None)
            row["attributes"] = {"who": "Anna", "occluded": False}

    edit(own, change, "train.json")
    assert any("attributes.who" in why and number == 7 for why, number in load(own).dropped.items())


@pytest.mark.parametrize("empty", ["nan", "NaN", "None", "null", "", float("nan"), None])
def test_an_empty_cell_names_nobody(own, empty):
    edit(own, lambda c: first(c, "annotations").update(person_id=empty), "train.json")
    assert identities(own)[0] == [UNLABELED] * 3


def test_two_categories_of_one_name(own):
    def change(content):
        content["categories"] = [{"id": 1, "name": "person"}, {"id": 2, "name": "Person "}]
        content["categories"].append({"id": 3, "name": "car"})
        content["annotations"][0]["category_id"] = 2
        content["annotations"][1]["category_id"] = 3

    edit(own, change, "train.json")
    assert [len(scene.boxes) for scene in load(own).train] == [2, 1, 2]


def test_shares_of_a_picture_are_refused(own):
    def change(content):
        for row in content["annotations"]:
            row["bbox"] = [0.25, 0.5, 0.125, 0.5]

    edit(own, change, "train.json")
    with pytest.raises(UserError, match="train.json: bbox: expected pixels"):
        load(own)


def test_boxes_of_another_size_of_the_picture_are_refused(own):
    edit(own, lambda c: first(c, "images").update(width=640, height=480), "train.json")
    scenes = SceneDataset(load(own).train)
    with pytest.raises(UserError, match="a b.jpg: expected 640 x 480 pixels.* 64 x 48"):
        scenes[0]
    edit(own, lambda c: first(c, "images").update(width=64, height=48), "train.json")
    assert SceneDataset(load(own).train)[0][0].shape == (3, 48, 64)


@pytest.mark.parametrize("name", [r"images\a b.jpg", "images/a%20b.jpg", "a b.jpg"])
def test_names_as_tools_write_them(own, name):
    edit(own, lambda c: first(c, "images").update(file_name=name), "train.json")
    assert [Path(s.path).name for s in load(own).train] == ["a b.jpg", "ä.jpg", "c.jpg"]
    assert all(Path(scene.path).is_file() for scene in load(own).train)


@pytest.mark.parametrize("folder", ["data", "images", "images/train", "train"])
def test_a_stray_picture_in_the_root_is_not_taken(own, folder):
    (own / "images").rename(own / "away")
    moved = own / folder / "moved"
    moved.parent.mkdir(parents=True)
    (own / "away").rename(moved)
    (own / "moved").mkdir()
    write_image(own / "moved/c.jpg")

    def change(content):
        for image in content["images"]:
            image["file_name"] = image["file_name"].replace("images/", "moved/")

    edit(own, change, "train.json")
    assert {Path(scene.path).parent for scene in load(own).train} == {moved}
