"""CUHK-SYSU: `Image/SSM/*.jpg`, `annotation/{Images,pool}.mat`, `annotation/test/...`."""

import os
from collections import Counter
from dataclasses import dataclass

import numpy as np

from datasets.base import (
    GALLERY_SIZE,
    SearchDataset,
    check_root,
    corners,
    count,
    has_area,
    make_scenes,
    name_list,
)
from datasets.mat import cells, fields, load_structs, numbers, reading, text
from datasets.mat import load as load_mat
from datasets.protocol import Protocol, make_protocol
from datasets.types import UNLABELED, Query, Scene
from utils.errors import UserError

SIZES = (50, 100, 500, 1000, 2000, 4000)
PROTOCOLS = {size: (f"test/train_test/TestG{size}.mat", f"TestG{size}") for size in SIZES} | {
    "Occlusion": ("test/subset/Occlusion.mat", "Occlusion1"),
    "Resolution": ("test/subset/Resolution.mat", "Test_Size"),
}
Key = tuple[str, int, int, int, int]  # image and x y w h: the files' reference to a box


class CuhkSysu(SearchDataset):
    def protocol(
        self,
        gallery_size: int | str = GALLERY_SIZE,
        cross_camera: bool = False,
        query_file: str = "",
    ) -> Protocol:
        """Return the protocol of a gallery size: 50..4000, -1 (all), "Occlusion" or "Resolution".

        With -1, the matches are those of the smallest protocol (they are the same for all sizes),
        and a query searches all images except its own, unless the protocol lists that too.
        """
        if cross_camera or query_file:
            raise UserError(
                "EVAL_CROSS_CAMERA and EVAL_QUERY_FILE: expected neither with CUHK-SYSU"
            )
        whole = gallery_size == -1
        path, variable = find_protocol(self.root, smallest(self.root) if whole else gallery_size)
        lists = read_lists(path, variable)
        scene_of = {scene.name: i for i, scene in enumerate(self.gallery)}
        image = np.array([lookup(scene_of, n, path) for n in lists.names], np.int64)[lists.image]
        listed = np.zeros((len(lists.queries), len(self.gallery)), np.uint8)
        np.add.at(listed, (lists.query, image), 1)
        picked = self._pick(lists.queries, scene_of, path)
        if whole:
            own = [self.queries[i].scene for i in picked]
            unlisted = listed == 0
            unlisted[np.arange(len(own)), own] = False
            listed[unlisted] = 1
        name = "whole gallery" if whole else f"gallery {gallery_size}"
        return make_protocol(
            f"CUHK-SYSU {name}",
            gallery_size,
            picked,
            listed,
            lists.query[lists.holding],
            image[lists.holding],
            np.arange(len(lists.holding)),
            corners(lists.xywh),
        )

    def choices(self) -> list[dict]:
        folder = os.path.join(self.root, "annotation")
        there = [k for k, (f, _) in PROTOCOLS.items() if os.path.exists(os.path.join(folder, f))]
        return [{"gallery_size": size} for size in [*there, -1]]

    def _pick(self, keys: list[Key], scene_of: dict[str, int], path: str) -> np.ndarray:
        """Return the indices of the queries that a protocol lists."""
        known = {(q.scene, *q.box.tolist()): i for i, q in enumerate(self.queries)}
        picked = []
        for name, *xywh in keys:
            box = corners(np.array([xywh], np.float64))[0].tolist()
            index = known.get((lookup(scene_of, name, path), *box))
            if index is None:
                raise UserError(f"{path}: query {name} {xywh} is not among the dataset's queries")
            picked.append(index)
        return np.array(picked, np.int64)


@dataclass(frozen=True)
class Lists:
    """The content of a protocol file: Q queries and L listings of D images, P of which show the
    person."""

    queries: list[Key]  # [Q]
    names: list[str]  # [D] distinct images
    query: np.ndarray  # [L] int64
    image: np.ndarray  # [L] int64: index in `names`
    holding: np.ndarray  # [P] int64: listings whose image shows the person
    xywh: np.ndarray  # [P, 4]


