"""Public inference API: detect people in pictures, embed a person, search an index."""

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

from engine.checkpoint import Checkpoint
from engine.device import choose_device, precision_of
from engine.distributed import own_device
from engine.evaluation.metrics import SEARCH_SCORE
from engine.index.gallery_index import GalleryIndex
from engine.index.records import Match, Origin, PersonFilter
from models.fast.inference import optimize_for_inference
from models.network import Network
from models.outputs import Detections
from utils.errors import UserError, reason_of
from utils.limits import MAX_PIXELS
from utils.media import read_pixels, to_rgb

Picture = str | Path | Image.Image | Tensor  # a file, a Pillow image, or [3, H, W] uint8 RGB
PROBE = (32, 320)  # height and width of the probe picture: large aspect ratio, few pixels


class Searcher:
    """A network for users' pictures. Boxes are x1 y1 x2 y2 in pixels of the picture.

    Args:
        net: the network; it is put into evaluation mode.
        batch_size: pictures in one pass.
        amp: precision of the backbone; None: float32.
        name: path of the checkpoint.
        settings: config values that change embeddings, as text.
        max_pixels: larger pictures are not decoded.
    """

    def __init__(
        self,
        net: Network,
        device: torch.device,
        batch_size: int = 1,
        amp: torch.dtype | None = None,
        name: str = "",
        settings: str = "",
        max_pixels: int = MAX_PIXELS,
    ):
        self.net = net.eval()
        self.device = device
        self.batch_size = batch_size
        self.amp = amp
        self.name = name
        self.settings = settings
        self.max_pixels = max_pixels

    @staticmethod
    def load(cfg: CfgNode, ckpt: Checkpoint | str | Path) -> "Searcher":
        """Load the network of a checkpoint or an exported file.

        Args:
            ckpt: the file's content, or its path.

        Raises:
            UserError: if the file does not contain the config's network.
        """
        device = own_device(choose_device(cfg.DEVICE))
        amp = precision_of("EVAL_AMP", cfg.EVAL_AMP)
        sizes = f"INPUT.MIN_SIZE {cfg.INPUT.MIN_SIZE}, INPUT.MAX_SIZE {cfg.INPUT.MAX_SIZE}"
        checkpoint = ckpt if isinstance(ckpt, Checkpoint) else Checkpoint.read(ckpt)
        net = checkpoint.network(cfg, device)
        net = optimize_for_inference(net) if cfg.EVAL_FAST else net
        name, limit = str(checkpoint.path), cfg.INPUT.MAX_PIXELS
        return Searcher(net, device, cfg.INPUT.BATCH_SIZE_TEST, amp, name, sizes, limit)

    def detect(
        self, pictures: Sequence[Picture], min_score: float = SEARCH_SCORE
    ) -> list[Detections]:
        """Detect the people of each picture with a score of at least `min_score`.

        Pictures of different sizes are processed in separate batches: padding to a common size
        would change the features at a picture's border.

        Returns:
            One Detections per picture on the CPU, best score first, with unit embeddings.

        Raises:
            UserError: if a picture cannot be read, or is none.
        """
        if isinstance(pictures, str | Path | Image.Image):  # a text is a list of texts
            raise UserError(f"pictures: expected a list of pictures, found {pictures!r}")
        pixels = [to_pixels(picture, self.max_pixels) for picture in pictures]
        groups = defaultdict(list)
        for i, image in enumerate(pixels):
            groups[image.shape].append(i)
        found: dict[int, Detections] = {}
        for group in groups.values():
            for start in range(0, len(group), self.batch_size):
                some = group[start : start + self.batch_size]
                images = [pixels[i].to(self.device) for i in some]
                found |= dict(zip(some, self.net.detect(images, self.amp)))
        return [_above_threshold(found[i], min_score) for i in range(len(pixels))]

    def embed(self, picture: Picture, boxes: Tensor) -> Tensor:
        """Embed the people in boxes [n, 4]. Return unit embeddings [n, D] on the CPU."""
        image = to_pixels(picture, self.max_pixels).to(self.device)
        return self.net.embed([image], [boxes.to(self.device)], self.amp)[0].float().cpu()

    def search(
        self,
        query_embeddings: Tensor,
        index: GalleryIndex,
        top: int = 8,
        min_similarity: float = -np.inf,
        exclude: Collection[Path] = (),
        person_filter: PersonFilter | None = None,
    ) -> list[Match]:
        """Find the people who are most similar to the results of `embed`; see
        GalleryIndex.search."""
        return index.search(query_embeddings, top, min_similarity, exclude, person_filter)

    @cached_property
    def origin(self) -> Origin:
        """The identification of this network, which includes its embedding of a fixed random
        picture."""
        height, width = PROBE
        pixels = np.random.default_rng(0).integers(0, 256, (3, height, width), np.uint8)
        box = torch.tensor([[0.0, 0.0, width, height]])
        probe = self.embed(torch.from_numpy(pixels), box)[0]
        return Origin(self.name, self.settings, probe.numpy())


def aggregate_queries(queries: Tensor, how: str) -> Tensor:
    """Combine the embeddings of several queries, [q, D], for one search.

    Args:
        how: "mean" (several views of one person): the result is [1, D], and a similarity is the
            mean of the similarities to the queries. "max" (several people): the result is [q, D],
            and a similarity is their maximum.
    """
    return queries.mean(0, keepdim=True) if how == "mean" else queries


def to_pixels(picture: Picture, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Return a picture as [3, H, W] uint8. Files and Pillow images are oriented as in a viewer.

    Raises:
        UserError: if it cannot be read, or is none.
    """
    if isinstance(picture, Tensor) and picture.ndim == 3 and len(picture) == 3:
        return picture
    if isinstance(picture, Image.Image):
        try:  # Pillow decodes a file when its pixels are needed
            return pil_to_tensor(to_rgb(picture, upright=True))
        except Exception as error:  # its decoders raise many types
            raise UserError(f"picture: cannot be decoded ({reason_of(error)})") from None
    if isinstance(picture, str | Path):
        return read_pixels(picture, True, max_pixels)
    found = f"{type(picture).__name__} {list(getattr(picture, 'shape', ''))}".removesuffix(" []")
    raise UserError(
        f"picture: expected a path, a Pillow image or a tensor [3, H, W], found {found}"
    )


def _above_threshold(people: Detections, min_score: float) -> Detections:
    people = people[people.scores >= min_score]
    return Detections(people.boxes.cpu(), people.scores.cpu(), people.embeddings.float().cpu())
