"""The outputs of a teacher that are cached: values of each annotated box and of each picture."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from configs.ranges import flatten
from engine.default_network import network_of
from engine.metadata import inference_keys
from engine.onnx_net import INPUTS, OUTPUTS
from engine.onnx_net import SUFFIX as ONNX
from engine.teachers.choice import REID_TEACHER, TORCHVISION
from engine.teachers.networks import read_crop_network, session_of
from models.cached_teacher import outputs_on
from models.search_net import SearchNet
from models.timm_networks import TIMM
from utils.weight_files import SAFETENSORS


class Embedder(Protocol):
    """A network, of this project or of another program, that embeds boxes of images."""

    def embed(self, images: list[Tensor], boxes: list[Tensor]) -> list[Tensor]:
        """Return unit embeddings [n_i, D] of the boxes [n_i, 4] of each image [3, H, W] uint8."""


class TeacherSource(Protocol):
    """The interface between a teacher and the cache.

    Attributes:
        digest: of everything that the values depend on, except picture and boxes.
        box_length: number of values of a box, and likewise of its mirror image.
        picture_length: number of values of a picture.
    """

    digest: str
    box_length: int
    picture_length: int

    def compute(self, images: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the values of a picture and its mirror image.

        Args:
            images: both, [3, H, W] uint8.
            boxes: [n, 4] in each, in pixels.

        Returns:
            Of the boxes [n, 2, box_length], and of the picture [picture_length].
        """


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of a re-id teacher.

    Args:
        device: of the network.
    """

    net: Embedder
    digest: str
    box_length: int
    device: torch.device
    picture_length: int = 0

    def embed(self, images: list[Tensor], boxes: list[Tensor]) -> list[Tensor]:
        """Return embeddings as Embedder.embed, on the CPU."""
        moved = (on_device(images, self.device), on_device(boxes, self.device))
        return [one.float().cpu() for one in self.net.embed(*moved)]

    def compute(self, images: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See TeacherSource."""
        return torch.stack(self.embed(images, boxes), 1), torch.zeros(0)


def on_device(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    return [one.to(device) for one in tensors]


@dataclass(frozen=True)
class OwnTeacher:
    """The embeddings, the class logits, and the logits of background boxes of a checkpoint of this
    project.

    Args:
        regions: the number of background boxes.
    """

    net: SearchNet
    weights: str
    regions: int

    @cached_property
    def digest(self) -> str:
        """See TeacherSource."""
        sizes = self.net.transform.min_size, self.net.transform.max_size
        return f"{self.weights} {sizes} {self.regions}"

    @property
    def box_length(self) -> int:
        """See TeacherSource."""
        return int(self.net.oim.dim) + 2

    @property
    def picture_length(self) -> int:
        """See TeacherSource."""
        return self.regions * (4 + 2 + 2)

    def compute(self, images: list[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See TeacherSource."""
        device = self.net.oim.lut.device
        moved = on_device(images, device), on_device(boxes, device)
        embeddings, logits, shares, background = outputs_on(self.net, *moved, self.regions)
        people = [torch.cat(pair, 1) for pair in zip(embeddings, logits)]
        numbers = [shares, *background]
        return torch.stack(people, 1).cpu(), torch.cat([n.flatten() for n in numbers]).cpu()


def read_reid_teacher(name: str, device: torch.device, option: str = REID_TEACHER) -> Embeddings:
    """Read a re-id teacher, as a value of DISTILLER.REID_TEACHER names it.

    It is a network of this project (a checkpoint, weights or an ONNX file) or of another program.

    Args:
        option: the config key or option that names it.

    Raises:
        UserError: if it is missing, damaged, or does not fit its description.
    """
    if is_own_network(name, device, option):
        cfg, checkpoint = network_of(None, name, option=option)
        values = flatten(cfg)
        digest = " ".join([checkpoint.digest, *(str(values[key]) for key in inference_keys(cfg))])
        net = checkpoint.network(cfg, device)
        return Embeddings(net, digest, cfg.MODEL.EMBEDDING_SIZE, device)
    network = read_crop_network(name, option, device)
    return Embeddings(network, network.digest, network.length(), device)


def is_own_network(name: str, device: torch.device, option: str) -> bool:
    """Return whether a file is a network of this project.

    Such a file is a checkpoint, weights, or an ONNX file that tools.export_onnx wrote.
    """
    suffix = "" if name.startswith((TIMM, TORCHVISION)) else Path(name).suffix
    if suffix != ONNX:
        return suffix in (".pth", SAFETENSORS)
    session = session_of(name, option, device)
    found = [one.name for one in (*session.get_inputs(), *session.get_outputs())]
    return found == [*INPUTS, *OUTPUTS]
