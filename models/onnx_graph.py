"""Detection and embedding of one image as a graph of tensor operations, for torch.export.

The graph computes the same numbers as `SearchNet.detect_and_embed` with the network's own layers,
and its sizes may depend on the data. torchvision's transform, RPN and multi-scale pooling branch on
sizes in Python, which a graph cannot do.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import clip_boxes_to_image, nms, remove_small_boxes, roi_align

from models.filtering import filter_detections
from models.roi_heads import PERSON
from models.search_net import SearchNet

Size = tuple[int, int]  # height, width


class SearchGraph(nn.Module):
    """Detection and embedding by a network in eval mode: forward(image, query_boxes)."""

    def __init__(self, net: SearchNet):
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, query_boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detect the people of an image and embed them and the query boxes.

        Args:
            image: [H, W, 3] uint8 RGB.
            query_boxes: [m, 4] in pixels of the image.

        Returns:
            boxes [n, 4] in pixels of the image, by falling score; scores [n]; unit embeddings
            [n, D] of these boxes; unit embeddings [m, D] of the query boxes.
        """
        resized, size = self.resize(image)
        before, after = (torch.tensor(s, dtype=torch.float32) for s in (image.shape[:2], size))
        ratio = (after / before).flip(0).repeat(2)
        features = self.net.backbone(resized)
        proposals = self.propose(features, resized, size)
        boxes, scores = self.detect(features, proposals, size)
        # In two calls, so that the embeddings of queries do not depend on the detections.
        embeddings, queries = (self.embed(features, b) for b in (boxes, query_boxes * ratio))
        return boxes / ratio, scores, embeddings, queries

    def embed(self, features: dict[str, Tensor], boxes: Tensor) -> Tensor:
        """Return the unit embeddings [n, D] of boxes [n, 4] in resized pixels."""
        heads, pooled = self.net.roi_heads, self.pool(features, boxes)
        return heads.embedding_head(pooled, heads.represent(pooled))[0]

    def resize(self, image: Tensor) -> tuple[Tensor, Size]:
        """Resize, normalise and pad the image.

        Sizes are computed in double precision, as Python does in GeneralizedRCNNTransform.

        Returns:
            The padded image [1, 3, H, W], and its size without the padding.
        """
        transform = self.net.transform
        sides = torch.tensor(image.shape[:2], dtype=torch.float64)
        scale = torch.minimum(
            transform.min_size[-1] / sides.min(), transform.max_size / sides.max()
        )
        after, step = (sides * scale).floor().long(), transform.size_divisible
        height, width = (side.item() for side in after)
        rows, columns = (blocks.item() for blocks in (after + step - 1) // step)
        for number in (height, width, rows, columns):
            torch._check(number > 0)
        pixels = image.permute(2, 0, 1)[None].float()
        resized = F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
        resized = transform.normalize(resized / 255)  # afterwards, since most pictures shrink
        # Padded to whole blocks, so that the sizes of all maps are simple multiples of the blocks.
        # Zeros are concatenated: OpenVINO takes longer for the operator Pad than for the resizing.
        below = resized.new_zeros(1, 3, rows * step - height, width)
        right = resized.new_zeros(1, 3, rows * step, columns * step - width)
        padded = torch.cat([torch.cat([resized, below], dim=2), right], dim=3)
        return padded, (height, width)

    def propose(self, features: dict[str, Tensor], resized: Tensor, size: Size) -> Tensor:
        """Return the RPN's proposals [n, 4] in resized pixels, by falling score, after NMS on each
        level."""
        rpn, kept = self.net.rpn, []
        outputs = zip(*rpn.head(list(features.values())), rpn.anchor_generator.cell_anchors)
        for objectness, deltas, cell in outputs:
            scores = objectness[0].permute(1, 2, 0).flatten()
            deltas = deltas[0].unflatten(0, (len(cell), 4)).permute(2, 3, 0, 1).flatten(0, 2)
            scores, best = scores.topk(torch.sym_min(rpn.pre_nms_top_n(), scores.shape[0]))
            anchors = _anchors(cell, objectness.shape[-2:], resized.shape[-2:])
            boxes = rpn.box_coder.decode_single(deltas[best], anchors[best])
            boxes, scores = clip_boxes_to_image(boxes, size), scores.sigmoid()
            keep = remove_small_boxes(boxes, rpn.min_size)
            keep = keep[torch.where(scores[keep] >= rpn.score_thresh)[0]]
            keep = keep[nms(boxes[keep], scores[keep], rpn.nms_thresh)]
            kept.append((boxes[keep], scores[keep]))
        boxes, scores = (torch.cat(parts) for parts in zip(*kept))
        return boxes[scores.topk(torch.sym_min(rpn.post_nms_top_n(), scores.shape[0]))[1]]

    def detect(
        self, features: dict[str, Tensor], proposals: Tensor, size: Size
    ) -> tuple[Tensor, Tensor]:
        """Detect people: boxes [n, 4] in resized pixels and scores [n], by falling score."""
        heads = self.net.roi_heads
        logits, deltas = heads.box_predictor(heads.box_head(self.pool(features, proposals)))
        boxes = heads.box_coder.decode_single(deltas, proposals).unflatten(1, (-1, 4))[:, PERSON]
        boxes, scores = clip_boxes_to_image(boxes, size), F.softmax(logits, -1)[:, PERSON]
        keep = filter_detections(boxes, scores, heads.limits)
        return boxes[keep], scores[keep]

    def pool(self, features: dict[str, Tensor], boxes: Tensor) -> Tensor:
        """Pool each of the boxes [n, 4] from the level that its size selects: [n, C, P, P]."""
        pool = self.net.roi_heads.box_roi_pool
        rois, parts = F.pad(boxes, (1, 0)), []  # the image's number in front: 0
        if len(pool.scales) == 1:
            (level,) = features.values()
            return roi_align(level, rois, pool.output_size, pool.scales[0], pool.sampling_ratio)
        level = pool.map_levels([boxes])
        for i, (name, scale) in enumerate(zip(pool.featmap_names, pool.scales)):
            some = rois[torch.where(level == i)[0]]
            parts.append(
                roi_align(features[name], some, pool.output_size, scale, pool.sampling_ratio)
            )
        # The parts are ordered by level, and by box within a level: restore the order of the boxes.
        order = level * boxes.shape[0] + torch.arange(boxes.shape[0])
        return torch.cat(parts)[order.argsort().argsort()]


def _anchors(cell: Tensor, grid: torch.Size, padded: torch.Size) -> Tensor:
    """Return the anchors of one cell [A, 4] at each position of a level's grid: [H·W·A, 4]."""
    y, x = (torch.arange(n) * (side // n) for n, side in zip(grid, padded))
    y, x = torch.meshgrid(y, x, indexing="ij")
    return (torch.stack([x, y, x, y], -1)[:, :, None] + cell).flatten(0, 2)