def read_lists(path: str, variable: str) -> Lists:
    """Read a variable `TestG...`: a [1, q] struct of Query [1, 1] and Gallery [1, g]."""
    names: dict[bytes, int] = {}
    images, listed_boxes, asked, places = [], [], [], []
    for record in load_structs(path, variable):
        with reading(path):
            query, gallery = fields(record["Query"]), fields(record["Gallery"])
            asked.append(query["imname"][0])
            places.append(query["idlocate"][0])
            # equal names are equal bytes, so each is read once
            listed = [names.setdefault(name, len(names)) for name in gallery.get("imname", [])]
            images.append(np.array(listed, np.int64))
            listed_boxes.append(stack_boxes(gallery.get("idlocate", [])))
    with reading(path):
        queries = keys([text(name) for name in asked], stack_boxes(places))
        boxes = np.concatenate(listed_boxes)
        rows = np.repeat(np.arange(len(queries)), [len(listed) for listed in images])
        holding = np.flatnonzero(has_area(boxes))  # an empty idlocate became zeros
        return Lists(
            queries,
            [text(name) for name in names],
            rows,
            np.concatenate(images),
            holding,
            boxes[holding],
        )


def stack_boxes(places: list[bytes]) -> np.ndarray:
    """Convert `idlocate` matrices, uint8 or uint16, to [n, 4] float64 x y w h. An empty matrix
    becomes zeros."""
    found = {place: numbers(place) for place in set(places)}
    if not {len(box) for box in found.values()} <= {0, 4}:
        raise ValueError("idlocate: expected x y w h or nothing, found another count of numbers")
    nothing = np.zeros(4)
    rows = [box if len(box := found[place]) else nothing for place in places]
    return np.array(rows).reshape(-1, 4)


def keys(names: list[str], xywh: np.ndarray) -> list[Key]:
    """Return the keys of boxes [n, 4] x y w h, each in one of n images."""
    return [(name, *box) for name, box in zip(names, np.rint(xywh).astype(np.int64).tolist())]


def lookup(scene_of: dict[str, int], name: str, path: str) -> int:
    """Return the index of an image in the gallery; raise UserError if it is not there."""
    if name not in scene_of:
        raise UserError(f"{path}: {name} is not in the gallery (pool.mat)")
    return scene_of[name]


def find_protocol(root: str, gallery_size: int | str) -> tuple[str, str]:
    """Return the file of a protocol and the name of its variable."""
    if gallery_size not in PROTOCOLS:
        raise UserError(
            f"EVAL_GALLERY_SIZE: expected one of {', '.join(map(str, PROTOCOLS))} or "
            f"-1 (whole gallery), found {gallery_size!r}"
        )
    file, variable = PROTOCOLS[gallery_size]
    path = os.path.join(root, "annotation", file)
    if not os.path.exists(path):
        raise UserError(f"{path}: missing, and gallery size {gallery_size} needs it")
    return path, variable


def smallest(root: str) -> int:
    """Return the smallest gallery size that has a file. Its file contains all queries and their
    matches."""
    for size in SIZES:
        if os.path.exists(os.path.join(root, "annotation", PROTOCOLS[size][0])):
            return size
    raise UserError(f"{root}/annotation/test/train_test: no TestG50.mat or any other TestG file")


def load(root: str) -> CuhkSysu:
    """Read the dataset in `root`. Its training images, sorted by name, are those that are not in
    the gallery."""
    check_root("CUHK-SYSU", root, "annotation")
    folder = os.path.join(root, "annotation")
    dropped: Counter = Counter()
    boxes = read_images(os.path.join(folder, "Images.mat"))
    gallery = name_list(os.path.join(folder, "pool.mat"), "pool", dropped)
    for name in gallery:
        if name not in boxes:
            raise UserError(f"{folder}/pool.mat: {name} is not in Images.mat")
    num_pids, trained = train_labels(os.path.join(folder, "test/train_test/Train.mat"))
    lists = test_lists(root)
    tested = query_labels(lists[0])

    def scenes(split: str, names: list[str], people: dict[Key, int]) -> list[Scene]:
        xywh = [boxes[name] for name in names]
        pids, missing = label(names, xywh, people)
        count(dropped, f"{split}: identity's box not in Images.mat, ignored", missing)
        folder = os.path.join(root, "Image/SSM")
        return make_scenes(split, names, folder, xywh, pids, [0] * len(names), dropped)

    train = scenes("train", sorted(boxes.keys() - set(gallery)), trained)
    test = scenes("test", gallery, tested)
    scene_of = {name: i for i, name in enumerate(gallery)}
    queries = make_queries(lists, tested, root, scene_of)
    return CuhkSysu("CUHK-SYSU", root, train, test, queries, num_pids, dropped)


