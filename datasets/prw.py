"""PRW: `frames/*.jpg`, `annotations/*.jpg.mat`, `frame_{train,test}.mat`, `query_info.txt`.

The frames may have any picture format: a frame is identified by its name without the suffix.
"""

import os
import re
from collections import Counter

import numpy as np

from datasets.base import (
    SearchDataset,
    check_root,
    corners,
    has_area,
    make_scenes,
    name_list,
    number_identities,
)
from datasets.mat import LARGEST, numbers, reading
from datasets.mat import load as load_mat
from datasets.protocol import Protocol, find_people, make_protocol, other_images
from datasets.types import UNLABELED, Query, Scene
from utils.errors import UserError
from utils.sources import without_suffix

BOX_VARIABLES = ("box_new", "anno_file", "anno_previous")  # the real files use all three


class PRW(SearchDataset):
    def protocol(
        self,
        gallery_size: int | str = -1,
        cross_camera: bool = False,
        query_file: str = "",
    ) -> Protocol:
        """Return the protocol in which a query searches all test frames but its own; see
        SearchDataset.protocol.

        `query_file` has the form of query_info.txt (the mini set lists 30 queries). PRW has one
        gallery: `gallery_size` is -1.
        """
        if gallery_size != -1:
            raise UserError(
                "EVAL_GALLERY_SIZE: PRW has one gallery, all test frames but the "
                f"query's own; expected -1, found {gallery_size!r}"
            )
        picked = self._pick(query_file) if query_file else np.arange(len(self.queries))
        queries = [self.queries[i] for i in picked]
        listed = other_images(queries, self.gallery, cross_camera)
        name = "PRW cross-camera" if cross_camera else "PRW"
        name += f" {os.path.basename(query_file)}" if query_file else ""
        found = find_people(queries, self.gallery, listed)
        return make_protocol(name, -1, picked, listed, *found)

    def choices(self) -> list[dict]:
        return [{}, {"cross_camera": True}]

    def _pick(self, query_file: str) -> np.ndarray:
        """Return the indices of the queries that a file lists."""
        path = os.path.join(self.root, query_file)
        known = {(q.scene, q.pid): i for i, q in enumerate(self.queries)}
        queries = read_queries(path, self.gallery)
        for q in queries:
            if (q.scene, q.pid) not in known:
                raise UserError(
                    f"{path}: person {q.pid} in {self.gallery[q.scene].name} "
                    "is not among the queries of query_info.txt"
                )
        return np.array([known[q.scene, q.pid] for q in queries])


def load(root: str) -> PRW:
    """Read the dataset in the folder `root`. Its frames are in the order of the frame lists."""
    check_root("PRW", root, "annotations")
    dropped: Counter = Counter()
    train = load_split(root, "train", dropped)
    gallery = load_split(root, "test", dropped)
    queries = read_queries(os.path.join(root, "query_info.txt"), gallery)
    train, num_pids = number_identities(train)
    return PRW("PRW", root, train, gallery, queries, num_pids, dropped)


def load_split(root: str, split: str, dropped: Counter) -> list[Scene]:
    """Read the frames of "train" or "test", with the identities that the files contain."""
    frames, annotations = Files(root, "frames"), Files(root, "annotations", ".mat")
    names = name_list(
        os.path.join(root, f"frame_{split}.mat"), f"img_index_{split}", dropped, frames.find
    )
    rows = [read_boxes(os.path.join(root, "annotations", annotations.find(n))) for n in names]
    pids = [np.where(r[:, 0] < 0, UNLABELED, r[:, 0]) for r in rows]
    return make_scenes(
        split,
        names,
        os.path.join(root, "frames"),
        [r[:, 1:] for r in rows],
        pids,
        [camera_of(name, root) for name in names],
        dropped,
    )


class Files:
    """The files of a folder by the name of their frame.

    Args:
        ending: what follows the suffix of the picture: ".mat" for c1s1_1.jpg.mat.
    """

    def __init__(self, root: str, folder: str, ending: str = ""):
        path = os.path.join(root, folder)
        # Without the folder, the reading of a file fails later.
        there = sorted(os.listdir(path)) if os.path.isdir(path) else []
        names = [name for name in there if not name.startswith(".")]
        # Of files with one stem, a JPEG is the last and is used.
        names.sort(key=lambda name: name.endswith(f".jpg{ending}"))
        self.ending, self.names = ending, set(names)
        self.of_frame = {without_suffix(name.removesuffix(ending)): name for name in names}

    def find(self, frame: str) -> str:
        """Return the file of a frame, whose name may have a suffix. If there is none, the name is
        that of a JPEG."""
        exact, stem = frame + self.ending, without_suffix(frame)
        if exact in self.names:
            return exact
        return self.of_frame.get(stem, (frame if stem != frame else f"{frame}.jpg") + self.ending)


def read_boxes(path: str) -> np.ndarray:
    """Read the people of a frame: [k, 5] float64 id x y w h."""
    with reading(path):
        rows = numbers(load_mat(path, *BOX_VARIABLES)).reshape(5, -1).T
        if (rows[:, 0] % 1).any():
            raise ValueError(f"identities {rows[:, 0].tolist()}")
    return rows


def camera_of(name: str, root: str) -> int:
    """Return the camera in the name of a frame: 1 for c1s1_000151.jpg."""
    match = re.match(r"c(\d+)", name)
    if not match:
        raise UserError(f"{root}: frame {name}: expected a name that starts with its camera, c1...")
    return int(match.group(1))


def read_queries(path: str, gallery: list[Scene]) -> list[Query]:
    """Read lines of the form `id x y w h name`. Line ends are LF or CRLF, coordinates may be
    negative, and names may contain spaces and have any suffix or none."""
    scene_of = {without_suffix(scene.name): i for i, scene in enumerate(gallery)}
    scene_of |= {scene.name: i for i, scene in enumerate(gallery)}
    with reading(path), open(path, encoding="utf-8-sig") as file:
        lines = [line.split(maxsplit=5) for line in file]
    queries = []
    for number, words in enumerate(lines, 1):
        if not words:
            continue
        with reading(f"{path}, line {number}"):
            person, *numbers, name = words
            xywh = np.array([numbers], np.float64).reshape(1, 4)
            pid = int(person)
            if not has_area(xywh)[0] or not (np.abs(xywh) < LARGEST).all():
                raise ValueError(f"box {xywh[0].tolist()}")
            if not 0 <= pid < UNLABELED:
                raise ValueError(f"identity {pid}")
            name = name.rstrip()
        index = scene_of.get(name, scene_of.get(without_suffix(name)))
        if index is None:
            raise UserError(f"{path}, line {number}: {name} is not in the gallery (frame_test.mat)")
        queries.append(Query(index, corners(xywh)[0], pid))
    if not queries:
        raise UserError(f"{path}: expected lines `id x y w h name`, found none")
    return queries
