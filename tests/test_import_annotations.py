"""Files in the forms of annotation tools are converted to custom data."""

import csv
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import UNLABELED, load_dataset
from datasets.importers import read_source
from datasets.importers.records import Options
from tests.annotations import write_image
from tools import import_annotations
from utils.errors import UserError

A, B = [5, 6, 10, 20], [30, 6, 10, 20]  # boxes x y w h in images of 64 x 48


@pytest.fixture
def run(program, tmp_path):
    """Return a function run(*arguments) that imports into `tmp_path / "own"`.

    It returns the exit code and what is printed.
    """

    def call(*arguments) -> tuple[int, str]:
        code, out, err = program(import_annotations.main, *arguments, "--out", tmp_path / "own")
        return code, out + err

    return call


def taken(root: Path) -> dict[str, list[tuple[list[float], str | None]]]:
    """Return the name of every image of both splits, with its boxes and identities."""
    found = {}
    for split in ("train", "test"):
        content = json.loads((root / "own" / f"{split}.json").read_text())
        for image in content["images"]:
            rows = [row for row in content["annotations"] if row["image_id"] == image["id"]]
            name = image["file_name"].split("/", 2)[2]
            found[name] = [(row["bbox"], row.get("person_id")) for row in rows]
    data = load_dataset("COCO", str(root / "own"))
    assert all(Path(scene.path).is_file() for scene in data.train + data.gallery)
    return found


# --- CVAT ---


def cvat_box(xywh: list[float], person: str | None = None, **more) -> str:
    x, y, w, h = xywh
    place = {"xtl": x, "ytl": y, "xbr": x + w, "ybr": y + h, "label": "person"} | more
    inside = f'<attribute name="person_id">{person}</attribute>' if person is not None else ""
    return f"<box {' '.join(f'{k}={str(v)!r}' for k, v in place.items())}>{inside}</box>"


def write_cvat_images(folder: Path, extra: str = "") -> Path:
    for name in ("a 1.jpg", "sub/b.jpg", "c.jpg"):
        write_image(folder / "images" / name)
    (folder / "annotations.xml").write_text(
        f"""<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>
<image id="0" name="a 1.jpg" width="64" height="48">{cvat_box(A, "Anna")}{cvat_box(B, "")}
{cvat_box(B, "Ben", label="car")}{extra}</image>
<image id="1" name="sub/b.jpg" width="64" height="48">{cvat_box(B, "Anna")}</image>
<image id="2" name="c.jpg" width="64" height="48"></image></annotations>"""
    )
    return folder


def test_cvat_images(run, tmp_path):
    code, said = run(write_cvat_images(tmp_path / "shop"))
    assert code == 0 and "shop: left out, " in said and "person: 1" in said
    assert taken(tmp_path) == {
        "a 1.jpg": [(A, "Anna"), (B, None)],
        "sub/b.jpg": [(B, "Anna")],
        "c.jpg": [],
    }
    data = load_dataset("COCO", str(tmp_path / "own"))
    assert data.train[0].pids.tolist() == [1, UNLABELED]


def test_subsets_of_cvat(run, tmp_path):
    """An image whose subset is neither train nor test is divided as usual."""
    folder = write_cvat_images(tmp_path / "shop")
    path = folder / "annotations.xml"
    text = path.read_text()
    for name, subset in (("a 1.jpg", "Validation"), ("sub/b.jpg", "Train"), ("c.jpg", "rest")):
        text = text.replace(f'name="{name}"', f'name="{name}" subset="{subset}"')
    path.write_text(text)
    assert run(folder)[0] == 0
    data = load_dataset("COCO", str(tmp_path / "own"))
    assert [scene.name for scene in data.gallery] == ["images/shop/a 1.jpg"]
    assert {scene.name for scene in data.train} == {"images/shop/sub/b.jpg", "images/shop/c.jpg"}


def test_cvat_shapes(run, tmp_path):
    """Rotated boxes, polygons, ellipses and masks are imported as the boxes around them."""
    shapes = (
        cvat_box([20, 10, 20, 10], "turned", rotation=90)
        + '<polygon label="person" points="1,2;11,2;6,12"/>'
        + '<ellipse label="person" cx="20" cy="20" rx="5" ry="10"/>'
        + '<mask label="person" left="3" top="4" width="7" height="8" rle="1, 2"/>'
        + '<points label="person" points="1,2;3,4"/><tag label="crowded"/>'
    )
    code, said = run(write_cvat_images(tmp_path / "shop", shapes))
    assert code == 0 and "points: 1" in said
    boxes = [xywh for xywh, _ in taken(tmp_path)["a 1.jpg"]]
    assert boxes[2:] == [[25, 5, 10, 20], [1, 2, 10, 10], [15, 10, 10, 20], [3, 4, 7, 8]]


