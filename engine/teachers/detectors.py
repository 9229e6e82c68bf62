"""Detectors of other programs, which find people in pictures: ONNX files and torchvision's.

An ONNX file has a YAML file beside it, which describes its pictures and its outputs
(docs/teachers.md).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import detection, get_model, list_models
from torchvision.ops import box_convert, clip_boxes_to_image
from torchvision.transforms.v2.functional import resize

from engine.teachers.choice import TORCHVISION
from engine.teachers.networks import one_input, session_of
from engine.teachers.preparation import (
    FIELDS,
    Preparation,
    check_input,
    description_of,
    is_output,
    preparation_of,
    read_fields,
)
from models.filtering import DetectionLimits, filter_detections
from models.outputs import Detections
from utils.errors import UserError, first_of, reason_of
from utils.weight_files import read_tensors, select_tensors

TORCHVISION_PERSON = 1  # the label of people in COCO, which torchvision's detectors are trained on
OVERLAP, COUNT = 0.5, 300  # of the detections that are kept where the network does no NMS
GREY = 114  # of the padding, as in Ultralytics' networks
COLUMNS = re.compile(r"(.+)\[(\d+)(?::(\d+))?\]", re.DOTALL)


class Detector(Protocol):
    """A network that finds people. Embeddings of other programs' detectors have no columns."""

    def detect(self, pictures: Sequence[Tensor], min_score: float) -> list[Detections]:
        """Return the people of pictures [3, H, W] uint8 with such a score, the best first."""


def choice(*names: str) -> tuple[Callable[[Any], bool], str, str]:
    """Return the rule of a key whose value is one of some names, by default the first."""
    return (lambda value: value in names, " or ".join(names), names[0])


def is_label(value: Any) -> bool:
    return type(value) is int and value >= 0


IS_PART = (is_output, "the name or the number of an output, and its columns, as output0[0:4]")
IS_FLAG = (lambda value: isinstance(value, bool), "true or false", False)
OUTPUT_FIELDS: dict[str, tuple[Any, ...]] = {
    "fit": choice("stretch", "centre", "corner"),
    "boxes": IS_PART,
    "scores": IS_PART,
    "labels": (*IS_PART, None),
    "person": (is_label, "the label or the class of people, a whole number", None),
    "transposed": IS_FLAG,
    "form": choice("xyxy", "xywh", "cxcywh"),
    "unit": choice("pixels", "shares"),
    "nms": IS_FLAG,
}


@dataclass(frozen=True)
class OutputPart:
    """An output of a network, or some columns of it."""

    output: str
    columns: slice | None = None


def part_of(value: str | int, outputs: Sequence[str], where: str) -> OutputPart:
    """Return the part of the outputs that a value in a description names.

    Raises:
        UserError: if there is no such output.
    """
    name, columns = value, None
    if isinstance(value, str) and value not in outputs and (found := COLUMNS.fullmatch(value)):
        first = int(found[2])
        name, columns = found[1], slice(first, int(found[3]) if found[3] else first + 1)
    if isinstance(name, int) and 0 <= name < len(outputs):
        name = outputs[name]
    if name not in outputs:
        raise UserError(
            f"{where}: expected one of the network's outputs, {first_of(outputs, 9)}, "
            f"found {value!r}"
        )
    return OutputPart(str(name), columns)


