"""All detections of a gallery in one flat list, and which of them a query's list holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gallery:
    """N detections of I images, in gallery order."""

    boxes: Tensor  # [N, 4] float64 x1 y1 x2 y2, pixels
    scores: Tensor  # [N]
    feats: Tensor | None  # [N, D]
    image: Tensor  # [N] int64
    counts: Tensor  # [I] int64: detections of an image
    starts: Tensor  # [I] int64: its first one

    @staticmethod
    def above(
        dets: Sequence[Tensor], feats: Sequence[Tensor] | None, score_thr: float
    ) -> "Gallery":
        """dets: [n, 5] per image, feats: [n, D] per image -> those with a score >= score_thr."""
        flat = join(dets, 5)
        keep = flat[:, 4] >= score_thr
        image = row_of_each(dets)[keep]
        counts = torch.bincount(image, minlength=len(dets))
        kept = None
        if feats is not None:  # image by image: only those kept are copied
            kept = torch.cat([f[d[:, 4] >= score_thr] for d, f in zip(dets, feats)])
        starts = counts.cumsum(0) - counts
        return Gallery(flat[keep, :4].double(), flat[keep, 4], kept, image, counts, starts)


def join(parts: Sequence[Tensor], width: int) -> Tensor:
    """Rows of all parts in one tensor; [0, width] of none."""
    return torch.cat(list(parts)) if len(parts) else torch.zeros(0, width)


def row_of_each(parts: Sequence[Tensor]) -> Tensor:
    """For each row of the joined parts, the number of its part: int64 [sum of lengths]."""
    return torch.arange(len(parts)).repeat_interleave(torch.tensor([len(p) for p in parts]).long())


def spread(starts: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Ranges start..start+count -> (number of the range, member) for each member of each range."""
    owner = torch.arange(len(counts)).repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    return owner, torch.arange(len(owner)) + (starts - before)[owner]


def cut(sizes: Tensor, most: int) -> list[slice]:
    """Things in a row, of so many members each: runs of about `most` members, of one thing or more
    where they are larger."""
    before = sizes.cumsum(0) - sizes
    lengths = torch.unique_consecutive(before // most, return_counts=True)[1]
    return [slice(int(e - n), int(e)) for n, e in zip(lengths, lengths.cumsum(0))]


def pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """a, b: [P, 4] x1 y1 x2 y2 -> intersection over union of each pair [P]; 0 without area."""
    side = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    shared = side.prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    return torch.where(shared > 0, shared / union, 0.0)


def listing(listed: Tensor, gallery: Gallery) -> tuple[Tensor | None, Tensor]:
    """The detections that c queries search: index [c, L], None for all N in order; weights [c, L].

    listed: [c, I] uint8, how often an image stands in a list. The weight of a detection is that
    number; columns that fill up a shorter list weigh 0. Short lists are gathered, so that ranking
    100 images does not cost as much as 7,000; long ones take every detection as it lies.
    """
    if 4 * int(listed.count_nonzero()) > listed.numel():
        return None, listed.float().index_select(1, gallery.image)
    row, image = listed.nonzero(as_tuple=True)
    owner, detection = spread(gallery.starts[image], gallery.counts[image])
    row, weight = row[owner], listed[row, image][owner].float()
    lengths = torch.bincount(row, minlength=len(listed))
    place = torch.arange(len(row)) - (lengths.cumsum(0) - lengths)[row]
    index = torch.zeros(len(listed), int(lengths.max()), dtype=torch.long)
    weights = torch.zeros(index.shape)
    index[row, place], weights[row, place] = detection, weight
    return index, weights
