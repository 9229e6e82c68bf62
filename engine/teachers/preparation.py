"""The preparation of pictures for a network of another program.

A YAML file beside the network describes it (docs/teachers.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from configs.files import parse
from models.pixels import IMAGENET_MEAN, IMAGENET_STD
from utils.errors import UserError
from utils.files import read_text
from utils.names import shown

COLOURS = ("rgb", "bgr")


@dataclass(frozen=True)
class Preparation:
    """The preparation of a network's input.

    Attributes:
        size: height and width.
        colours: "rgb" or "bgr".
        mean, deviation: of pixels in 0..1, in the order of `colours`.
    """

    size: tuple[int, int]
    colours: str = "rgb"
    mean: tuple[float, ...] = tuple(IMAGENET_MEAN)
    deviation: tuple[float, ...] = tuple(IMAGENET_STD)

    def __call__(self, image: Tensor) -> Tensor:
        """Convert an RGB image or a part of one, [3, H, W] uint8, to [3, height, width]."""
        pixels = resize(image, list(self.size), antialias=True).float() / 255
        pixels = pixels if self.colours == "rgb" else pixels.flip(0)
        return (pixels - pixels.new_tensor(self.mean)[:, None, None]) / pixels.new_tensor(
            self.deviation
        )[:, None, None]


def crops_of(image: Tensor, boxes: Tensor) -> list[Tensor]:
    """Return the parts of an image [3, H, W] inside the boxes [n, 4], at least one pixel each."""
    height, width = image.shape[1:]
    low, high = boxes[:, :2].floor().long(), boxes[:, 2:].ceil().long()
    low = low.clamp(min=0).minimum(low.new_tensor([width - 1, height - 1]))
    high = high.maximum(low + 1)
    corners = torch.cat([low, high], 1).tolist()
    return [image[:, top:bottom, left:right] for left, top, right, bottom in corners]


Check = Callable[[Any], bool]


def numbers(count: int) -> Check:
    return lambda value: (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    )


def is_size(value: Any) -> bool:
    return numbers(2)(value) and all(type(v) is int and v > 0 for v in value)


def is_output(value: Any) -> bool:
    return isinstance(value, str) or type(value) is int


# Key -> its check, what is expected, and its value where it is absent; a key without one is needed.
FIELDS: dict[str, tuple[Any, ...]] = {
    "size": (is_size, "height and width in pixels, as [256, 128]"),
    "colours": (lambda v: v in COLOURS, " or ".join(COLOURS), "rgb"),
    "mean": (numbers(3), "three numbers, of pixels in 0..1", IMAGENET_MEAN),
    "deviation": (
        lambda v: numbers(3)(v) and all(v),
        "three numbers other than 0, of pixels in 0..1",
        IMAGENET_STD,
    ),
}
OUTPUT: dict[str, tuple[Any, ...]] = {
    "output": (is_output, "the name or the number of an output", None)
}


def description_of(file: str | Path) -> Path:
    """Return the path of the YAML file that describes a network's file: `teacher.yaml` for
    `teacher.onnx`."""
    return Path(file).with_suffix(".yaml")


def read_fields(path: Path, fields: dict[str, tuple[Any, ...]], what: str) -> dict[str, Any]:
    """Read a description.

    Args:
        path: of the YAML file.
        fields: as FIELDS.
        what: the network's file with the option that names it, for messages.

    Raises:
        UserError: if the file is missing, or has unknown or wrong keys.
    """
    if not path.is_file():
        needed = [key for key, rule in fields.items() if len(rule) == 2]  # without a default
        raise UserError(
            f"{what}: expected {path.name} beside it with {', '.join(needed)}, "
            "found no such file (docs/teachers.md)"
        )
    content = parse(read_text(path, ""), f"{path}: ")
    for key in content:
        if key not in fields:
            raise UserError(f"{path}: {shown(key)}: expected one of {', '.join(fields)}")
    return {key: _value(path, key, content, *rule) for key, rule in fields.items()}


def _value(path: Path, key: str, content: dict, check: Check, expected: str, *absent: Any) -> Any:
    if key not in content and absent:
        return absent[0]
    if key not in content or not check(content[key]):
        raise UserError(f"{path}: {key}: expected {expected}, found {shown(content.get(key))}")
    return content[key]


def preparation_of(values: dict[str, Any]) -> Preparation:
    """Return the preparation that the values of a description define."""
    height, width = values["size"]
    return Preparation(
        (height, width), values["colours"], tuple(values["mean"]), tuple(values["deviation"])
    )


def check_input(where: str, shape: Sequence[Any], size: tuple[int, int]) -> int:
    """Compare a network's input with the description.

    Args:
        where: the YAML file.
        shape: of the input, with whole numbers for fixed dimensions.
        size: height and width in the description.

    Returns:
        The number of pictures that the network accepts at once; 0 for any.

    Raises:
        UserError: if the network expects other pictures.
    """
    fixed = [length if isinstance(length, int) else None for length in shape]
    if len(fixed) != 4 or any(
        own not in (None, given) for own, given in zip(fixed[1:], (3, *size))
    ):
        said = " x ".join("any" if length is None else str(length) for length in fixed)
        raise UserError(
            f"{where}: size: expected that of the network, whose input is {said} (pictures, "
            f"colours, height, width), found {size[0]} x {size[1]}"
        )
    return fixed[0] or 0
