"""Scenes from disk to batches. Order and flips are pure functions of seed, epoch and index, so
workers hold no random state and a resumed run sees the batches it would have seen."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.augment import Target, augment
from datasets.types import Scene
from datasets.workers import PackedBatch, from_workers, prepare_worker
from utils.errors import UserError
from utils.limits import MAX_PIXELS
from utils.media import PictureError, read_pixels

Batch = tuple[list[Tensor], list[Target]]


def scene_pixels(scene: Scene, max_pixels: int = MAX_PIXELS) -> Tensor:
    """The scene's picture [3, H, W] uint8.

    Raises: UserError: if it cannot be read, or has another size than the annotation file records,
        so that the boxes belong to another version of it.
    """
    image = read_pixels(scene.path, scene.upright, max_pixels)
    height, width = image.shape[1:]
    if scene.size and scene.size != (width, height):
        raise UserError(
            f"{scene.path}: expected {scene.size[0]} x {scene.size[1]} pixels, the width and "
            f"height in the annotation file, found {width} x {height}: its boxes do not belong to "
            "this picture"
        )
    return image


class SceneDataset(Dataset):
    """(image [3, H, W] uint8, target) of each scene.

    With `train`, boxes are clipped to the image, those left without area are dropped, and half of
    the images are mirrored. Otherwise boxes stay as annotated. `damaged` and `outside` fill up
    while a loader runs: messages of the images skipped, and boxes dropped by image.
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
    ):
        self.scenes, self.train, self.seed, self.skip_damaged = scenes, train, seed, skip_damaged
        self.augmentations = tuple(augmentations)
        self.max_pixels = max_pixels
        self.shares = list(shares) or [(len(scenes), 1.0)]
        self.damaged: dict[str, str] = {}
        self.outside: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Target]:
        """Scene `index`, or (epoch, index); UserError where the image cannot be read."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        scene = self.scenes[index]
        image = scene_pixels(scene, self.max_pixels)
        boxes, labels = torch.from_numpy(scene.boxes), torch.from_numpy(scene.pids)
        if self.train:
            height, width = image.shape[1:]
            boxes = boxes.clamp(max=boxes.new_tensor([width, height, width, height]))
            inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
            boxes, labels = boxes[inside], labels[inside]
            if np.random.default_rng([self.seed, epoch, index]).random() < 0.5:
                image = image.flip(2)
                boxes = torch.stack(
                    [width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1
                )
            if self.augmentations:
                rng = np.random.default_rng([self.seed, epoch, index, 1])
                target = {"boxes": boxes, "labels": labels}
                return augment(image, target, self.augmentations, rng)
        return image, {"boxes": boxes, "labels": labels}


class _Fetcher(Dataset):
    """What runs in a worker. A damaged image comes back as a message, since an exception would
    arrive wrapped in the worker's traceback; where it may be skipped, the next scene stands in."""

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
                if not isinstance(error, PictureError):  # the next one would fail as well
                    return first, None, {self.data.scenes[index].name: str(error)}
                damaged[self.data.scenes[index].name] = str(error)
        return first, None, damaged


class Loader:
    """Batches (list of images, list of targets) of a dataset, in the order of `keys`. However the
    iteration ends, no worker is left; UserError where workers cannot go on. pin: they go to a GPU,
    from memory that no one moves; a run on the CPU must not touch a GPU, which may be full."""

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
            generator=torch.Generator(),  # else each start draws from the global generator
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
        # A crop leaves out people, too, so that the boxes outside the image cannot be counted.
        if "crop" not in self.data.augmentations and len(item[1]["boxes"]) < len(scene.boxes):
            self.data.outside[scene.name] = len(scene.boxes) - len(item[1]["boxes"])


def epoch_length(shares: Sequence[tuple[int, float]]) -> int:
    """How many scenes an epoch has: of each part of n scenes and share s, n·s, rounded."""
    return sum(max(round(scenes * share), 1) for scenes, share in shares)


def epoch_batches(
    shares: Sequence[tuple[int, float]], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """The indices of an epoch's scenes in its order, cut into batches; the last may be smaller.

    Args:
        shares: (scenes, share) of each part of the training data. A part with a share below 1
            gives other scenes to each epoch; with a share above 1 it gives scenes repeatedly.
    """
    start, chosen = 0, []
    for number, (scenes, share) in enumerate(shares):
        repeats, rest = divmod(max(round(scenes * share), 1), scenes)
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
    """The batches of one epoch from `start_step` on. own: selects the scenes of a batch that this
    process reads; all of them by default."""
    batches = epoch_batches(data.shares, batch_size, seed, epoch)[start_step:]
    return Loader(data, [[(epoch, i) for i in own(batch)] for batch in batches], workers, pin)
