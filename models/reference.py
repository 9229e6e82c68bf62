"""The whole method in one file, in plain formulas and with published options only: start here.

DDPS (TMM 2024) trains a light person search network with a heavy teacher. The parts are the network
(1), its re-id loss OIM (2), the distillation terms DFD, LD and CD (3 to 5), a training step (6),
detection and embedding (7), search and its scores (8), and re-ranking by CBGM (9). The other files
compute the same numbers faster and with more options; tests compare them with this file, and this
file with the numbers of the published release. State dicts are the same. Boxes are x1 y1 x2 y2;
labels are 0 for background, 1..N for identities, above N for unlabelled people.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign, clip_boxes_to_image, nms
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
from torchvision.ops.poolers import initLevelMapper

from models.backbones import backbone_of

# --- 1. Network: Faster R-CNN with a second branch for re-id (SeqNet) ----------------------------


@dataclass(frozen=True)
class Sizes:
    """The published sizes. MobileNetV2 on CUHK-SYSU has rpn_keep 1000, 1000 and rpn_score 0.05."""

    backbone: str  # of backbone_of: its constructor, the layers that the FPN reads, its stem
    frozen_bn: bool = False
    identities: int = 5532  # N; PRW: 483
    queue: int = 5000  # PRW: 500
    image: tuple[int, int] = (900, 1500)  # shorter and longer side after resizing, pixels
    channels: int = 256  # of the FPN
    fc: int = 1024
    embedding: int = 256
    anchors: tuple[int, ...] = (32, 64, 128, 256, 512)  # pixels, one for each FPN level
    rpn_candidates: tuple[int, int] = (2000, 1000)  # before NMS, in training and in test
    rpn_keep: tuple[int, int] = (2000, 1000)  # after NMS
    rpn_score: float = 0.0
    regions: int = 512  # sampled per image
    detections: int = 100  # per image


class Backbone(nn.Module):
    """The backbone and FPN: images [N, 3, H, W] -> levels "0".."3" and "pool", strides 4 to 64."""

    def __init__(self, s: Sizes):
        super().__init__()
        self.spec = backbone_of(s.backbone)
        norm = FrozenBatchNorm2d if s.frozen_bn else nn.BatchNorm2d
        layers = list(self.spec.make(norm_layer=norm).named_children())
        last = [name for name, _ in layers].index(self.spec.layers[-1])
        self.body = nn.ModuleDict(layers[: last + 1])
        for name in self.spec.stem:
            self.body.get_submodule(name).requires_grad_(False)
        self.fpn = FeaturePyramidNetwork(list(self.spec.channels), s.channels, LastLevelMaxPool())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = {}
        for name, layer in self.body.items():
            x = layer(x)
            if name in self.spec.layers:
                maps[str(len(maps))] = x
        return self.fpn(maps)


class NormAwareEmbedding(nn.Module):
    """x = unit([BN(W1 pooled), BN(W2 fc)]) (NAE, CVPR 2020). The norm is not used by any score."""

    def __init__(self, pooled: int, fc: int, size: int):
        super().__init__()
        self.pooled = nn.Sequential(nn.Linear(pooled, size // 2), nn.BatchNorm1d(size // 2))
        self.fc = nn.Sequential(nn.Linear(fc, size // 2), nn.BatchNorm1d(size // 2))
        for layer in (*self.pooled, *self.fc):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        self.norm = nn.BatchNorm1d(1).requires_grad_(False)

    def forward(self, pooled: Tensor, fc: Tensor) -> Tensor:
        joined = torch.cat([self.pooled(pooled), self.fc(fc)], dim=1)
        self.norm(joined.norm(dim=1, keepdim=True))
        return F.normalize(joined)


class Heads(RoIHeads):
    """Detection branch and re-id branch. torchvision's class samples regions and encodes boxes."""

    def __init__(self, s: Sizes):
        pool = MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2)
        pool.scales, pool.map_levels = [1 / 4, 1 / 8, 1 / 16, 1 / 32], initLevelMapper(2, 5)
        branch, classes = TwoMLPHead(49 * s.channels, s.fc), FastRCNNPredictor(s.fc, 2)
        sampling, limits = (0.5, 0.5, s.regions, 0.25, None), (0.05, 0.5, s.detections)
        super().__init__(pool, branch, classes, *sampling, *limits)
        self.reid_head = TwoMLPHead(49 * s.channels, s.fc)
        self.embedding_head = NormAwareEmbedding(49 * s.channels, s.fc, s.embedding)
        self.oim = OIM(s)

    def classify(self, features, boxes, sizes) -> tuple[Tensor, Tensor]:
        """Return class logits [R, 2] and box deltas [R, 8]."""
        return self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, sizes)))

    def decode(self, deltas, boxes, sizes) -> list[Tensor]:
        """Apply the deltas of the class person to boxes, and clip the boxes to the image."""
        decoded = self.box_coder.decode(deltas, boxes).reshape(-1, 2, 4)[:, 1]
        parts = decoded.split([len(some) for some in boxes])
        return [clip_boxes_to_image(some, size) for some, size in zip(parts, sizes)]

    def embed(self, features, boxes, sizes) -> Tensor:
        """Return unit embeddings [R, D]."""
        pooled = self.box_roi_pool(features, boxes, sizes)
        return self.embedding_head(pooled.flatten(1), self.reid_head(pooled))


