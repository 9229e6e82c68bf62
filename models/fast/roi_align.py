"""RoIAlign on the CPU as one weighted gather.

Plain: torchvision's MultiScaleRoIAlign. A box is cut into 7×7 bins, each bin is the mean of 2×2
points in it, each point a bilinear mix of the 4 pixels around it, so a bin is a weighted sum of 16
pixels. torchvision's kernel for the CPU walks over the channels of each pixel one by one; here the
maps lie as a table with a row of channels for each pixel, and `embedding_bag` sums whole rows.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import MultiScaleRoIAlign


class GatheredRoIAlign(nn.Module):
    """As `plain`, which knows its scales; it does the work on other devices, and where the network
    is exported or compiled."""

    def __init__(self, plain: MultiScaleRoIAlign):
        super().__init__()
        self.plain = plain

    def forward(
        self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Maps [N, C, H, W] by name, boxes [n_i, 4] per image in pixels -> [R, C, 7, 7]."""
        levels = [x[name] for name in self.plain.featmap_names]
        if not levels[0].is_cpu or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self.plain(x, boxes, image_shapes)
        table = torch.cat([level.float().permute(0, 2, 3, 1).flatten(0, 2) for level in levels])
        pixels, weights = self.taps([level.shape for level in levels], boxes)
        pooled = F.embedding_bag(pixels, table, per_sample_weights=weights, mode="sum")
        count, bins = sum(map(len, boxes)), self.plain.output_size
        pooled = pooled.view(count, *bins, table.shape[1]).permute(0, 3, 1, 2)
        return pooled.to(levels[0].dtype)

    @torch.no_grad()
    def taps(self, shapes: list[torch.Size], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """For each bin, rows of the table [R·7·7, 16] int64 and their weights [R·7·7, 16]."""
        level = self.plain.map_levels(boxes)
        sizes = torch.tensor([[n, h, w] for n, _, h, w in shapes])
        first_row = sizes.prod(dim=1).cumsum(0) - sizes.prod(dim=1)
        _, height, width = sizes[level].unbind(1)
        image = torch.arange(len(boxes)).repeat_interleave(torch.tensor([len(b) for b in boxes]))
        corners = torch.cat(boxes).float() * torch.tensor(self.plain.scales)[level][:, None]
        start, end = corners.split(2, dim=1)
        length = (end - start).clamp(min=1.0)
        y, y_weights = self._axis(start[:, 1], length[:, 1], height, self.plain.output_size[0])
        x, x_weights = self._axis(start[:, 0], length[:, 0], width, self.plain.output_size[1])
        first = (first_row[level] + image * height * width)[:, None, None]
        rows = (first + y * width[:, None, None])[:, :, None, :, None] + x[:, None, :, None, :]
        weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]
        return rows.flatten(3).flatten(0, 2), weights.flatten(3).flatten(0, 2)

    def _axis(
        self, start: Tensor, length: Tensor, size: Tensor, bins: int
    ) -> tuple[Tensor, Tensor]:
        """Along one axis: where a box starts, its length and the map's size [R] -> for each bin
        the pixels, two for each point, and their weights [R, bins, 2·points]."""
        points = bins * self.plain.sampling_ratio
        steps = (torch.arange(points) + 0.5) / points
        at, last = start[:, None] + steps * length[:, None], size[:, None] - 1
        inside = (at >= -1) & (at <= size[:, None])
        at = at.clamp(min=0).minimum(last)
        low = at.long()
        share = at - low
        pixels = torch.stack([low, (low + 1).minimum(last)], dim=2)
        weights = (
            torch.stack([1 - share, share], dim=2) * inside[..., None] / self.plain.sampling_ratio
        )
        taps = len(start), bins, 2 * self.plain.sampling_ratio
        return pixels.view(taps), weights.view(taps)