def read_images(path: str) -> dict[str, np.ndarray]:
    """Read the boxes of all people by image: [n, 4] float64 x y w h."""
    with reading(path):
        content = fields(load_mat(path, "Img"))
        names = [text(name) for name in content["imname"]]
        people = [fields(box).get("idlocate", []) for box in content["box"]]
        boxes = stack_boxes([place for places in people for place in places])
        ends = np.cumsum([len(places) for places in people])[:-1]
        return dict(zip(names, np.split(boxes, ends), strict=True))


def train_labels(path: str) -> tuple[int, dict[Key, int]]:
    """Read the number of training identities, and the identity of each labelled box, which is its
    position in the list, counted from 1."""
    with reading(path):
        people = [fields(person) for person in cells(load_mat(path, "Train"))]
        empty: dict[str, list[bytes]] = {"imname": [], "idlocate": []}  # an identity without scenes
        scenes = [empty | fields(person["scene"][0]) if person else empty for person in people]
        names = [text(name) for s in scenes for name in s["imname"]]
        places = [place for s in scenes for place in s["idlocate"]]
        pids = np.repeat(np.arange(1, len(scenes) + 1), [len(s["imname"]) for s in scenes])
        return len(scenes), dict(zip(keys(names, stack_boxes(places)), pids.tolist(), strict=True))


def test_lists(root: str) -> list[Lists]:
    """Read the smallest protocol and the existing subsets, which may have other queries."""
    found = [find_protocol(root, smallest(root))]
    for subset in ("Occlusion", "Resolution"):
        if os.path.exists(os.path.join(root, "annotation", PROTOCOLS[subset][0])):
            found.append(find_protocol(root, subset))
    return [read_lists(*where) for where in found]


def query_labels(lists: Lists) -> dict[Key, int]:
    """Return the identity of each box in a protocol. The person of query i has the identity i + 1,
    both in the query image and in the gallery."""
    holders = keys([lists.names[i] for i in lists.image[lists.holding]], lists.xywh)
    pids = (lists.query[lists.holding] + 1).tolist()
    return dict(zip(holders, pids)) | {key: i for i, key in enumerate(lists.queries, 1)}


def label(
    names: list[str], xywh: list[np.ndarray], people: dict[Key, int]
) -> tuple[list[np.ndarray], int]:
    """Return the identities of all boxes, and how many labelled boxes match none of them.

    Args:
        names: the names of the images.
        xywh: the boxes of each image, [n, 4] x y w h.
        people: the identity of each labelled box.

    Returns:
        For each image [n] int64, UNLABELED for a box that is not in `people`; and the number of
        boxes in `people` that no image has.
    """
    found = [keys([name] * len(boxes), boxes) for name, boxes in zip(names, xywh)]
    pids = [np.array([people.get(key, UNLABELED) for key in row], np.int64) for row in found]
    return pids, len(people.keys() - {key for row in found for key in row})


def make_queries(
    lists: list[Lists], people: dict[Key, int], root: str, scene_of: dict[str, int]
) -> list[Query]:
    """Return each query once. The queries of the smallest protocol come first."""
    queries = []
    for key in dict.fromkeys(key for one in lists for key in one.queries):
        xywh = np.array([key[1:]], np.float64)
        if not has_area(xywh)[0]:
            raise UserError(f"{root}/annotation/test: query {key[0]} {list(key[1:])} has no area")
        scene = lookup(scene_of, key[0], f"{root}/annotation/test")
        queries.append(Query(scene, corners(xywh)[0], people.get(key, UNLABELED)))
    return queries