class Network(nn.Module):
    def __init__(self, s: Sizes):
        super().__init__()
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        self.transform = GeneralizedRCNNTransform(*s.image, mean, std)
        self.backbone = Backbone(s)
        anchors = AnchorGenerator(tuple((side,) for side in s.anchors), ((0.5, 1.0, 2.0),) * 5)
        keep = [dict(zip(("training", "testing"), n)) for n in (s.rpn_candidates, s.rpn_keep)]
        matching, sampling = (0.7, 0.3), (256, 0.5)
        head, last = RPNHead(s.channels, 3), (0.7, s.rpn_score)
        self.rpn = RegionProposalNetwork(anchors, head, *matching, *sampling, *keep, *last)
        self.roi_heads = Heads(s)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict:
        """Run a training pass: propose, sample, classify, decode, sample again, embed."""
        resized, targets = self.transform(images, targets)
        features, sizes, heads = self.backbone(resized.tensors), resized.image_sizes, self.roi_heads
        candidates, rpn = self.rpn(resized, features, targets)
        proposals, _, labels, wanted = heads.select_training_samples(candidates, targets)
        logits, deltas = heads.classify(features, proposals, sizes)
        decoded = [boxes.detach() for boxes in heads.decode(deltas, proposals, sizes)]
        people, _, identities, _ = heads.select_training_samples(decoded, targets)
        embeddings = heads.embed(features, people, sizes)
        person = torch.cat(labels) > 0
        gap = deltas.reshape(-1, 2, 4)[person, 1], torch.cat(wanted)[person]
        losses = {
            "rpn_cls": rpn["loss_objectness"],
            "rpn_reg": rpn["loss_rpn_box_reg"],
            "proposal_cls": F.cross_entropy(logits, person.long()),
            "proposal_reg": F.smooth_l1_loss(*gap, reduction="sum") / len(person),
            "oim": heads.oim(embeddings, torch.cat(identities)),
        }
        outputs = dict(images=resized, targets=targets, features=features, logits=logits)
        outputs |= dict(proposals=proposals, labels=labels, people=people, identities=identities)
        return outputs | dict(embeddings=embeddings, losses=losses)

    def forward_teacher(self, student: dict) -> dict:
        """Run the teacher's pass on the student's images and sampled regions."""
        sizes = student["images"].image_sizes
        features = self.backbone(student["images"].tensors)
        logits, _ = self.roi_heads.classify(features, student["proposals"], sizes)
        embeddings = self.roi_heads.embed(features, student["people"], sizes)
        return dict(features=features, logits=logits, embeddings=embeddings)


# --- 2. OIM (CVPR 2017) --------------------------------------------------------------------------


