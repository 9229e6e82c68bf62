"""The cached outputs of a teacher on all training pictures, which are computed once and then
read."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.base import end_of_file
from datasets.loaders import Loader, SceneDataset, clipped, mirrored
from datasets.types import Scene
from engine.distributed import patient_barrier, rank, ranks
from engine.teachers.sources import TeacherSource
from engine.teachers.store import OutputStore
from utils.errors import UserError

BOX_TYPE, PICTURE_TYPE = np.dtype("<f2"), np.dtype("<f4")  # of the stored numbers


@dataclass(frozen=True)
class Keys:
    """The keys of a picture and of its boxes."""

    picture: bytes
    boxes: list[bytes]

    def all(self, source: TeacherSource) -> list[bytes]:
        """Return the keys under which a source has values."""
        return self.boxes + [self.picture] * bool(source.picture_length)


def keys_of(scene: Scene, source: TeacherSource) -> Keys:
    """Return the keys of a scene: digests of the picture, the teacher, and one box or all boxes."""
    base = hashlib.sha1(b"%b %d " % (end_of_file(scene.path), scene.upright))
    base.update(source.digest.encode())

    def key(part: np.ndarray, kind: bytes) -> bytes:
        content = base.copy()
        content.update(kind + part.tobytes())
        return content.digest()

    return Keys(key(scene.boxes, b"all"), [key(box, b"box") for box in scene.boxes])


def fill(
    scenes: list[Scene], source: TeacherSource, store: OutputStore, workers: int, data: dict
) -> list[Keys]:
    """Compute the values that the store lacks, and return the keys of the scenes.

    Each rank computes its share, and then what is missing because ranks have no common disk.

    Args:
        workers: processes that read pictures.
        data: further arguments of SceneDataset.
    """
    keys = [keys_of(scene, source) for scene in scenes]
    wait = patient_barrier()
    dataset = SceneDataset(scenes, **data)
    for part, parts in ((rank(), ranks()), (0, 1)):
        lacking = store.missing([key for scene in keys for key in scene.all(source)])
        missing = [i for i, scene in enumerate(keys) if not lacking.isdisjoint(scene.all(source))]
        wait()  # before any rank stores values, so that all divide the same pictures
        loader = Loader(dataset, [[(0, i)] for i in missing[part::parts]], workers)
        for numbers in _computed(loader, source, keys):
            store.put(numbers)
        wait()
    return keys


def _computed(
    loader: Loader, source: TeacherSource, keys: list[Keys]
) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield the keys of the loader's pictures with their values.

    A loader may have replaced a damaged picture by another one.
    """
    bar = tqdm(loader, "teacher", unit="picture", mininterval=1, disable=len(loader) == 0)
    for [image], [target] in bar:
        index = int(target["picture"]) // 2
        target = clipped(target, *image.shape[:0:-1])
        flipped, turned = mirrored(image, target)
        boxes, picture = source.compute([image, flipped], [target["boxes"], turned["boxes"]])
        first = int(loader.data.first_box[index])
        places = (target["rows"] // 2 - first).tolist()
        rows = np.zeros((len(keys[index].boxes), 2, source.box_length), BOX_TYPE)
        if places:
            rows[places] = boxes.numpy()
        numbers = [(key, row.tobytes()) for key, row in zip(keys[index].boxes, rows)]
        whole = picture.numpy().astype(PICTURE_TYPE).tobytes()
        yield numbers + [(keys[index].picture, whole)] * bool(source.picture_length)


def read_boxes(keys: list[Keys], source: TeacherSource, store: OutputStore) -> Tensor:
    """Return the values of all boxes, [2B, box_length] in half precision.

    The values of each box are followed by those of its mirror image. Those of damaged pictures are
    zero.
    """
    return _read(
        [key for scene in keys for key in scene.boxes], 2, source.box_length, BOX_TYPE, store
    )


def read_pictures(keys: list[Keys], source: TeacherSource, store: OutputStore) -> Tensor:
    """Return the values of all pictures, [I, picture_length]; zero for damaged ones."""
    wanted = [scene.picture for scene in keys]
    return _read(wanted, 1, source.picture_length, PICTURE_TYPE, store)


def _read(
    wanted: list[bytes], each: int, length: int, kind: np.dtype, store: OutputStore
) -> Tensor:
    """Return `each` rows for every key."""
    places: dict[bytes, list[int]] = {}
    for place, key in enumerate(wanted):
        places.setdefault(key, []).append(place)
    table = np.zeros((len(wanted), each, length), kind)
    for key, numbers in store.get(list(places)):
        row = np.frombuffer(numbers, kind)
        if len(row) != each * length:
            raise UserError(f"{store.where}: damaged (expected {each * length} numbers at a key)")
        table[places[key]] = row.reshape(each, length)
    return torch.from_numpy(table).flatten(0, 1)
