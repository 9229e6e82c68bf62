"""Proposed labels: people whom a network finds in images or a video, grouped into identities."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from tqdm import tqdm

from datasets.importers.records import Box, LabelledImage, Labels
from engine.index import grouping
from engine.index.tracklets import link
from engine.search.searcher import Searcher
from models.outputs import Detections
from utils.errors import UserError
from utils.media import read_pixels
from utils.sources import LeftOut, MediaFile, unread
from utils.videos import read_frames


def propose_in_images(
    images: Sequence[MediaFile], searcher: Searcher, min_similarity: float
) -> tuple[Labels, list[LeftOut]]:
    """Return the people of each image with proposed identities, and the images that were left
    out."""
    labels, left, found = Labels(Path(), "proposals, images", []), [], []
    for image in tqdm(images, "images", unit="image"):
        try:
            pixels = read_pixels(image.path, True, searcher.max_pixels)
        except UserError as error:
            left.append(unread(image, error))
            continue
        found.append(searcher.detect([pixels])[0])
        height, width = pixels.shape[1:]
        labels.images.append(LabelledImage(image.name, [], (width, height), path=image.path))
    _name(labels, found, np.arange(sum(len(people.boxes) for people in found)), min_similarity)
    return labels, left


def propose_in_video(video: Path, searcher: Searcher, every: int, min_similarity: float) -> Labels:
    """Return the people in every `every`-th frame, with tracklets and proposed identities."""
    labels = Labels(video, "proposals, video", [], video=video.name, tracks=True)
    found: list[Detections] = []
    tracklets: list[int] = []
    for numbers, frames in _batches(video, every, searcher, labels.remarks):
        height, width = frames[0].shape[1:]
        for number, people in zip(numbers, searcher.detect(frames)):
            who = link(found[-1], people) if found else np.full(len(people.boxes), -1)
            before = tracklets[len(tracklets) - len(found[-1].boxes) :] if found else []
            for place in who.tolist():
                tracklets.append(before[place] if place >= 0 else max(tracklets, default=-1) + 1)
            found.append(people)
            name = f"frame_{number - 1:06d}.jpg"
            labels.images.append(LabelledImage(name, [], (width, height), frame=number - 1))
    _name(labels, found, np.array(tracklets, int), min_similarity)
    return labels


def _batches(
    video: Path, every: int, searcher: Searcher, remarks: list[str]
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Yield numbers and pixels of every `every`-th frame, in batches of the searcher's size."""
    numbers: list[int] = []
    frames: list[Tensor] = []
    every_frame = read_frames(video, remarks.append, searcher.max_pixels)
    for number, frame in tqdm(every_frame, video.name, unit="frame"):
        if (number - 1) % every:
            continue
        numbers.append(number)
        frames.append(pil_to_tensor(frame.convert("RGB")))
        if len(frames) == searcher.batch_size:
            yield numbers, frames
            numbers, frames = [], []
    if frames:
        yield numbers, frames


def _name(
    labels: Labels, found: list[Detections], tracklets: np.ndarray, min_similarity: float
) -> None:
    """Fill in the boxes of all images.

    Args:
        tracklets: [n], the tracklet of each of the n people, counted from 0.
    """
    if not len(tracklets):
        return
    embeddings = torch.cat([people.embeddings for people in found]).numpy()
    sample = np.repeat(np.arange(len(found)), [len(people.boxes) for people in found])
    identities = group(embeddings, tracklets, sample, min_similarity)
    rows = zip(identities[tracklets].tolist(), tracklets.tolist())
    for image, people in zip(labels.images, found):
        for x1, y1, x2, y2 in people.boxes.double().numpy().round(2).tolist():
            identity, tracklet = next(rows)
            xywh = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
            image.boxes.append(Box(xywh, str(identity), str(tracklet)))


def group(
    embeddings: np.ndarray, tracklets: np.ndarray, sample: np.ndarray, min_similarity: float
) -> np.ndarray:
    """Group tracklets into identities by average linkage of the similarity of their means.

    Tracklets that are in the same image (or frame) are different people.

    Args:
        embeddings: [n, D], unit.
        tracklets: [n], counted from 0.
        sample: [n], the image of each person, ascending.
        min_similarity: the mean similarity from which on two groups are joined.

    Returns:
        [tracklets] identities, counted from 1 in the order of their first images.
    """
    count = tracklets.max() + 1
    means = np.zeros((count, embeddings.shape[1]))
    np.add.at(means, tracklets, embeddings)
    means /= np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)
    first, last = np.full(count, len(sample)), np.full(count, -1)
    np.minimum.at(first, tracklets, sample)
    np.maximum.at(last, tracklets, sample)
    apart = (first[:, None] <= last) & (first <= last[:, None])
    np.fill_diagonal(apart, False)
    groups = grouping.group(means @ means.T, apart, min_similarity)
    _, start = np.unique(groups, return_index=True)
    rank = np.argsort(np.argsort(start)) + 1
    return rank[groups - 1]
