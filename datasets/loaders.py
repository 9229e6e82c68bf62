"""Batches of scenes that are read from disk.

The order of the scenes and their flips are pure functions of seed, epoch and index. Workers
therefore hold no random state, and a resumed run gets the same batches as an uninterrupted one.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.augment import augment
from datasets.types import Scene
from datasets.workers import PackedBatch, from_workers, prepare_worker
from utils.errors import UserError
from utils.limits import MAX_PIXELS
from utils.media import PictureError, read_pixels
from utils.targets import Target, select

Batch = tuple[list[Tensor], list[Target]]


def scene_pixels(scene: Scene, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read the image of a scene, [3, H, W] uint8.

    Raises:
        UserError: if it cannot be read, or if its size differs from the one in the annotation file,
            since the boxes then belong to another version of the image.
    """
    image = read_pixels(scene.path, scene.upright, max_pixels)
    height, width = image.shape[1:]
    if scene.size and scene.size != (width, height):
        raise UserError(
            f"{scene.path}: expected {scene.size[0]} x {scene.size[1]} pixels, the width and "
            f"height in the annotation file, found {width} x {height}: its boxes do not belong to "
            "this image"
        )
    return image


class SceneDataset(Dataset):
    """Pairs (image [3, H, W] uint8, target) of scenes.

    In addition to boxes and labels, a target contains the keys of a teacher's cached outputs:
    "rows" [n] is 2·b for the b-th box of all scenes, and "picture" [] is 2·i for scene i. In a
    mirrored image these numbers are larger by one. If the scene has scores, the target has "scores"
    [n], which are 0 for ignore regions (see models.soft_labels).

    Args:
        train: clip boxes to the image, drop those without area, and mirror half of the images.
            Otherwise boxes stay as annotated.
        skip_damaged: a loader replaces a damaged image by the next scene.
        augmentations: names in `datasets.augment.AUGMENTATIONS`, for training.
        shares: (number of scenes, share) of each part of the training data; see `epoch_batches`.
        max_pixels: of an image; larger ones are not decoded.
        min_score: boxes with a lower score are ignore regions.

    Attributes:
        first_box: the number of the first box of each scene, among the boxes of all scenes.
        damaged: name -> message of the images that a loader has skipped.
        outside: name -> number of boxes that were dropped since they are outside the image.
    """

    def __init__(
        self,
        scenes: list[Scene],
        train: bool = False,
        seed: int = 0,
        skip_damaged: bool = False,
        augmentations: Sequence[str] = (),
        shares: Sequence[tuple[int, float]] = (),
        max_pixels: int = MAX_PIXELS,
        min_score: float = 0.0,
    ):
        self.scenes, self.train, self.seed, self.skip_damaged = scenes, train, seed, skip_damaged
        self.augmentations = tuple(augmentations)
        self.max_pixels, self.min_score = max_pixels, min_score
        self.shares = list(shares) or [(len(scenes), 1.0)]
        self.first_box = np.cumsum([0, *(len(scene.boxes) for scene in scenes)])
        self.damaged: dict[str, str] = {}
        self.outside: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Target]:
        """Return the scene for an index, or for (epoch, index).

        Raises:
            UserError: if the image cannot be read.
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        scene = self.scenes[index]
        image = scene_pixels(scene, self.max_pixels)
        target = {
            "boxes": torch.from_numpy(scene.boxes),
            "labels": torch.from_numpy(scene.pids),
            "rows": 2 * torch.arange(*self.first_box[index : index + 2]),
            "picture": torch.tensor(2 * index),
        }
        if scene.scores is not None:
            sure = np.where(scene.people(self.min_score), scene.scores, np.float32(0))
            target["scores"] = torch.from_numpy(sure)
        if self.train:
            target = clipped(target, *image.shape[:0:-1])
            if np.random.default_rng([self.seed, epoch, index]).random() < 0.5:
                image, target = mirrored(image, target)
            if self.augmentations:
                rng = np.random.default_rng([self.seed, epoch, index, 1])
                return augment(image, target, self.augmentations, rng)
        return image, target


def clipped(target: Target, width: int, height: int) -> Target:
    """Clip the boxes to their image, and drop those left without area."""
    boxes = target["boxes"]
    boxes = boxes.clamp(max=boxes.new_tensor([width, height, width, height]))
    return select(target | {"boxes": boxes}, (boxes[:, 2:] > boxes[:, :2]).all(1))


def mirrored(image: Tensor, target: Target) -> tuple[Tensor, Target]:
    """Mirror an image and its target horizontally."""
    left, top, right, bottom = target["boxes"].unbind(1)
    width = image.shape[2]
    keys = {key: target[key] + 1 for key in ("rows", "picture")}
    boxes = torch.stack([width - right, top, width - left, bottom], 1)
    return image.flip(2), target | keys | {"boxes": boxes}


class _Fetcher(Dataset):
    """The part of a loader that runs in worker processes.

    A damaged image is returned as a message, since an exception would be wrapped in the worker's
    traceback. With `skip_damaged` the next scene replaces it.
    """

    def __init__(self, data: SceneDataset):
        self.data = data

    def __getitem__(self, key: tuple[int, int]):
        epoch, first = key
        damaged: dict[str, str] = {}
        for offset in range(len(self.data) if self.data.skip_damaged else 1):
            index = (first + offset) % len(self.data)
            try:
                return index, self.data[epoch, index], damaged
            except UserError as error:
                if not isinstance(error, PictureError):  # the next image would fail as well
                    return first, None, {self.data.scenes[index].name: str(error)}
                damaged[self.data.scenes[index].name] = str(error)
        return first, None, damaged


class Loader:
    """Batches (list of images, list of targets) of a dataset.

    The workers end together with the iteration, even if that ends early.

    Args:
        keys: (epoch, index) of the scenes of each batch.
        workers: number of processes that read; 0: this process reads.
        pin: read into pinned memory, for copies to a GPU. It is off on the CPU, since pinning uses
            the GPU, which may be full.

    Raises:
        UserError: while iterating, if an image cannot be read or a worker has ended.
    """

    def __init__(
        self,
        data: SceneDataset,
        keys: list[list[tuple[int, int]]],
        workers: int,
        pin: bool = False,
    ):
        self.data = data
        self.loader = DataLoader(
            _Fetcher(data),
            batch_sampler=keys,
            num_workers=workers,
            collate_fn=PackedBatch if workers else list,
            worker_init_fn=prepare_worker,
            pin_memory=pin,
            generator=torch.Generator(),  # otherwise the global generator is used
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in from_workers(self.loader):
            for index, item, damaged in batch:
                self._note(index, item, damaged)
            images, targets = zip(*(item for _, item, _ in batch))
            yield list(images), list(targets)

    def _note(self, index: int, item: tuple[Tensor, Target] | None, damaged: dict[str, str]):
        if item is None:
            more = f" (and {len(damaged) - 1} more: every image)" if len(damaged) > 1 else ""
            raise UserError(next(iter(damaged.values())) + more)
        self.data.damaged |= damaged
        scene = self.data.scenes[index]
        # A crop also removes people, so the boxes outside the image cannot be counted.
        if "crop" not in self.data.augmentations and len(item[1]["boxes"]) < len(scene.boxes):
            self.data.outside[scene.name] = len(scene.boxes) - len(item[1]["boxes"])


def part_length(scenes: int, share: float) -> int:
    """Return the number of scenes of an epoch from a part of the training data: the share, but at
    least one."""
    return max(round(scenes * share), 1)


def epoch_length(shares: Sequence[tuple[int, float]]) -> int:
    """Return the number of scenes of an epoch; see `epoch_batches`."""
    return sum(part_length(scenes, share) for scenes, share in shares)


def epoch_batches(
    shares: Sequence[tuple[int, float]], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Return the indices of the scenes of an epoch in batches, the last of which may be smaller.

    Args:
        shares: (number of scenes, share) of each part of the training data. With a share below 1,
            the scenes of the part are different ones in each epoch; with a share above 1, some are
            repeated.
    """
    start, chosen = 0, []
    for number, (scenes, share) in enumerate(shares):
        repeats, rest = divmod(part_length(scenes, share), scenes)
        drawn = np.random.default_rng([seed, epoch, number]).permutation(scenes)[:rest]
        chosen += [start + part for part in [np.arange(scenes)] * repeats + [np.sort(drawn)]]
        start += scenes
    indices = np.concatenate(chosen)
    order = indices[np.random.default_rng([seed, epoch]).permutation(len(indices))].tolist()
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def train_loader(
    data: SceneDataset,
    batch_size: int,
    workers: int,
    seed: int,
    epoch: int,
    start_step: int = 0,
    own: Callable[[list[int]], list[int]] = list,
    pin: bool = False,
) -> Loader:
    """Return the loader of an epoch.

    Args:
        start_step: number of batches to leave out at the beginning.
        own: selects the scenes of a batch that this rank reads; by default all.
        pin: see `Loader`.
    """
    batches = epoch_batches(data.shares, batch_size, seed, epoch)[start_step:]
    return Loader(data, [[(epoch, i) for i in own(batch)] for batch in batches], workers, pin)
