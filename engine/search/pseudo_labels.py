"""People that networks find in unlabelled pictures and videos, as custom data with scores."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert
from tqdm import tqdm

from datasets.importers.writer import put
from engine.evaluation.metrics import SEARCH_SCORE
from engine.index.tracklets import Tracklets
from engine.search.proposals import group
from engine.teachers.detectors import Detector
from engine.teachers.sources import Embeddings
from models.outputs import Detections
from utils.errors import UserError
from utils.files import make_folder
from utils.media import read_pixels
from utils.names import short_names
from utils.sources import VIDEO, LeftOut, MediaFile, unread
from utils.videos import Frame, sample_frames

FEWEST = 2  # boxes of an identity
LEAST = 1e-4  # score that is written
NamedBox = tuple[list[float], str | None, dict]  # x y w h, identity and score


@dataclass(frozen=True)
class PeopleFinder:
    """A detector and a re-id network.

    Attributes:
        reid: None: the detector embeds people itself, or there are no videos.
        min_score: boxes with a lower score are left out.
        max_pixels: larger pictures and frames are not decoded.
    """

    detector: Detector
    reid: Embeddings | None
    min_score: float
    max_pixels: int

    def find(self, pixels: Tensor) -> Detections:
        """Return the people of a picture [3, H, W] uint8, without the embeddings of `reid`."""
        return self.detector.detect([pixels], self.min_score)[0]

    def embed(self, pixels: Tensor, people: Detections) -> Detections:
        """Return people with the embeddings by which they are linked."""
        if self.reid is None:
            return people
        embeddings = people.boxes.new_zeros(0, self.reid.box_length)
        if len(people.boxes):
            [embeddings] = self.reid.embed([pixels], [people.boxes])
        return Detections(people.boxes, people.scores, embeddings)


@dataclass
class Tracked:
    """The boxes of a video that are linked.

    Attributes:
        tracklets: the tracklet of each box, from 0 on.
        frames: the frame of each box.
        embeddings: [n, D] of the n linked boxes of each frame.
        rows: for each box, all boxes of its frame, and its index among them.
    """

    tracklets: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    embeddings: list[Tensor] = field(default_factory=list)
    rows: list[tuple[list[NamedBox], int]] = field(default_factory=list)

    def identities(self, min_similarity: float | None) -> list[int]:
        """Return the identity of each box: its tracklet or, with `min_similarity`, the group of
        tracklets with such a mean similarity."""
        if min_similarity is None or not self.tracklets:
            return self.tracklets
        tracklets = np.array(self.tracklets)
        embeddings = torch.cat(self.embeddings).numpy()
        groups = group(embeddings, tracklets, np.array(self.frames), min_similarity)
        return groups[tracklets].tolist()


class PseudoLabelWriter:
    """A writer of pictures and frames, to images/ in a folder, with the people in them.

    Args:
        out: the folder.
        media: all that will be written.
        finder: the networks.
        every: seconds of a video in which one frame is taken; 0: each frame.
        min_similarity: mean similarity from which on tracklets of a video are one person; None:
            each is one.

    Attributes:
        scenes: as `datasets.coco_files.write_annotations` takes them.
        empty: the number of pictures and frames in which nobody was found; they are left out.
        left: what could not be read.
    """

    def __init__(
        self,
        out: Path,
        media: Sequence[MediaFile],
        finder: PeopleFinder,
        every: float,
        min_similarity: float | None,
    ):
        self.out, self.finder, self.every, self.min_similarity = out, finder, every, min_similarity
        self.names = short_names([file.path for file in media])
        self.scenes: list[tuple[dict, list[NamedBox]]] = []
        self.empty = 0
        self.left: list[LeftOut] = []

    def add(self, medium: MediaFile) -> None:
        """Write a picture, or the frames of a video."""
        target = Path("images", self.names[medium.path])
        if medium.kind == VIDEO:
            self._add_video(medium, target)
            return
        try:
            pixels = read_pixels(medium.path, True, self.finder.max_pixels)
        except UserError as error:
            self.left.append(unread(medium, error))
            return
        self._write(medium.path, target, pixels, self.finder.find(pixels), {})

    def _add_video(self, medium: MediaFile, target: Path) -> None:
        """Write the frames of a video to the folder `target`. Its tracklets are identities."""
        camera = target.relative_to("images").as_posix()
        tracklets, tracked, numbers = Tracklets(), Tracked(), count()
        before = ""
        for number, frame in enumerate(tqdm(self._frames(medium), medium.name, unit="frame")):
            people = self.finder.find(frame.pixels)
            sure = torch.where(people.scores >= SEARCH_SCORE)[0]
            seen = self.finder.embed(frame.pixels, people[sure])
            who = tracklets.extend(frame.time, seen, numbers)
            picture = Image.fromarray(frame.pixels.permute(1, 2, 0).numpy())
            second = f"{frame.time:010.3f}"
            name = f"{frame.time:013.6f}" if second == before else second
            path, before = target / f"{name}.jpg", second
            rows = self._write(picture, path, frame.pixels, people, {"camera": camera})
            tracked.tracklets += who
            tracked.frames += [number] * len(who)
            tracked.embeddings.append(seen.embeddings)
            tracked.rows += [(rows, place) for place in sure.tolist()]
        identities = tracked.identities(self.min_similarity)
        times = Counter(identities)
        names = {one: f"{camera}/{number}" for number, one in enumerate(times, 1)}
        for (rows, place), identity in zip(tracked.rows, identities):
            if times[identity] >= FEWEST:
                xywh, _, score = rows[place]
                rows[place] = xywh, names[identity], score

    def _frames(self, medium: MediaFile) -> Iterator[Frame]:
        """Yield the frames that can be read, and record what cannot."""
        remarks: list[str] = []
        limit = self.finder.max_pixels
        try:
            yield from sample_frames(medium.path, self.every, None, remarks.append, limit)
        except UserError as error:
            remarks.append(unread(medium, error).reason)
        self.left += [LeftOut(medium.name, f"a part, {remark}") for remark in remarks]

    def _write(
        self,
        source: Path | Image.Image,
        target: Path,
        pixels: Tensor,
        people: Detections,
        about: dict,
    ) -> list[NamedBox]:
        """Write a picture with people, and return these; a picture without people is counted."""
        if not len(people.boxes):
            self.empty += 1
            return []
        make_folder((self.out / target).parent, "--out")
        put(source, self.out / target)
        boxes = box_convert(people.boxes.double(), "xyxy", "xywh").numpy().round(2).tolist()
        scores = people.scores.double().numpy().clip(LEAST, 1).round(4).tolist()
        rows: list[NamedBox] = [
            (xywh, None, {"score": score}) for xywh, score in zip(boxes, scores)
        ]
        height, width = pixels.shape[1:]
        image = {"file_name": target.as_posix(), "width": width, "height": height}
        self.scenes.append((image | about, rows))
        return rows
