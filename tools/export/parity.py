"""Comparison of an exported network with PyTorch: the same detections on a few pictures."""

from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor
from torch.nn import functional as F

from models.network import Network
from utils.media import read_pixels

DEMO = Path(__file__).parents[2] / "demo_imgs"
PICTURES = [DEMO / "hall_1.jpg", DEMO / "street.jpg", DEMO / "plaza.jpg"]
PIXELS, NUMBERS = 0.05, 1e-3  # largest allowed difference of boxes and of embeddings


@dataclass(frozen=True)
class Difference:
    """The differences between two networks on one picture.

    Attributes:
        plain, other: number of detections of each network.
        boxes, scores, embeddings: largest difference between a detection of one network and the
            nearest detection of the other; boxes in pixels.
        queries: largest difference between the embeddings of the query boxes.
    """

    plain: int
    other: int
    boxes: float
    scores: float
    embeddings: float
    queries: float

    @property
    def same(self) -> bool:
        """Whether all differences but those of scores are within PIXELS and NUMBERS."""
        return (
            self.plain == self.other
            and self.boxes <= PIXELS
            and max(self.embeddings, self.queries) <= NUMBERS
        )


def compare(plain: Network, other: Network, image: Tensor) -> Difference:
    """Compare two networks on an image [3, H, W] uint8.

    The query boxes are the size of a person, of the whole image and of one pixel.
    """
    height, width = image.shape[1:]
    places = [[0.2, 0.2, 0.4, 0.9], [0, 0, 1, 1], [0.5, 0.5, 0.5 + 1 / width, 0.5 + 1 / height]]
    boxes = torch.tensor(places) * torch.tensor([width, height, width, height])
    ((ours,), (query,)), ((theirs,), (other_query,)) = (
        net.detect_and_embed([image], [boxes]) for net in (plain, other)
    )
    counts, queries = (len(ours.boxes), len(theirs.boxes)), _largest(query - other_query)
    if not min(counts):
        return Difference(*counts, 0.0, 0.0, 0.0, queries)
    nearest = theirs[torch.cdist(ours.boxes, theirs.boxes, p=torch.inf).argmin(dim=1)]
    return Difference(
        *counts,
        _largest(ours.boxes - nearest.boxes),
        _largest(ours.scores - nearest.scores),
        _largest(ours.embeddings - nearest.embeddings),
        queries,
    )


def _largest(difference: Tensor) -> float:
    return difference.abs().max().item()


def check(plain: Network, other: Network, path: Path, images: dict[str, Tensor]) -> bool:
    """Print the differences between two networks on each image, and return whether they agree.

    Args:
        plain: the network in PyTorch.
        other: the network in the file at `path`.
        images: by name, each [3, H, W] uint8.
    """
    found = [compare(plain, other, image) for image in images.values()]
    rows = [
        [f"{name} {image.shape[2]}×{image.shape[1]}", *astuple(one)]
        for (name, image), one in zip(images.items(), found)
    ]
    head = ["detections", "in ONNX", "boxes, px", "scores", "embeddings", "query embeddings"]
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; largest differences from PyTorch")
    print(tabulate(rows, ["", *head], floatfmt=".1e"))
    if not any(one.plain for one in found):
        print("no detections in these pictures: give other pictures with --check")
    return all(one.same for one in found)


def pictures(paths: list[Path]) -> dict[str, Tensor]:
    """Read pictures, each [3, H, W] uint8.

    The three PICTURES are given three different shapes: one stays as it is, one is transposed, and
    one becomes small with odd sides.
    """
    images = {str(path): read_pixels(path, upright=True) for path in paths}
    if paths is not PICTURES:
        return images
    (first, as_is), (second, turned), (third, small) = images.items()
    small = F.interpolate(small[None], (203, 331), mode="bilinear", antialias=True)[0]
    return {first: as_is, second: turned.transpose(1, 2), third: small}
