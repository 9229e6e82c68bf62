"""All detections of a gallery in flat tensors, and the selection of those that a query searches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gallery:
    """N detections of I images, in the order of the gallery."""

    boxes: Tensor  # [N, 4] float64 x1 y1 x2 y2, pixels
    scores: Tensor  # [N]
    feats: Tensor | None  # [N, D]
    image: Tensor  # [N] int64
    counts: Tensor  # [I] int64: detections of each image
    starts: Tensor  # [I] int64: index of the first detection of each image

    @staticmethod
    def above(
        dets: Sequence[Tensor], feats: Sequence[Tensor] | None, score_thr: float
    ) -> "Gallery":
        """Collect the detections with a score of at least `score_thr`.

        dets: [n, 5] x1 y1 x2 y2 score for each image; feats: [n, D] for each image.
        """
        flat = join(dets, 5)
        keep = flat[:, 4] >= score_thr
        image = row_of_each(dets)[keep]
        counts = torch.bincount(image, minlength=len(dets))
        kept = None
        if feats is not None:  # image by image, so that only the kept rows are copied
            kept = torch.cat([f[d[:, 4] >= score_thr] for d, f in zip(dets, feats)])
        starts = counts.cumsum(0) - counts
        return Gallery(flat[keep, :4].double(), flat[keep, 4], kept, image, counts, starts)


def join(parts: Sequence[Tensor], width: int) -> Tensor:
    """Concatenate the rows of all parts; without parts the result is [0, width]."""
    return torch.cat(list(parts)) if len(parts) else torch.zeros(0, width)


def row_of_each(parts: Sequence[Tensor]) -> Tensor:
    """Return the number of the part of each concatenated row, int64 [sum of lengths]."""
    return torch.arange(len(parts)).repeat_interleave(torch.tensor([len(p) for p in parts]).long())


def spread(starts: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Enumerate the members of the ranges start..start+count.

    Returns:
        For each member the number of its range, and the member, int64 [sum of counts] each.
    """
    owner = torch.arange(len(counts)).repeat_interleave(counts)
    before = counts.cumsum(0) - counts
    return owner, torch.arange(len(owner)) + (starts - before)[owner]


def cut(sizes: Tensor, most: int) -> list[slice]:
    """Divide consecutive items into slices of about `most` members.

    sizes: [n] members of each item. A slice holds at least one item.
    """
    before = sizes.cumsum(0) - sizes
    lengths = torch.unique_consecutive(before // most, return_counts=True)[1]
    return [slice(int(e - n), int(e)) for n, e in zip(lengths, lengths.cumsum(0))]


def pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of each pair of boxes, [P]; 0 if they have no area.

    a, b: [P, 4] x1 y1 x2 y2.
    """
    side = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    shared = side.prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    return torch.where(shared > 0, shared / union, 0.0)


def listing(listed: Tensor, gallery: Gallery) -> tuple[Tensor | None, Tensor]:
    """Return the detections that c queries search.

    For short lists they are gathered, so that ranking 100 images costs less than ranking 7,000. If
    the lists contain more than a quarter of the gallery, all detections are returned without a
    copy.

    Args:
        listed: [c, I] uint8, how often a query lists an image.

    Returns:
        index: [c, L] detections, or None for all N in their order.
        weights: [c, L] (or [c, N]) how often the detection's image is listed; 0 for the columns
            that pad a shorter list.
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
