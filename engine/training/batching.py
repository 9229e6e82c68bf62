"""The division of a training batch into shares of the ranks and into parts that a rank trains in
turn.

Only this module defines it. The loader reads what `Batching.own` selects, and the training step
receives the result of `Batching.parts`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from yacs.config import CfgNode

from engine.distributed import rank, ranks
from utils.errors import UserError
from utils.targets import Target


class Part(NamedTuple):
    """Images and targets that the network processes together.

    If `live` is false, they replace an empty part, because all ranks must run the same number of
    parts. They then do not contribute to the losses, the gradient or the OIM table.
    """

    images: list[Tensor]
    targets: list[Target]
    live: bool = True


def split_slice(count: int, number: int, parts: int) -> slice:
    """Return slice `number` of `parts` consecutive slices, of nearly equal length, of `count`
    items."""
    return slice(count * number // parts, count * (number + 1) // parts)


@dataclass(frozen=True)
class Batching:
    """The division of every batch of a run, from the point of view of one of its ranks."""

    size: int  # images of a batch, on all ranks together
    accumulate: int = 1  # parts of a rank's share
    rank: int = 0
    ranks: int = 1

    @staticmethod
    def of(cfg: CfgNode) -> "Batching":
        """Return the division for a config and the running ranks.

        Raises:
            UserError: if INPUT.BATCH_SIZE_TRAIN leaves a part without an image.
        """
        size, accumulate = cfg.INPUT.BATCH_SIZE_TRAIN, cfg.SOLVER.ACCUMULATE
        if not 1 <= ranks() * accumulate <= size:
            raise UserError(
                f"INPUT.BATCH_SIZE_TRAIN: expected an image for each of {ranks()} ranks times "
                f"SOLVER.ACCUMULATE {accumulate}; found {size}"
            )
        return Batching(size, accumulate, rank(), ranks())

    def steps(self, images: int) -> int:
        """Return the number of steps of an epoch with that many images."""
        return -(-images // self.size)

    def count(self, step: int, images: int) -> int:
        """Return the number of images in the batch of step `step` (from 0) of an epoch of `images`
        images.

        The last batch may be smaller than the others.
        """
        return min(self.size, images - step * self.size)

    def own(self, batch: list[int]) -> list[int]:
        """Return the images of a batch that this rank reads.

        If a small batch leaves no share to this rank, they are the batch's first image.
        """
        return batch[split_slice(len(batch), self.rank, self.ranks)] or batch[:1]

    def images_of_norm(self, sync: bool) -> int:
        """Return the smallest number of images in the statistics of a BatchNorm in a full batch.

        Args:
            sync: SOLVER.SYNC_BN, with which the statistics are those of one part of every rank.
        """
        ranks = 1 if sync else self.ranks
        return self.size // self.accumulate // ranks

    def norm_note(self, sync: bool) -> str:
        """Return how the BatchNorms differ from those of an undivided batch, or "".

        Args:
            sync: as in `images_of_norm`.
        """
        if self.accumulate * (1 if sync else self.ranks) == 1:
            return ""
        return (
            f"BatchNorm computes its statistics from {self.images_of_norm(sync)} of "
            f"{self.size} images ({self.ranks} ranks, SOLVER.ACCUMULATE {self.accumulate}); "
            "everything else in a step equals that of the undivided batch"
        )

    def norm_warning(self, sync: bool) -> str:
        """Return a warning if the statistics of a BatchNorm are those of fewer than two images,
        otherwise ""."""
        images = self.images_of_norm(sync)
        if images >= 2:
            return ""
        ways = ["a larger INPUT.BATCH_SIZE_TRAIN"]
        ways += ["a smaller SOLVER.ACCUMULATE"] if self.accumulate > 1 else []
        ways += ["on GPUs SOLVER.SYNC_BN True"] if self.ranks > 1 and not sync else []
        return (
            "warning: a BatchNorm computes its statistics from single images: "
            f"INPUT.BATCH_SIZE_TRAIN is {self.size}, with {self.ranks} ranks and "
            f"SOLVER.ACCUMULATE {self.accumulate}; "
            f"{' or '.join(ways)} avoids that (docs/training.md)"
        )

    def parts(self, images: list[Tensor], targets: list[Target], count: int) -> list[Part]:
        """Divide the images of a batch that this rank has read.

        Args:
            images, targets: those of `own`.
            count: images of the whole batch, on all ranks.

        Returns:
            One part for each of SOLVER.ACCUMULATE. A single rank leaves out empty parts; several
            ranks, which wait for each other, fill them with their first image.
        """
        share = split_slice(count, self.rank, self.ranks)
        live = share.stop - share.start
        cuts = [split_slice(live, number, self.accumulate) for number in range(self.accumulate)]
        full = [Part(images[cut], targets[cut]) for cut in cuts]
        filler = Part(images[:1], targets[:1], live=False)
        return [p if p.images else filler for p in full if p.images or self.ranks > 1]