@dataclass(frozen=True)
class Layout:
    """What the outputs of a detector are; the values of its description.

    where: the description, for messages.
    """

    where: str
    boxes: OutputPart
    scores: OutputPart
    labels: OutputPart | None
    person: int | None
    transposed: bool
    form: str
    unit: str
    nms: bool

    def read(self, outputs: Mapping[str, Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the people's boxes [n, 4] x1 y1 x2 y2 in pixels of the input, and scores [n].

        Args:
            outputs: by name.
            size: height and width of the input.

        Raises:
            UserError: if the outputs are not as described.
        """
        boxes = self._table(outputs, self.boxes)
        if boxes.shape[1] != 4:
            raise UserError(
                f"{self.where}: boxes: expected 4 numbers for each box, found {boxes.shape[1]}"
            )
        boxes = box_convert(boxes, self.form, "xyxy")
        if self.unit == "shares":
            boxes = boxes * boxes.new_tensor([*size[::-1]] * 2)
        scores = self._numbers(outputs, self.scores, "scores", len(boxes))
        if scores.shape[1] > 1:
            if self.person is None or self.person >= scores.shape[1]:
                raise UserError(
                    f"{self.where}: person: expected a class below {scores.shape[1]}, the number "
                    f"of scores of each box, found {self.person}"
                )
            scores = scores[:, self.person, None]
        person = torch.ones(len(boxes), dtype=torch.bool)
        if self.labels is not None:
            person = self._numbers(outputs, self.labels, "labels", len(boxes))[:, 0] == self.person
        return boxes[person], scores[person, 0]

    def _table(self, outputs: Mapping[str, Tensor], part: OutputPart) -> Tensor:
        """Return an output as a matrix, without leading dimensions of length 1."""
        table = outputs[part.output].float()
        while table.dim() > 2 and len(table) == 1:
            table = table[0]
        table = table[:, None] if table.dim() == 1 else table
        if table.dim() != 2:
            shape = " x ".join(map(str, table.shape))
            raise UserError(f"{self.where}: {part.output}: expected a matrix, found {shape}")
        table = table.T if self.transposed else table
        return table if part.columns is None else table[:, part.columns]

    def _numbers(
        self, outputs: Mapping[str, Tensor], part: OutputPart, key: str, count: int
    ) -> Tensor:
        """Return the numbers [count, k] of each box."""
        table = self._table(outputs, part)
        if not count:
            return table.new_zeros(0, 1)
        if table.numel() == count:
            return table.reshape(count, 1)
        if len(table) != count or not table.numel():
            raise UserError(
                f"{self.where}: {key}: expected a row for each of {count} boxes, found "
                f"{' x '.join(map(str, table.shape))} numbers"
            )
        return table


@dataclass(frozen=True)
class OnnxDetector:
    """A detector in an ONNX file.

    Attributes:
        where: the option and the file.
        prepare: from pixels to the network's input, once a picture is fitted.
        fit: "stretch", "centre" or "corner".
        layout: of the outputs.
        run: from the input [1, 3, height, width] to the outputs by name.
    """

    where: str
    prepare: Preparation
    fit: str
    layout: Layout
    run: Callable[[Tensor], dict[str, Tensor]]

    def detect(self, pictures: Sequence[Tensor], min_score: float) -> list[Detections]:
        """See Detector."""
        return [self._detect(picture, min_score) for picture in pictures]

    def check(self) -> None:
        """Run the network on a grey picture.

        Raises:
            UserError: if it cannot be run, or its outputs are not as described.
        """
        try:
            self._detect(torch.full((3, *self.prepare.size), GREY, dtype=torch.uint8), 0.5)
        except UserError:
            raise
        except Exception as error:  # of the runtime
            raise UserError(f"{self.where}: cannot be run ({reason_of(error)})") from None

    def _detect(self, picture: Tensor, min_score: float) -> Detections:
        fitted, scale, offset = fit_picture(picture, self.prepare.size, self.fit)
        outputs = self.run(self.prepare(fitted)[None])
        boxes, scores = self.layout.read(outputs, self.prepare.size)
        boxes = clip_boxes_to_image((boxes - offset) / scale, picture.shape[-2:])
        overlap = 1.0 if self.layout.nms else OVERLAP
        sure = scores >= min_score
        boxes, scores = boxes[sure], scores[sure].clamp(max=1)
        keep = filter_detections(boxes, scores, DetectionLimits(0.0, overlap, COUNT))
        return without_embeddings(boxes[keep], scores[keep])


def without_embeddings(boxes: Tensor, scores: Tensor) -> Detections:
    return Detections(boxes, scores, boxes.new_zeros(len(boxes), 0))


def fit_picture(picture: Tensor, size: tuple[int, int], fit: str) -> tuple[Tensor, Tensor, Tensor]:
    """Resize and pad a picture [3, H, W] uint8 to a detector's input.

    Args:
        size: height and width of the input.
        fit: "stretch" changes the ratio of the sides; "centre" pads around the picture, "corner"
            on the right and at the bottom.

    Returns:
        The picture, and the factor and the offset of boxes in it, [4] each.
    """
    height, width = picture.shape[1:]
    scales = [size[1] / width, size[0] / height]
    if fit == "stretch":
        return picture, torch.tensor(scales * 2), torch.zeros(4)
    sides = [max(round(side * min(scales)), 1) for side in (height, width)]
    rest = [size[0] - sides[0], size[1] - sides[1]]
    top, left = (rest[0] // 2, rest[1] // 2) if fit == "centre" else (0, 0)
    resized = resize(picture, sides, antialias=True)
    padded = F.pad(resized, (left, rest[1] - left, top, rest[0] - top), value=GREY)
    scale = torch.tensor([sides[1] / width, sides[0] / height] * 2)
    return padded, scale, torch.tensor([left, top] * 2)


def read_onnx_detector(name: str, option: str, device: torch.device) -> OnnxDetector:
    """Read a detector in an ONNX file with its description beside it.

    Raises:
        UserError: if it is missing, damaged, or does not fit its description.
    """
    beside, where = description_of(name), f"{option} {name}"
    session = session_of(name, option, device)
    source = one_input(session, where)
    values = read_fields(beside, FIELDS | OUTPUT_FIELDS, where)
    if values["labels"] is not None and values["person"] is None:
        raise UserError(f"{beside}: person: expected the label of people, found none")
    if check_input(str(beside), source.shape, tuple(values["size"])) > 1:
        raise UserError(
            f"{where}: expected a network of one picture at a time, found {source.shape[0]}"
        )
    names = [one.name for one in session.get_outputs()]
    parts = {
        key: None if values[key] is None else part_of(values[key], names, f"{beside}: {key}")
        for key in ("boxes", "scores", "labels")
    }
    rest = {key: values[key] for key in ("person", "transposed", "form", "unit", "nms")}
    layout = Layout(str(beside), **parts, **rest)

    def run(pictures: Tensor) -> dict[str, Tensor]:
        outputs = session.run(names, {source.name: pictures.numpy()})
        return {one: torch.from_numpy(array) for one, array in zip(names, outputs)}

    detector = OnnxDetector(where, preparation_of(values), values["fit"], layout, run)
    detector.check()
    return detector


@dataclass(frozen=True)
class TorchvisionDetector:
    """A detector of torchvision, which was trained on COCO."""

    net: nn.Module
    device: torch.device

    @torch.inference_mode()
    def detect(self, pictures: Sequence[Tensor], min_score: float) -> list[Detections]:
        """See Detector."""
        found = []
        for picture in pictures:
            [output] = self.net([picture.to(self.device).float() / 255])
            keep = (output["labels"] == TORCHVISION_PERSON) & (output["scores"] >= min_score)
            boxes, scores = output["boxes"][keep].cpu(), output["scores"][keep].cpu()
            found.append(without_embeddings(boxes, scores))
        return found


def read_torchvision(name: str, option: str, device: torch.device) -> TorchvisionDetector:
    """Build a detector of torchvision.

    Args:
        name: after "torchvision:", with "=FILE" for the weights in a file; otherwise they are
            downloaded.

    Raises:
        UserError: if there is none of this name, or its weights cannot be read.
    """
    where = f"{option} {TORCHVISION}{name}"
    kind, _, file = name.partition("=")
    names = list_models(module=detection)
    if kind not in names:
        raise UserError(f"{where}: expected one of {', '.join(names)}")
    if not file:
        try:
            net = get_model(kind, weights="DEFAULT")
        except Exception as error:  # of the download, of many kinds
            raise UserError(f"{where}: weights cannot be read ({reason_of(error)})") from None
    else:
        net = get_model(kind, weights=None, weights_backbone=None)
        own = {key: v for key, v in net.state_dict().items() if v.is_floating_point()}
        net.load_state_dict(select_tensors(read_tensors(file, option), own, where), strict=False)
    return TorchvisionDetector(net.to(device).eval(), device)


def read_detector(name: str, option: str, device: torch.device) -> Detector:
    """Read a detector of another program: an .onnx file, or torchvision:NAME[=FILE].

    Raises:
        UserError: if it is missing, damaged, or does not fit its description.
    """
    if name.startswith(TORCHVISION):
        return read_torchvision(name.removeprefix(TORCHVISION), option, device)
    if Path(name).suffix != ".onnx":
        raise UserError(
            f"{option} {name}: expected a checkpoint of this project (.pth, .safetensors), an "
            f".onnx file or {TORCHVISION}NAME"
        )
    return read_onnx_detector(name, option, device)
