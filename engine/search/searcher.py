"""One way in for programs: find the people of a picture, embed one of them, search for her."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from yacs.config import CfgNode

from engine.checkpoint import load_net
from engine.distributed import own_device
from engine.evaluation.extract import precision_of
from engine.evaluation.metrics import SEARCH_SCORE
from engine.index.gallery_index import GalleryIndex, Match, Origin
from models.build import choose_device
from models.fast.inference import optimize_for_inference
from models.network import Network
from models.outputs import Detections
from utils.media import read_pixels, to_rgb

Picture = str | Path | Image.Image | Tensor  # a file, a picture, or [3, H, W] uint8 RGB
PROBE = (32, 320)  # height and width of the picture that tells networks apart: long, hence cheap


class Searcher:
    """A network at work on a user's pictures; boxes are x1 y1 x2 y2 in a picture's pixels.

    name: the checkpoint's path; settings: those that change embeddings, in words; amp: the
    backbone's precision."""

    def __init__(
        self,
        net: Network,
        device: torch.device,
        batch_size: int = 1,
        amp: torch.dtype | None = None,
        name: str = "",
        settings: str = "",
    ):
        self.net = net.eval()
        self.device = device
        self.batch_size = batch_size
        self.amp = amp
        self.name = name
        self.settings = settings

    @staticmethod
    def load(cfg: CfgNode, ckpt: str | Path) -> "Searcher":
        """The network of a checkpoint, or of a file made from one; it must be the config's."""
        device = own_device(choose_device(cfg.DEVICE))
        amp = precision_of("EVAL_AMP", cfg.EVAL_AMP)
        sizes = f"INPUT.MIN_SIZE {cfg.INPUT.MIN_SIZE}, INPUT.MAX_SIZE {cfg.INPUT.MAX_SIZE}"
        net = load_net(cfg, ckpt, device)
        net = optimize_for_inference(net) if cfg.EVAL_FAST else net
        return Searcher(net, device, cfg.INPUT.BATCH_SIZE_TEST, amp, str(ckpt), sizes)

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """Everyone in each picture whose score is SEARCH_SCORE or more, best first, on the CPU;
        embeddings unit. Pictures of one size go together: beside a larger one a picture would be
        padded, which its edge would show."""
        pixels = [to_pixels(picture) for picture in pictures]
        groups = defaultdict(list)
        for i, image in enumerate(pixels):
            groups[image.shape].append(i)
        found: dict[int, Detections] = {}
        for group in groups.values():
            for start in range(0, len(group), self.batch_size):
                some = group[start : start + self.batch_size]
                boxes = [torch.zeros(0, 4)] * len(some)
                people, _ = self._run([pixels[i] for i in some], boxes)
                found |= dict(zip(some, people))
        return [_sure(found[i]) for i in range(len(pixels))]

    def embed(self, picture: Picture, boxes: Tensor) -> Tensor:
        """boxes [n, 4] -> unit embeddings [n, D], on the CPU."""
        return self._run([to_pixels(picture)], [boxes])[1][0].float().cpu()

    def search(
        self,
        wanted: Tensor,
        index: GalleryIndex,
        top: int = 8,
        least: float = -np.inf,
        besides: Collection[Path] = (),
    ) -> list[Match]:
        """The people most similar to those that `embed` gave, see GalleryIndex.search."""
        return index.search(wanted, top, least, besides)

    @cached_property
    def origin(self) -> Origin:
        """What tells this network from others: its embedding of a made-up picture."""
        height, width = PROBE
        pixels = np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8)
        box = torch.tensor([[0.0, 0.0, width, height]])
        probe = self.embed(torch.from_numpy(pixels), box)[0]
        return Origin(self.name, self.settings, probe.numpy())

    def _run(self, pixels: list[Tensor], boxes: list[Tensor]):
        images = [image.to(self.device) for image in pixels]
        return self.net.detect_and_embed(images, [b.to(self.device) for b in boxes], self.amp)


def aggregate_queries(queries: Tensor, how: str) -> Tensor:
    """queries: [q, D] -> what to search for. "mean": one [1, D], of which a person's similarity is
    the mean of hers to the queries, several views of one; "max": all [q, D], of which it is the
    largest, several people."""
    return queries.mean(0, keepdim=True) if how == "mean" else queries


def to_pixels(picture: Picture) -> Tensor:
    """[3, H, W] uint8; files, and Pillow's images, as a person sees them in a viewer."""
    if isinstance(picture, Tensor):
        return picture
    if isinstance(picture, Image.Image):
        return pil_to_tensor(to_rgb(picture, upright=True))
    return read_pixels(picture, upright=True)


def _sure(people: Detections) -> Detections:
    people = people[people.scores >= SEARCH_SCORE]
    return Detections(people.boxes.cpu(), people.scores.cpu(), people.embeddings.float().cpu())
