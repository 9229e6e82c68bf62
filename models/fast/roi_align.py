"""RoIAlign on the CPU as one weighted gather, forward and backward.

Plain formula: torchvision's MultiScaleRoIAlign. A box is divided into 7×7 bins, a bin is the mean
of 2×2 points in it, and a point is the bilinear interpolation of the 4 pixels around it: a bin is a
weighted sum of 16 pixels. torchvision's CPU kernels process the channels of each pixel one by one,
the backward kernel on a single core. Here the pixels that any box uses are copied to a table with
one row of channels per pixel, and `embedding_bag` sums whole rows. The backward pass adds to whole
rows, which are then written to their positions in maps of zeros.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import MultiScaleRoIAlign


class GatheredRoIAlign(MultiScaleRoIAlign):
    """MultiScaleRoIAlign with the fast path on a CPU and torchvision's own on other devices.

    `scales` and `map_levels` must be set before the first call.
    """

    scales: list[float]

    def forward(
        self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Pool boxes [n_i, 4] of each image, in pixels, from maps [N, C, H, W]: [R, C, 7, 7]."""
        levels = [x[name] for name in self.featmap_names]
        if not levels[0].is_cpu:
            return super().forward(x, boxes, image_shapes)
        pixels, weights = self.sampled_pixels([level.shape for level in levels], boxes)
        places, rows = touched_pixels(pixels, [level[:, 0].numel() for level in levels])
        table = torch.cat([_Rows.apply(*pair) for pair in zip(levels, places)]).float()
        pooled = F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")
        pooled = pooled.view(-1, *self.output_size, table.shape[1]).permute(0, 3, 1, 2)
        return pooled.to(levels[0].dtype)

    @torch.no_grad()
    def sampled_pixels(
        self, shapes: list[torch.Size], boxes: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the pixels of each bin [R·7·7, 16] int64, numbered over all images of all levels,
        and their weights [R·7·7, 16]."""
        level = self.map_levels(boxes).clamp(0, len(shapes) - 1)
        sizes = torch.tensor([[n, h, w] for n, _, h, w in shapes])
        first_row = sizes.prod(dim=1).cumsum(0) - sizes.prod(dim=1)
        _, height, width = sizes[level].unbind(1)
        image = torch.arange(len(boxes)).repeat_interleave(torch.tensor([len(b) for b in boxes]))
        corners = torch.cat(boxes).float() * torch.tensor(self.scales)[level][:, None]
        start, end = corners.split(2, dim=1)
        side = (end - start).clamp(min=1.0) / torch.tensor(self.output_size[::-1])
        y, y_weights = self._axis(start[:, 1], side[:, 1], height, self.output_size[0])
        x, x_weights = self._axis(start[:, 0], side[:, 0], width, self.output_size[1])
        first = (first_row[level] + image * height * width)[:, None, None]
        rows = (first + y * width[:, None, None])[:, :, None, :, None] + x[:, None, :, None, :]
        weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]
        return rows.flatten(3).flatten(0, 2), weights.flatten(3).flatten(0, 2)

    def _axis(self, start: Tensor, side: Tensor, size: Tensor, bins: int) -> tuple[Tensor, Tensor]:
        """Return the sampled pixels along one axis, two for each point, with torchvision's
        rounding.

        A coordinate near 300 is accurate to 3e-5 pixels. Boxes of a diverged network that are not
        finite get weights of zero; `check_finite` reports the losses of such a network.

        Args:
            start: [R], the lower edge of each box.
            side: [R], the side of its bins.
            size: [R], the side of its map.
            bins: the number of bins along this axis.

        Returns:
            Pixels and weights [R, bins, 2·points].
        """
        points = self.sampling_ratio
        steps = (torch.arange(points) + 0.5) * side[:, None] / points
        at = start[:, None] + torch.arange(bins) * side[:, None]
        at, last = at[:, :, None] + steps[:, None], size[:, None, None] - 1
        at = at.nan_to_num(nan=-2.0)
        inside = (at >= -1) & (at <= last + 1)
        at = at.clamp(min=0).minimum(last)
        low = at.long()
        share = at - low
        pixels = torch.stack([low, (low + 1).minimum(last)], dim=3)
        weights = torch.stack([1 - share, share], dim=3) * inside[..., None] / points
        return pixels.flatten(2), weights.flatten(2)


def touched_pixels(pixels: Tensor, sizes: list[int]) -> tuple[list[Tensor], Tensor]:
    """Return the distinct pixels among `pixels`.

    Args:
        pixels: numbered over all maps.
        sizes: the number of pixels of each map.

    Returns:
        The distinct pixels of each map, in order; and for each of `pixels`, its index among all
        distinct pixels.
    """
    touched = torch.zeros(sum(sizes), dtype=torch.bool)
    touched[pixels.flatten()] = True
    places = [part.nonzero()[:, 0] for part in touched.split(sizes)]
    return places, (touched.cumsum(0) - 1)[pixels]


class _Rows(torch.autograd.Function):
    """Selection of distinct pixels of a map [N, C, H, W] by their index in N·H·W: [U, C].

    Plain formula: map.permute(0, 2, 3, 1).flatten(0, 2)[places]. The backward pass of indexing
    allows for duplicate pixels and therefore adds them one by one.
    """

    @staticmethod
    def forward(ctx, level: Tensor, places: Tensor) -> Tensor:
        image = places // level[0, 0].numel()
        ctx.shape, ctx.where = level.shape, (image, places - image * level[0, 0].numel())
        return level.flatten(2).permute(0, 2, 1)[ctx.where]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, rows: Tensor) -> tuple[Tensor, None]:
        grad = rows.new_zeros(ctx.shape)
        grad.flatten(2).permute(0, 2, 1)[ctx.where] = rows
        return grad, None