class OIM(nn.Module):
    """A table with one row per identity and a circular queue of unlabelled people."""

    lut: Tensor
    cq: Tensor

    def __init__(self, s: Sizes):
        super().__init__()
        self.register_buffer("lut", torch.zeros(s.identities, s.embedding))
        self.register_buffer("cq", torch.zeros(s.queue, s.embedding))
        self.register_buffer("head", torch.zeros((), dtype=torch.int64))

    def log_p(self, x: Tensor) -> Tensor:
        """p = softmax(30 · x [LUT; CQ]ᵀ)."""
        return (30 * x @ torch.cat([self.lut, self.cq]).t()).log_softmax(dim=1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """L = -mean log p_y over labelled people; 0 without any."""
        labelled = (labels > 0) & (labels <= len(self.lut))
        own = self.log_p(x[labelled]).gather(1, labels[labelled][:, None] - 1)
        return -own.sum() / max(len(own), 1)

    @torch.no_grad()
    def update(self, x: Tensor, labels: Tensor) -> None:
        """LUT_y = unit((LUT_y + x) / 2) for labelled people, one by one; the others are queued."""
        for person, label in zip(x, labels.tolist()):
            if 0 < label <= len(self.lut):
                self.lut[label - 1] = F.normalize((self.lut[label - 1] + person) / 2, dim=0)
            elif label:
                self.cq[self.head] = person
                self.head.copy_((self.head + 1) % len(self.cq))


# --- 3. DFD: features on people and on background (FGD, CVPR 2022, equations 2 to 12) ------------


class Context(nn.Module):
    """C(F) = W2 relu(LN(W1 Σ_p softmax_p(m · F)_p F_p)), over positions p: [N, C, 1, 1]."""

    def __init__(self, channels: int):
        super().__init__()
        self.mask = nn.Conv2d(channels, 1, 1)
        half, last = channels // 2, nn.Conv2d(channels // 2, channels, 1)
        first, norm = nn.Conv2d(channels, half, 1), nn.LayerNorm([half, 1, 1])
        self.transform = nn.Sequential(first, norm, nn.ReLU(), last)
        nn.init.kaiming_normal_(self.mask.weight, mode="fan_in", nonlinearity="relu")
        for weight in (self.mask.bias, last.weight, last.bias):
            nn.init.zeros_(weight)

    def forward(self, features: Tensor) -> Tensor:
        shares = self.mask(features).flatten(2).softmax(dim=2)
        return self.transform((features.flatten(2) * shares).sum(dim=2)[:, :, None, None])


def spatial_attention(features: Tensor) -> Tensor:
    """A_s = H W softmax_hw(mean_c |F| / 0.5): [N, 1, H, W]."""
    strength = features.abs().mean(dim=1, keepdim=True)
    return strength[0].numel() * (strength / 0.5).flatten(1).softmax(dim=1).view_as(strength)


def channel_attention(features: Tensor) -> Tensor:
    """A_c = C softmax_c(mean_hw |F| / 0.5): [N, C, 1, 1]."""
    strength = features.abs().mean(dim=(2, 3), keepdim=True)
    return features.shape[1] * (strength / 0.5).softmax(dim=1)


def foreground_mask(boxes: Tensor, image: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """M_fg [H, W] = 1 / cells of the box, the largest value of overlapping boxes, 0 outside.

    Boxes are scaled from the image (h, w), before padding, to the map of `size`.
    """
    mask, scale = boxes.new_zeros(size), boxes.new_tensor([size[1] / image[1], size[0] / image[0]])
    corners = torch.cat([(boxes[:, :2] * scale).floor(), (boxes[:, 2:] * scale).ceil()], dim=1)
    for x0, y0, x1, y1 in corners.int().tolist():
        mask[y0 : y1 + 1, x0 : x1 + 1].clamp_(min=1 / ((x1 + 1 - x0) * (y1 + 1 - y0)))
    return mask


class DFDLevel(nn.Module):
    """L_fg = Σ M_fg A_s(T) A_c(T) (S - T)²; L_bg alike with M_bg, equal shares of 1 outside boxes;
    L_att = Σ |A_s(S) - A_s(T)| + Σ |A_c(S) - A_c(T)|; L_rel = Σ (S + C(S) - T - C(T))²."""

    def __init__(self, student: int, teacher: int):
        super().__init__()
        self.align = nn.Identity() if student == teacher else nn.Conv2d(student, teacher, 1)
        self.student_context, self.teacher_context = Context(teacher), Context(teacher)

    def parts(self, s: Tensor, t: Tensor, foreground: Tensor) -> tuple:
        """Return the four sums for maps [N, C, H, W] and a mask [N, H, W]."""
        s, outside = self.align(s), (foreground == 0).to(s.dtype)
        background = outside / outside.sum(dim=(1, 2), keepdim=True).clamp(min=1)
        error = (spatial_attention(t) * channel_attention(t) * (s - t) ** 2).sum(dim=1)
        gaps = [(a(s) - a(t)).abs().sum() for a in (spatial_attention, channel_attention)]
        relation = (s + self.student_context(s) - t - self.teacher_context(t)) ** 2
        return (foreground * error).sum(), (background * error).sum(), sum(gaps), relation.sum()

    def forward(self, s: Tensor, t: Tensor, foreground: Tensor) -> Tensor:
        fg, bg, attention, relation = self.parts(s, t, foreground)
        return (5e-5 * fg + 2.5e-5 * bg + 5e-5 * attention + 5e-7 * relation) / len(s)


class DFD(nn.Module):
    """The sum of DFDLevel over FPN levels 0 to 3, each with its own parameters."""

    def __init__(self, student: int = 256, teacher: int = 256):
        super().__init__()
        self.levels = nn.ModuleDict({name: DFDLevel(student, teacher) for name in "0123"})

    def forward(self, student: dict, teacher: dict) -> Tensor:
        boxes, sizes = [t["boxes"] for t in student["targets"]], student["images"].image_sizes
        losses = []
        for name, level in self.levels.items():
            s, t = student["features"][name], teacher["features"][name]
            masks = [foreground_mask(b, size, t.shape[-2:]) for b, size in zip(boxes, sizes)]
            losses.append(level(s, t, torch.stack(masks)))
        return torch.stack(losses).sum()


# --- 4. LD: detection logits (DKD, CVPR 2022, equation 7) ----------------------------------------


def ld(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """T² · mean_R [KL(b_T || b_S) + 0.5 KL(r_T || r_S)] of logits [R, C] at temperature T = 4.

    b are the probabilities of the target class and of all others together, r those of the others
    among themselves. With two classes the second part is 0.
    """
    target, total = F.one_hot(labels, student.shape[1]).bool(), torch.zeros(())
    for weight in (1.0, 0.5):
        log_p = []
        for logits in (student / 4, teacher / 4):
            others = logits[~target].view(len(logits), -1)
            if weight == 1:
                others = torch.stack([logits[target], others.logsumexp(dim=1)], dim=1)
            log_p.append(others.log_softmax(dim=1))
        total = total + weight * (log_p[1].exp() * (log_p[1] - log_p[0])).sum()
    return 4**2 * total / len(labels)


# --- 5. CD: correlations of embeddings -----------------------------------------------------------


def cd(student: dict, teacher: dict, oim: OIM) -> Tensor:
    """0.01 Σ (S Sᵀ - T Tᵀ)² of the embeddings of all people in the batch; oim: the teacher's.

    Before that, NMS at 0.7 runs among the boxes of each identity in an image; unlabelled people
    count as one identity. Boxes are ranked by the teacher's probability of the identity, or for
    unlabelled people by the largest probability in the queue.
    """
    p, count, first = oim.log_p(teacher["embeddings"]).exp(), len(oim.lut), 0
    keep = [torch.zeros(0, dtype=torch.long, device=p.device)]
    for boxes, labels in zip(student["people"], student["identities"]):
        labels, large = labels.clamp(max=count + 1), (boxes[:, 2:] - boxes[:, :2] >= 0.01).all(1)
        for label in labels[labels > 0].unique():
            some = torch.where((labels == label) & large)[0]
            columns = slice(label - 1, label if label <= count else None)
            scores = p[first + some, columns].amax(dim=1)
            keep.append(first + some[nms(boxes[some], scores, 0.7)])
        first += len(boxes)
    s, t = (side["embeddings"][torch.cat(keep)] for side in (student, teacher))
    return 0.01 * ((s @ s.t() - t @ t.t()) ** 2).sum()


# --- 6. A training step --------------------------------------------------------------------------


def training_step(student: Network, optimizer, images, targets, teacher=None, dfd=None) -> dict:
    """Compute losses and gradient, clip, take an SGD step (momentum 0.9, weight decay 5e-4), update
    OIM.

    The teacher must be in eval mode. `dfd` is trained with the student.
    """
    outputs = student(images, targets)
    losses = dict(outputs["losses"])
    if teacher is not None:
        with torch.no_grad():
            theirs = teacher.forward_teacher(outputs)
        labels = torch.cat(outputs["labels"]).clamp(max=1)  # 1: person
        losses["dfd"] = dfd(outputs, theirs)
        losses["ld"] = ld(outputs["logits"], theirs["logits"], labels)
        losses["cd"] = cd(outputs, theirs, teacher.roi_heads.oim)
    optimizer.zero_grad()
    (sum(losses.values()) + 9 * losses["proposal_reg"]).backward()  # whose weight is 10
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 10.0)
    optimizer.step()
    student.roi_heads.oim.update(outputs["embeddings"], torch.cat(outputs["identities"]))
    return losses


# --- 7. Detection and embedding; the network is in eval mode -------------------------------------


@torch.no_grad()
def detect(net: Network, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the people of a gallery image [3, H, W]: boxes [n, 4], scores [n], embeddings [n, D].

    The embeddings are multiplied by the scores: confidence-weighted similarity (NAE).
    """
    images, _ = net.transform([image])
    features, sizes, heads = net.backbone(images.tensors), images.image_sizes, net.roi_heads
    proposals, _ = net.rpn(images, features)
    logits, deltas = heads.classify(features, proposals, sizes)
    (boxes,), scores = heads.decode(deltas, proposals, sizes), logits.softmax(dim=1)[:, 1]
    keep = torch.where((scores > 0.05) & (boxes[:, 2:] - boxes[:, :2] >= 0.01).all(dim=1))[0]
    keep = keep[nms(boxes[keep], scores[keep], 0.5)][: heads.detections_per_img]
    boxes, scores = boxes[keep], scores[keep]
    embeddings = scores[:, None] * heads.embed(features, [boxes], sizes)
    return resize_boxes(boxes, sizes[0], image.shape[-2:]), scores, embeddings


@torch.no_grad()
def embed(net: Network, image: Tensor, boxes: Tensor) -> Tensor:
    """Return unit embeddings [n, D] of given boxes [n, 4], such as that of a query."""
    images, targets = net.transform([image], [{"boxes": boxes}])
    features = net.backbone(images.tensors)
    return net.roi_heads.embed(features, [targets[0]["boxes"]], images.image_sizes)


# --- 8. Search and detection scores --------------------------------------------------------------


def iou(a, b) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def detection_scores(truth, dets, threshold: float) -> dict[str, float]:
    """Return recall and AP · recall of the detections [n, 5] (box, score) of each image.

    Only detections with a score of at least `threshold` count. A detection is right if it and a
    true box have their largest IoU with each other, and this is 0.5 or more.
    """
    right, scores = [], []
    for boxes, found in zip(truth, dets):
        found = found[found[:, 4] >= threshold]
        pairs = [[iou(a, b) for b in found[:, :4].tolist()] for a in boxes.tolist()]
        table = np.array(pairs).reshape(len(boxes), len(found))
        for d in range(len(found)):
            g = table[:, d].argmax() if len(boxes) else None
            right.append(g is not None and table[g].argmax() == d and table[g, d] >= 0.5)
            scores.append(float(found[d, 4]))
    if not any(right):
        return {"recall": 0.0, "ap": 0.0}
    recall = sum(right) / sum(map(len, truth))
    return {"recall": recall, "ap": average_precision_score(right, scores) * recall}


def search_scores(dets, feats, queries: Tensor, protocol, cbgm=None) -> dict:
    """Return mAP and top-1, 5, 10, and for each query its ranking of (similarity, right, image).

    Each gallery image has detections [n, 5] (box, score) and embeddings [n, D]. Detections with a
    score of 0.5 or more are ranked by inner product with the queries [Q, D], in the images that the
    protocol (of datasets.protocol) lists for the query. An image that is listed twice counts twice.
    """
    keep = [d[:, 4] >= 0.5 for d in dets]
    boxes = [d[k, :4].double().tolist() for d, k in zip(dets, keep)]
    feats = [f[k] for f, k in zip(feats, keep)]
    aps, first_hits, rankings = [], [], []
    for row, query in enumerate(protocol.queries):
        listed = {image: n for image, n in enumerate(protocol.listed[row].tolist()) if n}
        sims = {image: (feats[image] @ queries[query]).tolist() for image in listed}
        if cbgm:
            rerank(sims, feats, listed, cbgm.people[query][: cbgm.k2], cbgm.k1)
        entries = {protocol.image[e]: e for e in np.flatnonzero(protocol.query == row)[::-1]}
        ranking, found, present = [], 0, int((protocol.query == row).sum())
        for image, times in listed.items():
            true = protocol.boxes[protocol.box_entry == entries.get(image, -1)].tolist()
            hit = right_detection(sims[image], boxes[image], true)
            found += times * (hit is not None)
            ranking += times * [(s, d == hit, image) for d, s in enumerate(sims[image])]
        ranking.sort(key=lambda one: (-one[0], one[1]))  # of equal similarities, wrong ones first
        hits = [right for _, right, _ in ranking]
        similarities = [similarity for similarity, *_ in ranking]
        ap = average_precision_score(hits, similarities) if found else 0.0
        aps.append(ap * found / max(present, 1))
        first_hits.append(hits.index(True) + 1 if found else 0)
        rankings.append(ranking)
    first = np.array(first_hits)
    top = {f"top{k}": np.mean((first > 0) & (first <= k)) for k in (1, 5, 10)}
    return {"mAP": np.mean(aps), **top, "ap": aps, "first_hit": first_hits, "rankings": rankings}


def right_detection(sims: list[float], boxes, true) -> int | None:
    """Return the most similar detection with IoU >= min(0.5, w h / ((w + 10) (h + 10))) of a true
    box."""
    for d in sorted(range(len(boxes)), key=lambda d: -sims[d]):
        for x1, y1, x2, y2 in true:
            w, h = x2 - x1, y2 - y1
            if iou(boxes[d], (x1, y1, x2, y2)) >= min(0.5, w * h / ((w + 10) * (h + 10))):
                return d
    return None


# --- 9. CBGM: context bipartite graph matching (AAAI 2021) ---------------------------------------


def rerank(sims: dict, feats, listed: dict, people: Tensor, k1: int) -> None:
    """Re-rank by context bipartite graph matching.

    `people` [k2, D] of the query's image, the query first, are matched to the detections of each
    image that has one of the k1 best, one to one, so that the total similarity is largest. The
    query's match then gets the largest single similarity of the matching.
    """
    best = sorted(
        (-s, image, d)
        for image in sims
        for d, s in enumerate(sims[image])
        for _ in range(listed[image])
    )
    for image in {image for _, image, _ in best[:k1]}:
        edges = (people @ feats[image].T).numpy()
        person, matched = linear_sum_assignment(edges, maximize=True)
        for p, d in zip(person, matched):
            if p == 0:
                sims[image][d] = float(edges[person, matched].max())
