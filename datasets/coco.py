"""Custom data: `train.json`, `test.json` and an optional `queries.json` in COCO's form.

See docs/custom_data.md.
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from datasets.base import (
    GALLERY_SIZE,
    SearchDataset,
    corners,
    count,
    make_scenes,
    number_identities,
)
from datasets.coco_files import Annotations, read_annotations
from datasets.json_fields import convert, identifier, read_json, short
from datasets.picture_paths import picture_paths
from datasets.protocol import Protocol, find_people, make_protocol, other_images
from datasets.types import UNLABELED, Query, Scene
from utils.errors import UserError

GALLERY_SEED = 17  # of drawn galleries; not the run's, so that all runs search the same ones


class CustomData(SearchDataset):
    def protocol(
        self,
        gallery_size: int | str = GALLERY_SIZE,
        cross_camera: bool = False,
        query_file: str = "",
    ) -> Protocol:
        """Return the protocol in which each query searches all test images but its own.

        With `cross_camera` it searches images of other cameras only. `gallery_size` N draws that
        many images for each query (see `draw`), the same ones in every run; -1, or an N that leaves
        out no image, is the whole gallery.
        """
        if query_file:
            raise UserError(
                "EVAL_QUERY_FILE: expected only with PRW; custom data uses queries.json"
            )
        if type(gallery_size) is not int or (gallery_size < 1 and gallery_size != -1):
            raise UserError(
                "EVAL_GALLERY_SIZE: expected a number of images or -1 (whole gallery), "
                f"found {gallery_size!r}"
            )
        if not self.queries:
            raise UserError(
                f"{self.root}/test.json: expected a person_id that occurs in two or more images"
                + ("" if self.gallery else ", found no images")
            )
        unknown = sum(scene.camera == 0 for scene in self.gallery)
        if cross_camera and unknown:
            raise UserError(
                f"EVAL_CROSS_CAMERA: expected a camera for every image of {self.root}/test.json, "
                f"found {unknown} of {len(self.gallery)} without"
            )
        listed = other_images(self.queries, self.gallery, cross_camera)
        if whole := gallery_size == -1 or gallery_size >= listed.sum(1).max():
            gallery_size = -1
        else:
            query, image, _, _ = find_people(self.queries, self.gallery, listed)
            holds = np.zeros(listed.shape, bool)
            holds[query, image] = True
            listed = draw(listed, holds, gallery_size)
        name = "COCO cross-camera" if cross_camera else "COCO"
        return make_protocol(
            name if whole else f"{name} gallery {gallery_size}",
            gallery_size,
            np.arange(len(self.queries)),
            listed,
            *find_people(self.queries, self.gallery, listed),
        )

    def choices(self) -> list[dict]:
        whole = {"gallery_size": -1}
        cameras = {scene.camera for scene in self.gallery}
        across = len(cameras) > 1 and 0 not in cameras
        return [whole, whole | {"cross_camera": True}] if across else [whole]


def draw(listed: np.ndarray, holds: np.ndarray, size: int) -> np.ndarray:
    """Select `size` of the listed images of each query at random.

    At most half of a gallery contains the person, unless there are too few other images. A larger
    gallery contains the smaller ones.

    Args:
        listed: [Q, I] uint8, the images that each query may search.
        holds: [Q, I], the images that contain the person.

    Returns:
        The selected images, as `listed`.
    """
    drawn = np.zeros_like(listed)
    for query, row in enumerate(listed):
        order = np.random.default_rng([GALLERY_SEED, query]).permutation(np.flatnonzero(row))
        right, others = order[holds[query, order]], order[~holds[query, order]]
        right = right[: max(size // 2, size - len(others), 1)]
        drawn[query, right] = drawn[query, others[: size - len(right)]] = 1
    return drawn


def load(root: str) -> CustomData:
    """Load the dataset at `root`. Images are in the order of the files, identities in the order of
    their ids."""
    dropped: Counter = Counter()
    train, test = (read_annotations(root, split, dropped) for split in ("train", "test"))
    cameras = numbered(train.cameras + test.cameras)
    trained, tested = numbered(train.people), numbered(test.people)
    count(dropped, "person in train.json and in test.json", len(trained.keys() & tested.keys()))
    both = len(set(train.names) & set(test.names))
    count(dropped, "image in train.json and in test.json", both)
    gallery = scenes_of(test, root, "test", tested, cameras, dropped)
    path = os.path.join(root, "queries.json")
    queries = read_queries(path, test, tested) if os.path.exists(path) else choose_queries(gallery)
    training, num_pids = number_identities(
        scenes_of(train, root, "train", trained, cameras, dropped)
    )
    return CustomData("COCO", root, training, gallery, queries, num_pids, dropped)


def numbered(names: Iterable[str | None]) -> dict[str, int]:
    """Map names to 1..N. Whole numbers come first, in order of their value."""
    found = {name for name in names if name is not None}
    order = sorted(found, key=lambda n: (0, len(n), n) if n.isdecimal() else (1, 0, n))
    return {name: number for number, name in enumerate(order, 1)}


def scenes_of(
    file: Annotations,
    root: str,
    split: str,
    people: dict[str, int],
    cameras: dict[str, int],
    dropped: Counter,
) -> list[Scene]:
    """Return the scenes of a file. Their boxes refer to the image after its EXIF orientation is
    applied."""
    pids = np.array([people.get(name or "", UNLABELED) for name in file.people], np.int64)
    order = np.argsort(file.image, kind="stable")
    ends = np.searchsorted(file.image[order], np.arange(1, len(file.names)))
    rows = np.split(order, ends)
    scenes = make_scenes(
        split,
        file.names,
        root,
        [file.xywh[r] for r in rows],
        [pids[r] for r in rows],
        [cameras.get(name or "", 0) for name in file.cameras],
        dropped,
        [file.scores[r] for r in rows],
    )
    paths = picture_paths(file.names, root, split)
    return [
        replace(scene, path=path, upright=True, size=size)
        for scene, path, size in zip(scenes, paths, file.sizes)
    ]


def choose_queries(gallery: list[Scene]) -> list[Query]:
    """Choose the queries of data without a list of queries.

    Each identity that is in two or more images gets one query per camera: its largest box, or the
    first of several equal ones.
    """
    images: Counter = Counter()
    largest: dict[tuple[int, int], tuple[float, Query]] = {}
    for index, scene in enumerate(gallery):
        images.update({pid for pid in scene.pids.tolist() if pid != UNLABELED})
        areas = (scene.boxes[:, 2:] - scene.boxes[:, :2]).prod(1).tolist()
        for pid, area, box in zip(scene.pids.tolist(), areas, scene.boxes):
            if area > largest.get((pid, scene.camera), (0.0, None))[0]:
                largest[pid, scene.camera] = area, Query(index, box, pid)
    return [largest[key][1] for key in sorted(largest) if images[key[0]] > 1]


def read_queries(path: str, test: Annotations, people: dict[str, int]) -> list[Query]:
    """Read queries.json, a list of ids of annotations in test.json."""
    wanted = read_json(path)
    if not isinstance(wanted, list) or not wanted:
        raise UserError(f"{path}: expected a list of annotations' ids, found {short(wanted)}")
    times = Counter(test.ids)
    row_of = {name: row for row, name in enumerate(test.ids)}
    queries = []
    for number, value in enumerate(wanted):
        where = f"{path}: query {number + 1}"
        name = convert(value, identifier, where)
        if times[name] != 1:
            found = "none" if name not in row_of else f"{times[name]} of them"
            raise UserError(
                f"{where}: expected one annotation {name} in {test.path}, found {found}"
            )
        row = row_of[name]
        person, box = test.people[row], corners(test.xywh[row : row + 1])[0]
        if person is None or not (box[2:] > box[:2]).all():
            what = "no person_id" if person is None else f"the box {test.xywh[row].tolist()}"
            raise UserError(f"{where}: annotation {name} has {what}, and cannot be searched for")
        queries.append(Query(int(test.image[row]), box, people[person]))
    return queries
