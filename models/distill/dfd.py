"""DFD, disaggregated feature distillation: separate losses for people and background on FPN maps.

DDPS, TMM 2024; the formulas are those of FGD (Yang et al., "Focal and Global Knowledge Distillation
for Detectors", CVPR 2022), equations 2 to 12.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.distill import FPN_LEVELS, align_channels, check_choice
from models.fast.map_sums import MapSums, strengths
from models.outputs import ForwardOutputs

# The size that the published weights apply to: 256 channels, 900×1500 padded to multiples of 32.
CHANNELS = 256
PLACES = {level: 928 * 1504 // (4 << i) ** 2 for i, level in enumerate(FPN_LEVELS)}


def attention(strength: Tensor, temperature: float) -> Tensor:
    """Return attention weights with mean 1 (FGD equations 4 to 7).

    Args:
        strength: mean absolute features of the positions [N, P] or of the channels [N, C].
        temperature: of the softmax.
    """
    return strength.shape[1] * (strength / temperature).softmax(dim=1)


def foreground_mask(
    boxes: Tensor, image_size: tuple[int, int], map_size: tuple[int, int]
) -> Tensor:
    """Return the foreground mask [H, W] (FGD equations 2 and 3).

    A cell inside a box has the value 1 / (cells of the box), the largest such value if boxes
    overlap; other cells are 0.

    Args:
        boxes: [n, 4] x1 y1 x2 y2 in pixels of the image.
        image_size: (h, w) in pixels, the size that the map covers.
        map_size: (H, W).
    """
    scale = boxes.new_tensor([map_size[1] / image_size[1], map_size[0] / image_size[0]])
    low = (boxes[:, :2] * scale).floor()
    high = (boxes[:, 2:] * scale).ceil()  # inclusive
    x = torch.arange(map_size[1], device=boxes.device)
    y = torch.arange(map_size[0], device=boxes.device)
    in_x = (x >= low[:, :1]) & (x <= high[:, :1])
    in_y = (y >= low[:, 1:]) & (y <= high[:, 1:])
    value = 1 / (high + 1 - low).prod(dim=1)
    masks = value[:, None, None] * (in_y[:, :, None] & in_x[:, None, :])
    return torch.cat([masks, masks.new_zeros(1, *map_size)]).amax(dim=0)


def background_mask(foreground: Tensor) -> Tensor:
    """Return the background mask [N, H, W]: in each image, equal values with sum 1 in the cells
    outside all boxes, and 0 inside."""
    outside = (foreground == 0).to(foreground.dtype)
    return outside / outside.sum(dim=(1, 2), keepdim=True).clamp(min=1)


class ContextBlock(nn.Module):
    """Global context of a map (FGD equation 12): [N, C, H, W] -> [N, C, 1, 1].

    It is `transform` applied to the mean of all positions, weighted by the softmax of `mask` over
    them (Cao et al., "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond",
    2019).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.mask = nn.Conv2d(channels, 1, kernel_size=1)
        self.transform = nn.Sequential(
            nn.Conv2d(channels, channels // 2, kernel_size=1),
            nn.LayerNorm([channels // 2, 1, 1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 2, channels, kernel_size=1),
        )
        nn.init.kaiming_normal_(self.mask.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(self.mask.bias)
        nn.init.zeros_(self.transform[-1].weight)
        nn.init.zeros_(self.transform[-1].bias)

    def forward(self, features: Tensor) -> Tensor:
        shares = self.mask(features).flatten(1).softmax(dim=1)
        context = features.flatten(2) @ shares[:, :, None]
        return self.transform(context[..., None])


class LevelLoss(nn.Module):
    """The four parts of DFD on one FPN level, with the parameters of that level.

    For maps S and T, their attentions A_p of positions and A_c of channels, and masks M, each part
    is a sum over all elements:

        fg, bg      M_fg · A_p(T) · A_c(T) · (S - T)², M_bg likewise      (FGD equation 8)
        attention   |A_p(S) - A_p(T)| + |A_c(S) - A_c(T)|                 (equation 9)
        relation    (S + context(S) - T - context(T))²                    (equation 12)

    The sums fg, bg and A_c grow with the number of channels, A_p with the number of positions, and
    relation with both.

    Args:
        student_channels: of the student's maps.
        teacher_channels: of the teacher's maps.
        weights: of the four parts.
        places: number of positions of a published map; the sums are scaled to it and to CHANNELS,
            whatever the size of the maps. With None the sums are not scaled.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        weights: dict[str, float],
        places: int | None = None,
    ):
        super().__init__()
        self.weights = weights
        self.places = places
        self.align = align_channels(student_channels, teacher_channels)
        self.student_context = ContextBlock(teacher_channels)
        self.teacher_context = ContextBlock(teacher_channels)

    def forward(
        self, student: Tensor, teacher: Tensor, foreground: Tensor, temperature: float
    ) -> Tensor:
        """Compute the loss, a scalar, from maps [N, C, H, W] and the foreground mask [N, H, W]."""
        s, t = self.align(student).flatten(2), teacher.flatten(2)
        theirs = [attention(strength, temperature) for strength in strengths(t)]
        masks = self.weights["fg"] * foreground + self.weights["bg"] * background_mask(foreground)
        mask = self.student_context.mask
        error, squares, gaps, places, channels, context = MapSums.apply(
            s, t, masks.flatten(1) * theirs[0], theirs[1], mask.weight.flatten(), mask.bias
        )
        ours = [attention(strength, temperature) for strength in (places, channels)]
        by_places, by_channels = self._scales(s.shape)
        gap_places, gap_channels = ((a - b).abs().sum() for a, b in zip(ours, theirs))
        attention_gap = by_places * gap_places + by_channels * gap_channels
        shift = self.student_context.transform(context[..., None, None])
        shift = (shift - self.teacher_context(teacher)).flatten(1)
        relation = squares + (2 * gaps * shift + s.shape[2] * shift**2).sum()
        total = (
            by_channels * error
            + self.weights["attention"] * attention_gap
            + self.weights["relation"] * by_places * by_channels * relation
        )
        return total / len(student)

    def _scales(self, shape: torch.Size) -> tuple[float, float]:
        """Return the factors for sums over positions and over channels of maps [N, C, P]: published
        size divided by actual size."""
        if self.places is None:
            return 1.0, 1.0
        return self.places / shape[2], CHANNELS / shape[1]


class Term(nn.Module):
    """Sum of `LevelLoss` over the levels of both networks: 0 to 3 if both have an FPN.

    Args:
        fg_weight: of features on people.
        bg_weight: of features on background.
        attention_weight: of the attention part.
        relation_weight: of the relation part.
        temperature: of both attentions.
        scale_boxes_by: the image size by which boxes are scaled to the map: "image", before padding
            (published; the mask is misplaced in a batch of mixed sizes), or "padded" (correct).
        normalize: whether the parts have their published strength for maps of any size; published
            are plain sums.
    """

    mean_over = "images"

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        levels: Sequence[str],
        fg_weight: float,
        bg_weight: float,
        attention_weight: float,
        relation_weight: float,
        temperature: float,
        scale_boxes_by: str,
        normalize: bool,
    ):
        super().__init__()
        choices = ("image", "padded")
        self.scale_boxes_by = check_choice("DISTILLER.DFD.SCALE_BOXES_BY", scale_boxes_by, choices)
        self.temperature = temperature
        weights = {
            "fg": fg_weight,
            "bg": bg_weight,
            "attention": attention_weight,
            "relation": relation_weight,
        }
        self.levels = nn.ModuleDict(
            {
                level: LevelLoss(
                    student_channels,
                    teacher_channels,
                    weights,
                    PLACES[level] if normalize else None,
                )
                for level in levels
            }
        )

    def forward(self, student: ForwardOutputs, teacher: ForwardOutputs) -> Tensor:
        """Compute the loss, a scalar, from both networks' maps [N, C, H, W] of the same images."""
        boxes = [target["boxes"] for target in student.targets]
        sizes = student.images.image_sizes
        if self.scale_boxes_by == "padded":
            sizes = [student.images.tensors.shape[-2:]] * len(boxes)
        total = student.class_logits.new_zeros(())
        for level, loss in self.levels.items():
            maps = student.features[level], teacher.features[level]
            map_size = maps[1].shape[-2:]
            masks = [foreground_mask(b, size, map_size) for b, size in zip(boxes, sizes)]
            total = total + loss(*maps, torch.stack(masks), self.temperature)
        return total