def write_cvat_video(folder: Path, attribute: str | None = None, step: str = "") -> Path:
    """Write a video task with two people in frames 0 to 5.

    The first person leaves at frame 3. The second one is annotated only at frames 1 and 4.
    """
    tracks = "".join(
        f'<track id="{track}" label="person">'
        + "".join(
            cvat_box(xywh, attribute, frame=frame, outside=int(out), keyframe=1)
            for frame, xywh, out in boxes
        )
        + "</track>"
        for track, boxes in enumerate(
            [
                [(0, A, 0), (1, A, 0), (2, [8, 6, 10, 20], 0), (3, [8, 6, 10, 20], 1)],
                [(1, B, 0), (4, [36, 6, 10, 20], 0), (5, [36, 6, 10, 20], 1)],
            ]
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "annotations.xml").write_text(
        "<annotations><version>1.1</version><meta><task><id>7</id><name>w</name><size>6</size>"
        f"<mode>interpolation</mode><frame_filter>{step}</frame_filter><source>walk.mp4</source>"
        f"<original_size><width>64</width><height>48</height></original_size></task></meta>{tracks}"
        "</annotations>"
    )
    return folder


VIDEO = [
    [(A, "gate/0")],
    [(A, "gate/0"), (B, "gate/1")],
    [([8, 6, 10, 20], "gate/0"), ([32, 6, 10, 20], "gate/1")],
    [([34, 6, 10, 20], "gate/1")],
    [([36, 6, 10, 20], "gate/1")],
    [],
]


@pytest.mark.parametrize("name", ["images/frame_{:06d}.PNG", "img/shot_{:03d}.jpg"])
def test_cvat_video(run, tmp_path, name):
    """Tracks are identities, people who have left have no box, and boxes between keyframes are
    interpolated."""
    folder = write_cvat_video(tmp_path / "gate")
    for frame in range(6):
        write_image(folder / name.format(frame))
    code, said = run(folder)
    assert code == 0 and "gate: left out, " in said and "(outside): 2" in said
    assert list(taken(tmp_path).values()) == VIDEO
    data = load_dataset("COCO", str(tmp_path / "own"))
    assert {scene.camera for scene in data.train + data.gallery} == {1}


@pytest.mark.parametrize("kind", ["task", "job"])
def test_boxes_of_a_cvat_video_with_steps(tmp_path, kind):
    """Boxes are interpolated in the frames of the task or job only, here every third one."""
    folder = write_cvat_video(tmp_path / "gate", step="step=3")
    path = folder / "annotations.xml"
    path.write_text(path.read_text().replace("task>", f"{kind}>"))
    (labels,) = read_source(folder, Options())
    assert labels.video == "walk.mp4" and {image.size for image in labels.images} == {(64, 48)}
    boxes = {image.frame: len(image.boxes) for image in labels.images}
    assert boxes == {0: 1, 1: 2, 2: 1, 3: 0, 4: 1, 5: 0}


@pytest.mark.parametrize("numbers", [range(5), range(5, 11)])
def test_images_that_cannot_be_the_frames_of_a_video(run, tmp_path, numbers):
    """They are too few for the frames 0 to 5, or in another order by name than by number."""
    folder = write_cvat_video(tmp_path / "gate")
    for number in numbers:
        write_image(folder / f"{number}.jpg")
    code, said = run(folder)
    assert code == 2 and f"found {len(numbers)} images" in said
    assert not (tmp_path / "own").exists()


def test_cvat_video_from_the_video_itself(run, tmp_path):
    pytest.importorskip("av")
    from tests.videos import write_video

    folder = write_cvat_video(tmp_path / "gate")
    write_video(folder / "walk.mp4", [np.full((48, 64, 3), 40 * i, np.uint8) for i in range(6)])
    code, _ = run(folder / "annotations.xml", "--every", "2")
    assert code == 0
    assert taken(tmp_path) == {f"frame_{i:06d}.jpg": VIDEO[i] for i in (0, 2, 4)}
    shown = np.asarray(Image.open(tmp_path / "own/images/gate/frame_000004.jpg")).mean()
    assert abs(shown - 160) < 8


def test_videos_of_one_name(run, tmp_path):
    """A file's video is the one in its own folder; another one could fit by chance."""
    pytest.importorskip("av")
    from tests.videos import write_video

    for name, tone in (("gate", 40), ("hall", 200)):
        folder = write_cvat_video(tmp_path / "all" / name)
        write_video(folder / "walk.mp4", [np.full((48, 64, 3), tone, np.uint8)] * 6)
    code, _ = run(tmp_path / "all")
    assert code == 0
    for name, tone in (("gate", 40), ("hall", 200)):
        (path,) = (tmp_path / "own/images").glob(f"*{name}*/frame_000000.jpg")
        assert abs(np.asarray(Image.open(path)).mean() - tone) < 8
    folder = write_cvat_video(tmp_path / "other")
    shutil.rmtree(tmp_path / "own")
    code, said = run(folder, "--images", tmp_path / "all")
    assert code == 2 and "walk.mp4 and " in said and not (tmp_path / "own").exists()


def test_the_video_of_a_file_counts_before_the_frames_of_another_one(run, tmp_path):
    """Frames of different videos have equal names."""
    pytest.importorskip("av")
    from tests.videos import write_video

    folder = write_cvat_video(tmp_path / "gate")
    write_video(folder / "walk.mp4", [np.full((48, 64, 3), 40, np.uint8)] * 6)
    for frame in range(6):
        write_image(folder / f"earlier/frame_{frame:06d}.jpg")
    assert run(folder)[0] == 0
    for path in (tmp_path / "own/images/gate").iterdir():
        assert abs(np.asarray(Image.open(path)).mean() - 40) < 8


@pytest.mark.parametrize("others", [["gate/6.png"], ["hall/0.png"]])
def test_more_images_than_frames(run, tmp_path, others):
    """Which of them are the frames is unknown."""
    folder = write_cvat_video(tmp_path / "shop")
    for name in [f"gate/{frame}.png" for frame in range(6)] + others:
        write_image(folder / name)
    code, said = run(folder)
    assert code == 2 and "found 7 images" in said and not (tmp_path / "own").exists()


def test_names_count_before_tracks(run, tmp_path):
    """An attribute person_id of tracks denotes the same person in every source."""
    for name in ("gate", "hall"):
        folder = write_cvat_video(tmp_path / name, attribute="Anna")
        for frame in range(6):
            write_image(folder / f"frame_{frame:06d}.jpg")
    code, _ = run(tmp_path / "gate", tmp_path / "hall", "--test", "hall")
    assert code == 0
    data = load_dataset("COCO", str(tmp_path / "own"))
    assert data.num_pids == 1 and [scene.camera for scene in data.gallery] == [2] * 6


def test_a_key_that_no_box_has_is_refused(run, tmp_path):
    """The tracks of the video must not be used in its place."""
    folder = write_cvat_video(tmp_path / "gate", attribute="Anna")
    for frame in range(6):
        write_image(folder / f"frame_{frame:06d}.jpg")
    code, said = run(folder, "--person-key", "who")
    assert code == 2 and "--person-key who: " in said and not (tmp_path / "own").exists()
    assert run(folder, "--person-key", "person_id")[0] == 0


def test_names_of_sources_differ_by_more_than_case(run, tmp_path):
    sources = [write_cvat_images(tmp_path / place) for place in ("a/shop", "b/Shop", "c/shop")]
    assert run(*sources)[0] == 0
    assert {path.name for path in (tmp_path / "own/images").iterdir()} == {
        "shop",
        "Shop-2",
        "shop-3",
    }


def test_names_of_sources_in_other_scripts(run, tmp_path):
    sources = []
    for name in ("街", "广场"):
        write_image(tmp_path / f"set/{name}.jpg")
        content = coco([f"{name}.jpg"], [[(A, {"person_id": 1})]])
        sources.append(write(tmp_path / f"set/{name}.json", content))
    assert run(*sources, "--test", "广场")[0] == 0
    assert {path.name for path in (tmp_path / "own/images").iterdir()} == {"街", "广场"}


@pytest.mark.parametrize("shared", [False, True])
def test_tracks_of_several_sources(run, tmp_path, shared):
    for name in ("gate", "hall"):
        folder = write_cvat_video(tmp_path / name)
        for frame in range(6):
            write_image(folder / f"frame_{frame:06d}.jpg")
    run(tmp_path / "gate", tmp_path / "hall", *(["--shared-identities"] if shared else []))
    content = [json.loads((tmp_path / f"own/{one}.json").read_text()) for one in ("train", "test")]
    people = {row["person_id"] for one in content for row in one["annotations"]}
    apart = {f"{name}/{track}" for name in ("gate", "hall") for track in (0, 1)}
    assert people == ({"0", "1"} if shared else apart)


def make_zip(folder: Path, path: Path) -> Path:
    """Move the content of a folder to an archive, and return its path."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    shutil.rmtree(folder)
    return path


def write_project(folder: Path) -> Path:
    """Write a project of the video tasks gate and hall, each with one person in frame 2."""
    write_cvat_video(folder)
    text = (folder / "annotations.xml").read_text()
    metas = "".join(
        f"<task><id>{id}</id><name>{name}</name><source>{name}.mp4</source></task>"
        for id, name in ((7, "gate"), (8, "hall"))
    )
    head = text[: text.index("<meta>")]
    text = f"{head}<meta><project><tasks>{metas}</tasks></project></meta>"
    tracks = (
        f'<track id="{task}" task_id="{task}" label="person">{cvat_box(A, frame=2)}</track>'
        for task in (7, 8)
    )
    (folder / "annotations.xml").write_text(text + "".join(tracks) + "</annotations>")
    return folder


def test_a_zip(run, tmp_path):
    code, _ = run(make_zip(write_cvat_images(tmp_path / "content"), tmp_path / "shop.zip"))
    assert code == 0
    assert taken(tmp_path) == {
        "a 1.jpg": [(A, "Anna"), (B, None)],
        "sub/b.jpg": [(B, "Anna")],
        "c.jpg": [],
    }
    assert (tmp_path / "own/images/shop/c.jpg").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"own", "shop.zip"}


def test_a_project_of_several_tasks(run, tmp_path):
    pytest.importorskip("av")
    from tests.videos import write_video

    folder = write_project(tmp_path / "project")
    for name, tone in (("gate", 40), ("hall", 200)):
        write_video(folder / f"{name}.mp4", [np.full((48, 64, 3), tone, np.uint8)] * 6)
    code, _ = run(make_zip(folder, tmp_path / "export.zip"), "--test", "hall")
    assert code == 0
    for name, split, person, tone in (
        ("gate", "train", "gate/7", 40),
        ("hall", "test", "hall/8", 200),
    ):
        content = json.loads((tmp_path / f"own/{split}.json").read_text())
        assert [row["person_id"] for row in content["annotations"]] == [person]
        (image,) = content["images"]
        assert image["file_name"] == f"images/{name}/frame_000002.jpg" and image["camera"] == name
        shown = np.asarray(Image.open(tmp_path / "own" / image["file_name"])).mean()
        assert abs(shown - tone) < 8


def test_one_image_cannot_be_of_two_videos(run, tmp_path):
    folder = write_project(tmp_path / "project")
    write_image(folder / "images/frame_000002.png")
    code, said = run(folder, "--test", "hall")
    assert code == 2 and "gate" in said and not (tmp_path / "own").exists()


# --- COCO and Datumaro ---


def coco(images: list[str], people: list[list[tuple[list[float], dict]]], **more) -> dict:
    """Return the content of a file; for each image, its boxes and their other keys."""
    return {
        "images": [
            {"id": number, "file_name": name, "width": 64, "height": 48}
            for number, name in enumerate(images, 1)
        ],
        "categories": [{"id": 1, "name": "person", "supercategory": ""}],
        "annotations": [
            {"id": 1, "image_id": number, "category_id": 1, "bbox": xywh, "iscrowd": 0} | keys
            for number, rows in enumerate(people, 1)
            for xywh, keys in rows
        ],
    } | more


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def attributes(**keys) -> dict:
    return {"attributes": {"occluded": False} | keys}


def test_datumaro_coco_of_images(run, tmp_path):
    """Images are in images/SUBSET/, and files of other kinds contain the same boxes."""
    folder = tmp_path / "shop"
    content = coco(["a 1.jpg", "sub/b.jpg"], [[(A, attributes(person_id="Anna"))]] * 2)
    for kind in ("instances", "stuff"):
        write(folder / f"annotations/{kind}_default.json", content)
    write(folder / "annotations/image_info_default.json", content | {"annotations": []})
    for name in ("a 1.jpg", "sub/b.jpg"):
        write_image(folder / "images/default" / name)
    code, _ = run(folder)
    assert code == 0
    assert taken(tmp_path) == {"a 1.jpg": [(A, "Anna")], "sub/b.jpg": [(A, "Anna")]}


def test_datumaro_coco_of_a_video(run, tmp_path):
    """The frames are named frame_000000.png whatever the images' names are; a track ends with a box
    marked as outside."""
    rows = [
        [(A, attributes(track_id=0, outside=False))],
        [(A, attributes(track_id=0, outside=False)), (B, attributes(track_id=1, outside=False))],
        [(A, attributes(track_id=0, outside=True)), (B, attributes(track_id=1, outside=False))],
    ]
    content = coco([f"frame_{i:06d}.png" for i in range(3)], rows)
    write(tmp_path / "gate/annotations/instances_default.json", content)
    for frame in range(3):
        write_image(tmp_path / f"gate/shots/{frame + 1:04d}.jpg")
    code, said = run(tmp_path / "gate")
    assert code == 0 and "attributes.outside" in said
    a, b = (A, "gate/0"), (B, "gate/1")
    assert taken(tmp_path) == {"0001.jpg": [a], "0002.jpg": [a, b], "0003.jpg": [b]}


def test_datumaro_json(run, tmp_path):
    def shape(xywh, **keys):
        return {"type": "bbox", "bbox": xywh, "label_id": 1, "attributes": keys}

    items = [
        {
            "id": f"frame_{i:06d}",
            "annotations": [shape(A, track_id=0), shape(B, track_id=1, outside=i == 1)],
            "image": {"path": f"frame_{i:06d}.png", "size": [48, 64]},
        }
        for i in range(2)
    ]
    items[0]["annotations"].append({"type": "points", "points": [1, 2], "label_id": 1})
    polygon = {"type": "polygon", "points": [1, 2, 11, 2, 6, 12], "label_id": 1}
    items[0]["annotations"].append(polygon)
    labels = {"label": {"labels": [{"name": "car"}, {"name": "Person"}]}}
    write(tmp_path / "gate/annotations/default.json", {"items": items, "categories": labels})
    for i in range(2):
        write_image(tmp_path / f"gate/images/default/frame_{i:06d}.jpg")
    code, said = run(tmp_path / "gate")
    assert code == 0 and "points: 1" in said
    a, b = (A, "gate/0"), (B, "gate/1")
    assert taken(tmp_path) == {
        "frame_000000.jpg": [a, b, ([1, 2, 10, 10], None)],
        "frame_000001.jpg": [a],
    }


def test_fiftyone(run, tmp_path):
    content = coco(["a.jpg", "b.jpg"], [[(A, {"person_id": "Anna"}), (B, {})]] * 2)
    path = write(tmp_path / "set/labels.json", content)
    for name in ("a.jpg", "b.jpg"):
        write_image(path.parent / "data" / name)
    code, _ = run(path)
    assert code == 0
    assert taken(tmp_path) == {n: [(A, "Anna"), (B, None)] for n in ("a.jpg", "b.jpg")}
    assert (tmp_path / "own/images/set/a.jpg").is_file()


def test_splits_of_roboflow(run, tmp_path):
    for split in ("train", "valid", "test"):
        content = coco([f"{split}.jpg"], [[(A, {"person_id": 7.0})]])
        write(tmp_path / f"set/{split}/_annotations.coco.json", content)
        write_image(tmp_path / f"set/{split}/{split}.jpg")
    code, _ = run(tmp_path / "set")
    assert code == 0
    data = load_dataset("COCO", str(tmp_path / "own"))
    assert [Path(scene.name).name for scene in data.train] == ["train.jpg"]
    assert [Path(scene.name).name for scene in data.gallery] == ["test.jpg", "valid.jpg"]


def test_another_key_and_other_labels(run, tmp_path):
    content = coco(
        ["a.jpg", "b.jpg"], [[(A, attributes(who="Anna")), (B, attributes(who="x"))]] * 2
    )
    content["categories"] = [{"id": 1, "name": "worker"}, {"id": 2, "name": "visitor"}]
    content["annotations"][1]["category_id"] = 2
    path = write(tmp_path / "set/labels.json", content)
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / "set" / name)
    code, said = run(path, "--label", "Worker")
    assert code == 2 and "attributes.who" in said
    assert run(path, "--person-key", "who")[0] == 2  # neither label is called person
    code, _ = run(path, "--person-key", "who", "--label", "Worker")
    assert code == 0 and taken(tmp_path)["a.jpg"] == [(A, "Anna")]


@pytest.mark.parametrize("key", ["person_id", "track_id"])
def test_coco_of_a_video(run, tmp_path, key):
    """The frames are those of the video, whatever identifies the people."""
    pytest.importorskip("av")
    from tests.videos import write_video

    rows = [[(A, attributes(**{key: 7}))]] * 4
    content = coco([f"frame_{i:06d}.png" for i in range(4)], rows)
    path = write(tmp_path / "gate/gate.json", content)
    write_video(path.parent / "any.mp4", [np.full((48, 64, 3), 40 * i, np.uint8) for i in range(4)])
    assert run(path, "--every", "3")[0] == 0
    person = "7" if key == "person_id" else "gate/7"
    assert taken(tmp_path) == {f"frame_{i:06d}.jpg": [(A, person)] for i in (0, 3)}
    data = load_dataset("COCO", str(tmp_path / "own"))
    assert [scene.camera for scene in data.train + data.gallery] == [1, 1]


@pytest.mark.parametrize("key", ["person_id", "track_id"])
def test_coco_of_several_videos(run, tmp_path, key):
    """Each video is a camera, and a track is one within its video."""
    names = [f"{video}/{i}.png" for video in ("gate", "hall") for i in range(2)]
    content = coco(names, [[(A, {key: 1})]] * 4)
    content["videos"] = [{"id": 1, "name": "gate"}, {"id": 2, "name": "hall"}]
    for number, image in enumerate(content["images"]):
        image["video_id"] = 1 + number // 2
        write_image(tmp_path / "all" / image["file_name"])
    code, _ = run(write(tmp_path / "all/labels.json", content), "--test", "hall")
    assert code == 0
    data = load_dataset("COCO", str(tmp_path / "own"))
    assert [[scene.camera for scene in some] for some in (data.train, data.gallery)] == [
        [1, 1],
        [2, 2],
    ]
    for split, name in (("train", "gate"), ("test", "hall")):
        rows = json.loads((tmp_path / f"own/{split}.json").read_text())["annotations"]
        person = "1" if key == "person_id" else f"{name}/1"
        assert [row["person_id"] for row in rows] == [person] * 2


@pytest.mark.parametrize("missing", ["cam1/1.jpg", "cam2/1.jpg"])
@pytest.mark.parametrize("annotated", [True, False])
def test_a_missing_image_does_not_get_another_one_of_its_name(run, tmp_path, missing, annotated):
    """It does not, whether the other one is annotated or not."""
    present = ["cam1/2.jpg", "cam2/2.jpg", f"cam{3 - int(missing[3])}/1.jpg"]
    names = [missing, *present] if annotated else [missing, *present[:2]]
    rows = [[(A, {"person_id": name})] for name in names]
    path = write(tmp_path / "shop/labels.json", coco(names, rows))
    for name in present:
        write_image(path.parent / "images" / name)
    code, said = run(path)
    assert code == 0 and f"missing image: 1 (first: {missing})" in said
    assert {name: person for name, [(_, person)] in taken(tmp_path).items()} == {
        name: name for name in names[1:]
    }


def test_a_missing_subset_does_not_get_the_images_of_another_one(run, tmp_path):
    """The images of two subsets have equal names."""
    for subset in ("train", "val"):
        content = coco(["1.jpg", "2.jpg"], [[(A, {"person_id": subset})]] * 2)
        write(tmp_path / f"set/annotations/instances_{subset}.json", content)
    for name in ("val/1.jpg", "val/2.jpg"):
        write_image(tmp_path / "set/images" / name)
    code, said = run(tmp_path / "set", "--test-share", "0.5")
    assert code == 2 and "instances_train.json" in said and "2 of missing image" in said


def test_scores_and_crowds_are_kept(run, tmp_path):
    rows = [(A, {"person_id": 1, "score": 0.7}), (B, {"iscrowd": 1})]
    path = write(tmp_path / "shop/labels.json", coco(["a.jpg", "b.jpg"], [rows, rows]))
    for name in ("a.jpg", "b.jpg"):
        write_image(path.parent / name)
    code, said = run(path)
    assert code == 0 and "target: 2" in said and "ignore region: 2" in said
    content = json.loads((tmp_path / "own/train.json").read_text())
    assert [row.get("score") for row in content["annotations"]] == [0.7, None]
    assert [row["iscrowd"] for row in content["annotations"]] == [0, 1]
    (scene,) = load_dataset("COCO", str(tmp_path / "own")).train
    assert np.allclose(scene.scores, [0.7, 0])


def test_a_label_needs_categories(run, tmp_path):
    content = coco(["a.jpg"], [[(A, {"person_id": 1})]])
    del content["categories"]
    write_image(tmp_path / "shop/a.jpg")
    code, said = run(write(tmp_path / "shop/labels.json", content), "--label", "car")
    assert code == 2 and "labels.json: " in said and "car" in said


def test_cameras_of_videos_and_of_names(run, tmp_path):
    """--camera finds the cameras of images; a video is a camera in any case."""
    names = ["c1_a.jpg", "c2_a.jpg"]
    shop = write(tmp_path / "shop/labels.json", coco(names, [[(A, {"person_id": 1})]] * 2))
    frames = [f"frame_{i:06d}.jpg" for i in range(2)]
    gate = write(tmp_path / "gate/gate.json", coco(frames, [[(A, {"person_id": 1})]] * 2))
    for path, some in ((shop, names), (gate, frames)):
        for name in some:
            write_image(path.parent / name)
    assert run(shop, gate, "--camera", r"(c\d)_", "--test-share", "0.5")[0] == 0
    cameras = [
        [
            image["camera"]
            for image in json.loads((tmp_path / f"own/{split}.json").read_text())["images"]
        ]
        for split in ("train", "test")
    ]
    assert cameras == [["c1", "gate"], ["c2", "gate"]]


# --- Label Studio ---


def region(id: str, xywh: list[float], person: str | None, label: str = "person") -> list[dict]:
    """Return a rectangle in per cent of the image, and the text that belongs to it."""
    x, y, w, h = xywh
    value = {"x": x / 0.64, "y": y / 0.48, "width": w / 0.64, "height": h / 0.48, "rotation": 0}
    about = {"id": id, "original_width": 64, "original_height": 48, "to_name": "image"}
    rows = [
        about
        | {"type": "rectanglelabels", "from_name": "label"}
        | {"value": value | {"rectanglelabels": [label]}}
    ]
    if person:
        text = {"type": "textarea", "from_name": "person_id", "value": value | {"text": [person]}}
        rows.append(about | text)
    return rows


def tasks() -> list[dict]:
    rows = [
        [*region("r1", A, None), *region("r2", B, "Anna"), *region("r3", A, None, "car")],
        region("r4", A, "Anna"),
        [],
    ]
    names = ["/data/upload/1/1a2b3c4d-a_1.jpg", "/data/local-files/?d=shots%2F%C3%A4.jpg"]
    names.append("s3://bucket/shots/c.jpg")
    return [
        {
            "id": number,
            "data": {"image": name, "camera": "gate"},
            "annotations": [
                {"id": 1, "result": region("old", B, "Zoe"), "updated_at": "2024-01-01"},
                {"id": 2, "result": result, "updated_at": "2025-01-01"},
                {"id": 3, "result": [], "updated_at": "2026-01-01", "was_cancelled": True},
            ],
        }
        for number, (name, result) in enumerate(zip(names, rows), 1)
    ] + [{"id": 9, "data": {"image": "a_9.jpg"}, "annotations": [], "predictions": [{}]}]


@pytest.fixture
def shots(tmp_path):
    for name in ("a_1.jpg", "shots/ä.jpg", "shots/c.jpg", "a_9.jpg"):
        write_image(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def near(rows: list[tuple[list[float], str | None]]) -> list[tuple[list[int], str | None]]:
    return [([round(value) for value in xywh], person) for xywh, person in rows]


def test_label_studio_json(run, tmp_path, shots):
    code, said = run(write(tmp_path / "labels.json", tasks()), "--images", shots)
    assert code == 0 and "annotation: 1" in said
    found = taken(tmp_path)
    assert list(found) == ["a_1.jpg", "shots/ä.jpg", "shots/c.jpg"]
    assert near(found["a_1.jpg"]) == [(A, None), (B, "Anna")]  # the text's own region
    assert near(found["shots/ä.jpg"]) == [(A, "Anna")] and not found["shots/c.jpg"]
    data = load_dataset("COCO", str(tmp_path / "own"))
    assert {scene.camera for scene in data.train + data.gallery} == {1}


@pytest.mark.parametrize(
    "field, person",
    [
        ({"type": "textarea", "value": {"text": ["Anna"]}}, "Anna"),
        ({"type": "choices", "value": {"choices": ["Anna"]}}, "Anna"),
        ({"type": "number", "value": {"number": 7}}, "7"),
        ({"type": "taxonomy", "value": {"taxonomy": [["staff", "Anna"]]}}, "staff Anna"),
        ({"type": "rating", "value": {"rating": 3}}, "3"),
        ({"type": "choices", "from_name": "pose", "value": {"choices": ["left"]}}, None),
    ],
)
def test_label_studio_fields(tmp_path, field, person):
    """The identity is in a field of the region with the name person_id, of any kind."""
    (task,) = tasks()[:1]
    task["annotations"][1]["result"] = [
        *region("r1", A, None),
        {"id": "r1", "from_name": "person_id", "to_name": "image"} | field,
    ]
    path = write(tmp_path / "labels.json", [task])
    assert [box.name for box in read_source(path, Options())[0].images[0].boxes] == [person]


def test_label_studio_notes_and_ground_truth(tmp_path):
    """The notes of a region are its identity if no field is; an annotation that is marked as the
    truth counts before newer ones."""
    (task,) = tasks()[:1]
    old, new = task["annotations"][:2]
    old["result"][0]["meta"] = {"text": ["Ben"]}
    old["result"] = old["result"][:1]
    new["result"] = region("r1", A, "Anna")
    path = tmp_path / "labels.json"
    found = []
    for is_true in (False, True):
        old["ground_truth"] = is_true
        labels = read_source(write(path, [task]), Options())[0]
        found.append([(box.name, [round(v) for v in box.xywh]) for box in labels.images[0].boxes])
    assert found == [[("Anna", A)], [("Ben", B)]]


def minimal(rows: list[dict]) -> dict:
    """Return a task in the form JSON_MIN: lists of boxes and of texts, or a single one of each."""
    boxes = [row["value"] | {"original_width": 64, "original_height": 48} for row in rows]
    texts = [row["text"][0] for row in boxes if "text" in row]
    return {
        "annotation_id": 1,
        "annotator": 1,
        "label": [row for row in boxes if "rectanglelabels" in row],
    } | ({"person_id": texts[0] if len(texts) == 1 else texts} if texts else {})


@pytest.mark.parametrize("kind", ["json", "csv", "tsv"])
def test_label_studio_json_min_and_tables(run, tmp_path, shots, kind):
    """Texts are paired with boxes in order. If there are fewer texts, no identity is assigned."""
    rows = [
        minimal([*region("r1", A, "Ben"), *region("r2", B, "Anna")]) | {"image": "/u/a_1.jpg"},
        minimal([*region("r3", A, None), *region("r4", B, "Anna")]) | {"image": "/u/shots/ä.jpg"},
        minimal(region("r5", B, "Anna")) | {"image": "/u/shots/c.jpg"},
    ]
    path = tmp_path / f"export.{kind}"
    if kind == "json":
        write(path, rows)
    else:
        with open(path, "w", newline="") as file:
            table = csv.DictWriter(file, [*rows[0]], delimiter="\t" if kind == "tsv" else ",")
            table.writeheader()
            for row in rows:
                cells = {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()}
                table.writerow(cells)
    limit = csv.field_size_limit()
    code, said = run(path, "--images", shots)
    assert code == 0 and "): 1" in said and csv.field_size_limit() == limit
    found = [near(rows) for rows in taken(tmp_path).values()]
    assert found == [[(A, "Ben"), (B, "Anna")], [(A, None), (B, None)], [(B, "Anna")]]


def test_a_rotated_region_needs_the_size_of_its_image(run, tmp_path, shots):
    task = minimal(region("r1", A, "Ben")) | {"image": "/u/a_1.jpg"}
    task["label"][0]["rotation"] = 90
    path = write(tmp_path / "export.json", [task])
    (boxed,) = read_source(path, Options())[0].images[0].boxes
    assert boxed.xywh == pytest.approx([A[0] - A[3], A[1], A[3], A[2]], abs=0.01)
    del task["label"][0]["original_width"]
    code, said = run(write(path, [task]), "--images", shots)
    assert code == 2 and "original_width" in said


def test_label_studio_coco_has_no_identities(run, tmp_path, shots):
    content = coco(["a_1.jpg"], [[(A, {})]], info={"contributor": "Label Studio"})
    code, said = run(write(tmp_path / "result.json", content), "--images", shots)
    assert code == 2 and "JSON" in said and not (tmp_path / "own").exists()


# --- MOT and YOLO ---


@pytest.mark.parametrize("labels", [None, "person"])
def test_mot(run, tmp_path, labels):
    """Pixels count from 1 as in MOTChallenge, or from 0 as CVAT and Datumaro write them."""
    folder = tmp_path / "gate"
    for frame in (1, 2):
        write_image(folder / f"img1/{frame:06d}.jpg")
    (folder / "gt").mkdir()
    (folder / "gt/gt.txt").write_text(
        "1,3,6,7,10,20,1,1,1\n1,4,31,7,10,20,1,1,0.1\n2,3,6,7,10,20\n"
    )
    if labels:
        (folder / "gt/labels.txt").write_text(labels)
    code, said = run(folder / "gt/gt.txt")
    assert code == 0 and "--min-visibility): 1" in said
    xywh = [6, 7, 10, 20] if labels else A
    assert taken(tmp_path) == {f"00000{i}.jpg": [(xywh, "gate/3")] for i in (1, 2)}


def test_a_label_needs_the_names_of_the_classes_of_mot(run, tmp_path):
    write_image(tmp_path / "gate/img1/000001.jpg")
    (tmp_path / "gate/gt").mkdir()
    (tmp_path / "gate/gt/gt.txt").write_text("1,3,6,7,10,20,1,1,1\n")
    code, said = run(tmp_path / "gate", "--label", "worker")
    assert code == 2 and "--label" in said and "gt/labels.txt: " in said


def test_the_file_of_mot_in_the_working_folder(run, tmp_path, monkeypatch):
    for frame in (1, 2):
        write_image(tmp_path / f"gate/img1/{frame:06d}.jpg")
    (tmp_path / "gate/gt").mkdir()
    (tmp_path / "gate/gt/gt.txt").write_text("1,3,6,7,10,20,1,1,1\n2,3,6,7,10,20,1,1,1\n")
    monkeypatch.chdir(tmp_path / "gate/gt")
    assert run("gt.txt")[0] == 0
    assert taken(tmp_path) == {f"00000{i}.jpg": [(A, "gate/3")] for i in (1, 2)}


def test_the_file_of_mot_in_another_folder(run, tmp_path):
    """Files beside this folder are not read instead."""
    write_image(tmp_path / "all/gate/img1/000001.jpg")
    for name in ("gate/gt.txt", "yard/gt.txt"):
        (tmp_path / "all" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "all" / name).write_text("1,3,6,7,10,20,1,1,1\n")
    (tmp_path / "all/train.json").write_text('{"images": [], "annotations": [], "categories": []}')
    code, said = run(tmp_path / "all/gate/gt.txt")
    assert code == 2 and "SEQUENCE/gt/gt.txt" in said and "train.json" not in said


def test_mot_sequences_of_one_folder(run, tmp_path):
    """Their pictures have equal names. MOT17 contains each sequence once for each detector."""
    for name, tone in (("MOT17-02-DPM", 40), ("MOT17-02-SDP", 40), ("MOT17-04-DPM", 200)):
        folder = tmp_path / "all" / name
        (folder / "img1").mkdir(parents=True)
        (folder / "gt").mkdir()
        for frame in (1, 2):
            Image.new("L", (64, 48), tone + frame).save(folder / f"img1/{frame:06d}.png")
        (folder / "gt/gt.txt").write_text("1,3,6,7,10,20,1,1,1\n2,3,6,7,10,20,1,1,1\n")
    code, said = run(tmp_path / "all", "--images", tmp_path / "all")
    assert code == 2 and "--images: " in said
    code, said = run(tmp_path / "all")
    assert code == 0 and "MOT17-02-SDP" in said
    made = (tmp_path / "own/images").glob("*/000001.png")
    shown = {path.parent.name: Image.open(path).getpixel((0, 0)) for path in made}
    assert shown == {"MOT17-02-DPM": 41, "MOT17-04-DPM": 201}


def test_mot_without_ids_is_refused(run, tmp_path):
    write_image(tmp_path / "gate/img1/000001.jpg")
    (tmp_path / "gate/gt").mkdir()
    (tmp_path / "gate/gt/gt.txt").write_text("1,-1,6,7,10,20,1,1,1\n")
    code, said = run(tmp_path / "gate")
    assert code == 2 and "gate: expected identities" in said and "1 boxes" in said
    assert not (tmp_path / "own").exists()


YOLO = "0 0.15625 0.33333333 0.15625 0.41666667"  # is A


@pytest.mark.parametrize("line", [f"{YOLO} 3", f"{YOLO} 0.9 3"])
@pytest.mark.parametrize("layout", ["labels/train", "train/labels", "obj_train_data"])
def test_yolo_with_tracks(run, tmp_path, line, layout):
    folder = tmp_path / "gate"
    images = folder / layout.replace("labels", "images")
    for name in ("a.jpg", "b.jpg"):
        write_image(images / name)
        (folder / layout).mkdir(parents=True, exist_ok=True)
        (folder / layout / f"{name[0]}.txt").write_text(f"{line}\n1 {line[2:]}\n")
    if layout == "obj_train_data":
        (folder / "obj.names").write_text("person\ncar\n")
    else:
        (folder / "data.yaml").write_text("names: {0: person, 1: car}\n")
    names = folder / "obj.names"
    code, said = run(names if names.exists() else folder, "--test-share", "0.5")
    assert code == 0 and "person: 2" in said
    assert {name: near(rows) for name, rows in taken(tmp_path).items()} == {
        name: [(A, "gate/3")] for name in ("a.jpg", "b.jpg")
    }


def test_a_date_that_is_none_in_the_names_of_yolo(run, tmp_path):
    folder = write_yolo(tmp_path / "gate", f"{YOLO} 1")
    (folder / "data.yaml").write_text("names: {0: person}\ndate: 2024-13-45\n")
    code, said = run(folder)
    assert code == 2 and "data.yaml: expected YAML" in said


def test_large_track_ids_of_yolo_stay_different(tmp_path):
    folder = write_yolo(tmp_path / "gate", f"{YOLO} 1234567\n{YOLO} 1234568\n")
    boxes = read_source(folder, Options())[0].images[0].boxes
    assert [box.track for box in boxes] == ["1234567", "1234568"]


def test_yolo_of_a_video(run, tmp_path):
    pytest.importorskip("av")
    from tests.videos import write_video

    folder = tmp_path / "gate"
    (folder / "labels").mkdir(parents=True)
    for frame in range(2):
        (folder / f"labels/frame_{frame:06d}.txt").write_text(f"{YOLO} 3\n")
    write_video(folder / "walk.mp4", [np.full((48, 64, 3), 40, np.uint8)] * 2)
    assert run(folder)[0] == 0
    found = {name: near(rows) for name, rows in taken(tmp_path).items()}
    assert found == {f"frame_{frame:06d}.jpg": [(A, "gate/3")] for frame in range(2)}


def test_polygons_of_yolo(tmp_path):
    """The identity is not known of a polygon, which has no column for it."""
    folder = write_yolo(tmp_path / "gate", f"{YOLO} 3\n0 0.25 0.5 0.5 0.75 0.25 1 0.125 0.75\n")
    boxes = read_source(folder, Options())[0].images[0].boxes
    assert [(box.track, box.xywh) for box in boxes[1:]] == [(None, [0.125, 0.5, 0.375, 0.5])]


def test_a_negative_id_of_yolo_is_an_unlabelled_person(tmp_path):
    folder = write_yolo(tmp_path / "gate", f"{YOLO} 0\n{YOLO} -1\n")
    boxes = read_source(folder, Options())[0].images[0].boxes
    assert [box.track for box in boxes] == ["0", None]


def write_yolo(folder: Path, line: str) -> Path:
    write_image(folder / "images/a.jpg")
    (folder / "labels").mkdir()
    (folder / "labels/a.txt").write_text(line)
    return folder


def test_hidden_files_of_yolo_are_left_out(run, tmp_path):
    """macOS writes such files into archives."""
    folder = write_yolo(tmp_path / "gate", f"{YOLO} 3")
    write_image(folder / "images/b.jpg")
    (folder / "labels/b.txt").write_text(f"{YOLO} 3")
    (folder / "labels/._a.txt").write_bytes(b"\0\xff")
    code, _ = run(folder)
    assert code == 0 and sorted(taken(tmp_path)) == ["a.jpg", "b.jpg"]


def test_yolo_files_are_in_the_order_of_their_numbers(run, tmp_path):
    """The names may contain dots, although the files have another suffix than the images."""
    names = [f"gate.1_{number}" for number in (1, 2, 10)]
    (tmp_path / "gate/labels").mkdir(parents=True)
    for name in names:
        write_image(tmp_path / f"gate/images/{name}.jpg")
        (tmp_path / f"gate/labels/{name}.txt").write_text(f"{YOLO} 3")
    assert run(tmp_path / "gate")[0] == 0
    assert list(taken(tmp_path)) == [f"{name}.jpg" for name in names]


def test_yolo_without_tracks_is_refused(run, tmp_path):
    code, said = run(write_yolo(tmp_path / "gate", YOLO))
    assert code == 2 and "gate: expected identities" in said and "1 boxes" in said
    assert not (tmp_path / "own").exists()


# --- images, splits, mistakes ---


def test_images_of_another_size_or_missing_are_left_out(run, tmp_path):
    content = coco(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], [[(A, {"person_id": 1})]] * 4)
    path = write(tmp_path / "set/labels.json", content)
    for name, size in (("a.jpg", (64, 48)), ("b.jpg", (128, 96)), ("d.jpg", (64, 48))):
        write_image(tmp_path / "set" / name, size)
    code, said = run(path)
    assert code == 0 and list(taken(tmp_path)) == ["a.jpg", "d.jpg"]
    assert "c.jpg)" in said and re.search("b.jpg: 64 x 48 .*128 x 96", said)


def test_a_long_number_in_a_name_is_no_frame(run, tmp_path):
    """Python converts at most 4,300 digits."""
    names = ["a.jpg", "b.jpg", f"frame_{'1' * 5000}.jpg"]
    content = coco(names, [[(A, attributes(track_id=0))]] * 3)
    for name in names[:2]:
        write_image(tmp_path / "set" / name)
    assert run(write(tmp_path / "set/labels.json", content))[0] == 0
    assert list(taken(tmp_path)) == names[:2]


def test_an_image_of_a_name_that_two_folders_have(run, tmp_path):
    path = write(tmp_path / "set/labels.json", coco(["a.jpg"], [[(A, {"person_id": 1})]]))
    for folder in ("x", "y"):
        write_image(tmp_path / "set" / folder / "a.jpg")
    write_image(tmp_path / "set/y/b.jpg")
    Image.new("RGB", (64, 48)).save(tmp_path / "set/y/a.jpg")
    code, said = run(path)
    assert code == 2 and "x/a.jpg and " in said
    content = coco(["a.jpg", "b.jpg"], [[(A, {"person_id": 1})]] * 2)
    assert run(write(path, content))[0] == 0  # most images lie in y
    assert np.asarray(Image.open(tmp_path / "own/images/set/a.jpg")).max() == 0


def test_images_above_the_working_folder_stay_within_the_output(run, tmp_path, monkeypatch):
    for name in ("pictures/a.jpg", "work/here/b.jpg"):
        write_image(tmp_path / name, (64, 48))
    rows = [[(A, {"person_id": 1})]] * 2
    path = write(tmp_path / "work/labels.json", coco(["a.jpg", "b.jpg"], rows))
    monkeypatch.chdir(tmp_path / "work")
    code, said = run(path, "--images", "../pictures", "here")
    assert code == 0, said
    assert taken(tmp_path).keys() == {"pictures/a.jpg", "work/here/b.jpg"}


def test_cameras_by_name(run, tmp_path):
    names = ["c1_1.jpg", "c1_2.jpg", "c2_1.jpg"]
    path = write(tmp_path / "set/labels.json", coco(names, [[(A, {"person_id": 1})]] * 3))
    for name in names:
        write_image(tmp_path / "set" / name)
    code, _ = run(path, "--camera", r"^c(\d)", "--test", "2")
    assert code == 0
    data = load_dataset("COCO", str(tmp_path / "own"))
    assert [scene.camera for scene in data.train + data.gallery] == [1, 1, 2]


def test_files_that_are_no_annotations(run, tmp_path):
    (tmp_path / "set").mkdir()
    for name, text in (("a.xml", "<note/>"), ("b.json", "[1]"), ("c.csv", "a,b\n1,2\n")):
        (tmp_path / "set" / name).write_text(text)
    code, said = run(tmp_path / "set")
    assert code == 2 and "found a.xml, b.json, c.csv" in said
    (tmp_path / "set/c.csv").write_text('"' + "x" * 200_000)  # a quotation mark without its end
    assert run(tmp_path / "set") == (code, said)


def write_damaged_zip(folder: Path) -> None:
    """Write an archive whose list of files is whole, but not their compressed content."""
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.json", json.dumps(list(range(1000))))
    content = bytearray(path.read_bytes())
    content[60:90] = b"\xff" * 30
    path.write_bytes(content)


WRONG = {
    "no such": (lambda f: None, [], "nowhere: no such file"),
    "no such zip": (lambda f: None, [], "nowhere.zip: no such file"),
    "xml": (lambda f: (f / "a.xml").write_text("<annotations>"), [], "a.xml: expected XML"),
    "json": (lambda f: (f / "a.json").write_text("{"), [], "a.json: expected JSON"),
    "zip": (lambda f: (f / "a.zip").write_text("PK"), [], "a.zip: damaged"),
    "share": (write_cvat_images, ["--test-share", "1"], "--test-share: expected above 0"),
    "every": (write_cvat_images, ["--every", "0"], "--every: expected at least 1"),
    "regex": (write_cvat_images, ["--camera", "("], "--camera (: expected an expression"),
    "no source": (write_cvat_images, [""], "SOURCE: expected a path"),
    "no folder": (write_cvat_images, ["--images", ""], "--images: expected a path"),
    "other camera": (write_cvat_images, ["--camera", "gate(9)"], "--camera gate(9): expected"),
    "every image": (write_cvat_images, ["--every", "2"], "--every: expected with a video"),
    "shared": (write_cvat_images, ["--shared-identities"], "--shared-identities: expected with"),
    "shared names": (
        lambda f: [
            write_cvat_video(f, attribute="Anna"),
            *(write_image(f / f"frame_{frame:06d}.jpg") for frame in range(6)),
        ],
        ["--shared-identities"],
        "--shared-identities: expected with",
    ),
    "no visibility": (
        write_cvat_images,
        ["--min-visibility", "0"],
        "--min-visibility: expected with a source of MOT that ",
    ),
    "no camera": (write_cvat_images, ["--camera", ""], "--camera: expected"),
    "no key": (write_cvat_images, ["--person-key", ""], "--person-key: expected"),
    "test": (write_cvat_images, ["--test", "hall"], "--test hall: expected one of shop"),
    "all": (write_cvat_images, ["--test", "shop"], "nothing is left for train.json"),
    "visibility": (write_cvat_images, ["--min-visibility", "2"], "--min-visibility: expected 0"),
    "number": (
        lambda f: write_cvat_images(f, '<box label="person" xtl="x"/>'),
        [],
        "image 0: xtl: expected a number, found 'x'",
    ),
    "rotation": (
        lambda f: write_cvat_images(f, cvat_box(A, rotation="nan")),
        [],
        "image 0: rotation: expected a number, found 'nan'",
    ),
    "points": (
        lambda f: write_cvat_images(f, '<polygon label="person" points="1,2;inf,2"/>'),
        [],
        "image 0: points: expected x,y",
    ),
    "step": (lambda f: write_cvat_video(f, step="step=0"), [], "frame_filter: expected step=N"),
    "yolo": (lambda f: write_yolo(f, YOLO.replace("0.15", "nan")), [], "a.txt, line 1: expected"),
    "damaged zip": (write_damaged_zip, [], "a.zip: damaged"),
    "images": (
        lambda f: shutil.rmtree(write_cvat_images(f) / "images"),
        [],
        "none of its 3 images can be used (3 of missing image",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(run, tmp_path, case):
    make, arguments, said = WRONG[case]
    folder = tmp_path / "shop"
    folder.mkdir()
    make(folder)
    files = [*folder.glob("*.*")] if "no such" not in case else [tmp_path / said.split(":")[0]]
    code, printed = run(files[0] if len(files) == 1 else folder, *arguments)
    assert code == 2 and said in printed and not (tmp_path / "own").exists()
    assert not list(tmp_path.glob(".own*"))


def test_odd_characters_anywhere_are_one_line(tmp_path):
    for folder in (write_cvat_images(tmp_path / "i"), write_cvat_video(tmp_path / "v")):
        text = (folder / "annotations.xml").read_text()
        for place in range(0, len(text), 11):
            odd = ("", "x", "-1", "nan", "9e99", '"', "<")[place % 7]
            (tmp_path / "a.xml").write_text(text[:place] + odd + text[place + 1 :])
            try:
                read_source(tmp_path / "a.xml", Options())
            except UserError as error:
                assert "\n" not in str(error)
