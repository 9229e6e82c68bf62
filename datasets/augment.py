"""Augmentations of training images in addition to the published flip. INPUT.AUGMENT names them.

Each augmentation is a function of an image, its target and a NumPy generator, and is applied with
its probability in AUGMENTATIONS. They are applied in the order of that table, whatever the order of
their names in the config: changes of the scene come before effects of the camera.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from utils.errors import UserError
from utils.targets import Target, select

Augmentation = Callable[[Tensor, Target, np.random.Generator], tuple[Tensor, Target]]

LEAST_VISIBLE = 0.3  # share of a box that must be inside a crop for the person to stay labelled


def crop(image: Tensor, target: Target, rng: np.random.Generator) -> tuple[Tensor, Target]:
    """Cut out a window of the image's shape with 0.3 to 1 times its sides.

    The network resizes its input to one size, so a crop enlarges people, and cuts some of them at
    the border. Boxes are clipped to the window. A person loses their label if less than
    LEAST_VISIBLE of their box is inside the window. Ignore regions, whose "scores" are 0, stay.
    """
    height, width = image.shape[1:]
    side = rng.uniform(0.3, 1.0)
    h, w = max(int(side * height), 32), max(int(side * width), 32)
    h, w = min(h, height), min(w, width)
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    boxes = target["boxes"]
    moved = boxes - boxes.new_tensor([left, top, left, top])
    clipped = moved.clamp(min=0).minimum(boxes.new_tensor([w, h, w, h]))
    keep = _areas(clipped) >= LEAST_VISIBLE * _areas(boxes)
    if "scores" in target:
        keep |= target["scores"] == 0
    keep &= (clipped[:, 2:] > clipped[:, :2]).all(1)
    window = image[:, top : top + h, left : left + w].contiguous()
    return window, select(target | {"boxes": clipped}, keep)


def erase(image: Tensor, target: Target, rng: np.random.Generator) -> tuple[Tensor, Target]:
    """Cover up to a third of some people, and of equally large places elsewhere, with a rectangle
    of noise or of one colour (random erasing, Zhong et al., AAAI 2020)."""
    image = image.clone()
    height, width = image.shape[1:]
    for x1, y1, x2, y2 in target["boxes"].tolist():
        if rng.random() < 0.3:
            _cover(image, (x1, y1, x2, y2), rng)
        if rng.random() < 0.1:
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            _cover(image, (x, y, x + x2 - x1, y + y2 - y1), rng)
    return image, target


def colour(image: Tensor, target: Target, rng: np.random.Generator) -> tuple[Tensor, Target]:
    """Change brightness, contrast, saturation, hue, gamma and white balance."""
    image = F.adjust_brightness(image, rng.uniform(0.6, 1.4))
    image = F.adjust_contrast(image, rng.uniform(0.6, 1.4))
    image = F.adjust_saturation(image, rng.uniform(0.5, 1.5))
    image = F.adjust_hue(image, rng.uniform(-0.03, 0.03))
    image = F.adjust_gamma(image, rng.uniform(0.7, 1.4))
    balance = torch.from_numpy(rng.uniform(0.9, 1.1, (3, 1, 1))).float()
    return (image * balance).clamp(0, 255).to(torch.uint8), target


def grey(image: Tensor, target: Target, rng: np.random.Generator) -> tuple[Tensor, Target]:
    """Remove all colour."""
    return F.rgb_to_grayscale(image, num_output_channels=3), target


def blur(image: Tensor, target: Target, rng: np.random.Generator) -> tuple[Tensor, Target]:
    """Blur the image as a lens that is out of focus does, or lower its resolution and raise it
    again."""
    if rng.random() < 0.5:
        return F.gaussian_blur(image, [5, 5], [rng.uniform(0.3, 1.6)]), target
    height, width = image.shape[1:]
    share = rng.uniform(0.35, 0.9)
    small = F.resize(image, [max(int(height * share), 8), max(int(width * share), 8)])
    return F.resize(small, [height, width]), target


def noise(image: Tensor, target: Target, rng: np.random.Generator) -> tuple[Tensor, Target]:
    """Add Gaussian noise with a standard deviation of 2 to 15 of 255."""
    added = rng.standard_normal(tuple(image.shape), np.float32) * np.float32(rng.uniform(2, 15))
    return (image + torch.from_numpy(added)).clamp(0, 255).to(torch.uint8), target


def jpeg(image: Tensor, target: Target, rng: np.random.Generator) -> tuple[Tensor, Target]:
    """Compress as JPEG with a quality of 25 to 80."""
    file = io.BytesIO()
    pixels = image.permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=int(rng.integers(25, 81)))
    decoded = np.array(Image.open(file).convert("RGB"))
    return torch.from_numpy(decoded).permute(2, 0, 1).contiguous(), target


AUGMENTATIONS: dict[str, tuple[float, Augmentation]] = {
    "crop": (0.7, crop),
    "erase": (0.4, erase),
    "colour": (0.8, colour),
    "grey": (0.05, grey),
    "blur": (0.3, blur),
    "noise": (0.3, noise),
    "jpeg": (0.4, jpeg),
}


def check_augmentations(names: Sequence[str]) -> None:
    """Check the names in INPUT.AUGMENT.

    Raises:
        UserError: if one does not exist.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise UserError(
                f"INPUT.AUGMENT: expected names among {', '.join(AUGMENTATIONS)}; found {name}"
            )


def augment(
    image: Tensor, target: Target, names: Sequence[str], rng: np.random.Generator
) -> tuple[Tensor, Target]:
    """Apply each named augmentation with its probability.

    Args:
        image: [3, H, W] uint8, RGB.
        target: boxes inside the image, and labels.
        names: keys of AUGMENTATIONS.
        rng: the only source of randomness: the same state gives the same result.

    Returns:
        An image [3, H', W'] uint8 and its target; neither argument is changed.
    """
    for name, (probability, apply) in AUGMENTATIONS.items():
        if name in names and rng.random() < probability:
            image, target = apply(image, target, rng)
    return image, target


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)


def _cover(image: Tensor, box: tuple[float, float, float, float], rng: np.random.Generator) -> None:
    """Fill, in place, a random rectangle within the box that has 10 to 33 % of its area."""
    x1, y1, x2, y2 = box
    area, shape = rng.uniform(0.1, 0.33), rng.uniform(0.4, 2.5)
    w = min((area * shape) ** 0.5, 1.0) * (x2 - x1)
    h = min((area / shape) ** 0.5, 1.0) * (y2 - y1)
    left, top = rng.uniform(x1, x2 - w), rng.uniform(y1, y2 - h)
    rows, columns = slice(max(int(top), 0), int(top + h)), slice(max(int(left), 0), int(left + w))
    part = image[:, rows, columns]
    if rng.random() < 0.5:
        filling = rng.integers(0, 256, (3, 1, 1), np.uint8)
    else:
        filling = rng.integers(0, 256, tuple(part.shape), np.uint8)
    part[:] = torch.from_numpy(filling)
