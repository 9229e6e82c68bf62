"""CD, re-id distillation: how people relate to one another in the embedding space.

DDPS, TMM 2024, the correlation form. The contrastive form is InfoNCE, van den Oord et al.,
"Representation Learning with Contrastive Predictive Coding", 2018, equation 4, with the teacher's
embeddings as keys.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, remove_small_boxes

from datasets.types import UNLABELED
from models.distill import check_choice
from models.oim import OIM
from models.outputs import ForwardOutputs
from utils.errors import UserError

MIN_SIDE = 0.01  # pixels


def correlation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """0.01 * sum (S Sᵀ - T Tᵀ)² of embeddings [P, D] of the same people, as published.

    It grows with P², so what a weight means depends on the batch size.
    """
    return 0.01 * ((student @ student.t() - teacher @ teacher.t()) ** 2).sum()


def contrastive_loss(student: Tensor, teacher: Tensor, labels: Tensor, oim: OIM) -> Tensor:
    """InfoNCE, mean over people, at the scale of the teacher's OIM.

    Positives of a student's embedding: the teacher's of the same person (of the same box, for the
    unlabelled); averaged. Negatives: those of other identities, in the batch and in the teacher's
    tables. Two unlabelled people may or may not be the same, so they are neither.

    Args:
        student, teacher: [P, D] unit embeddings of the same people.
        labels: [P] int64: 1..N, UNLABELED.
    """
    keys, key_labels = _keys(teacher, labels, oim)
    logits = oim.scale * student @ keys.t()
    negatives = logits.masked_fill(labels[:, None] == key_labels, -torch.inf).logsumexp(dim=1)
    same = (labels[:, None] == labels) & (labels != UNLABELED)
    same = same | torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    # -log(e^p / (e^p + sum e^n)) of each pair
    pairs = F.softplus(negatives[:, None] - logits[:, : len(labels)])
    return ((pairs * same).sum(dim=1) / same.sum(dim=1)).sum() / max(len(labels), 1)


def _keys(teacher: Tensor, labels: Tensor, oim: OIM) -> tuple[Tensor, Tensor]:
    """The teacher's embeddings [P, D] and all written rows of its tables, and their labels."""
    rows = torch.cat([oim.lut, oim.cq])
    row_labels = torch.arange(1, len(rows) + 1, device=rows.device)
    row_labels[len(oim.lut) :] = UNLABELED
    written = rows.any(dim=1)
    return torch.cat([teacher, rows[written]]), torch.cat([labels, row_labels[written]])


def confidence(embeddings: Tensor, labels: Tensor, oim: OIM) -> Tensor:
    """[P]: probability of a person's own identity, for the unlabelled the best of the queue.

    Args:
        embeddings: [P, D] unit embeddings of the network that `oim` belongs to.
        labels: [P] int64: 1..N, UNLABELED.
    """
    chances = oim.logits(embeddings).softmax(dim=1)
    count = len(oim.lut)
    own = chances.gather(1, labels.clamp(max=count)[:, None] - 1)[:, 0]
    stranger = F.pad(chances[:, count:], (0, 1)).amax(dim=1)  # 0 without a queue
    return torch.where(labels == UNLABELED, stranger, own)


def nms_per_identity(
    boxes: Tensor, labels: Tensor, images: Tensor, scores: Tensor, iou_thresh: float
) -> Tensor:
    """Indices of the people that stay: NMS among the boxes of one identity in one image.

    Args:
        boxes: [P, 4] pixels; labels, images: [P] int64; scores: [P], who goes first.
    """
    large = remove_small_boxes(boxes, MIN_SIDE)
    groups = torch.stack([images, labels], dim=1)[large].unique(dim=0, return_inverse=True)[1]
    # batched_nms shifts the boxes of each group apart: small numbers and doubles keep IoUs exact
    keep = batched_nms(boxes[large].double(), scores[large].double(), groups, iou_thresh)
    return large[keep]


def check_tables(student: OIM, teacher: OIM) -> None:
    """UserError where the same label is not the same person to both."""
    if not len(teacher.lut):
        raise UserError(
            "DISTILLER.TERMS: cd and rkd need the teacher's table of identities, which weights to "
            "hand on leave out; expected DISTILLER.TEACHER_CKPT with a checkpoint of its training"
        )
    if len(student.lut) != len(teacher.lut):
        raise UserError(
            f"DISTILLER.TERMS: expected a teacher of the same {len(student.lut)} "
            f"identities, found one of {len(teacher.lut)}"
        )


def check_lengths(student: OIM, teacher: OIM) -> None:
    """UserError where embeddings differ in length, which forbids to compare one with another."""
    sizes = student.lut.shape[1], teacher.lut.shape[1]
    if sizes[0] != sizes[1]:
        raise UserError(
            "DISTILLER.CD.FORM contrastive: expected a teacher of the same "
            f"MODEL.EMBEDDING_SIZE {sizes[0]}, found one of {sizes[1]}"
        )


def compared_people(
    student: ForwardOutputs, teacher: ForwardOutputs, rank_by: str, nms_thresh: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The people to compare, each once where it stands: the student's embeddings [P, D] of them,
    the teacher's [P, D'], their labels [P].

    Args:
        rank_by: whose box stays in NMS: "teacher", the one it is surest of, or "constant", the
            first.
        nms_thresh: IoU above which two boxes of one identity are one.
    """
    check_tables(student.oim, teacher.oim)
    all_labels, boxes = torch.cat(student.people.labels), student.people.boxes
    counts = torch.tensor([len(image) for image in boxes], device=all_labels.device)
    images = torch.arange(len(counts), device=all_labels.device).repeat_interleave(counts)
    people = all_labels.nonzero()[:, 0]
    labels = all_labels[people]
    if rank_by == "teacher":
        with torch.no_grad():
            scores = confidence(teacher.embeddings[people], labels, teacher.oim)
    else:
        scores = torch.ones(len(people), device=labels.device)
    chosen = nms_per_identity(torch.cat(boxes)[people], labels, images[people], scores, nms_thresh)
    people = people[chosen]
    return student.embeddings[people], teacher.embeddings[people], labels[chosen]


class Term(nn.Module):
    """Distillation of the embeddings of the sampled boxes that are people.

    The correlation form compares people within each network, so embeddings may differ in length;
    the contrastive form compares the student's with the teacher's, and needs the same
    MODEL.EMBEDDING_SIZE.

    Args:
        form: "correlation" (published) or "contrastive".
        rank_by, nms_thresh: as in `compared_people`; the release, which loses the teacher's tables,
            ranks by "constant" in effect.
    """

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        form: str,
        rank_by: str,
        nms_thresh: float,
    ):
        super().__init__()
        self.form = check_choice("DISTILLER.CD.FORM", form, ("correlation", "contrastive"))
        self.rank_by = check_choice("DISTILLER.CD.RANK_BY", rank_by, ("teacher", "constant"))
        self.nms_thresh = nms_thresh

    def forward(self, student: ForwardOutputs, teacher: ForwardOutputs) -> Tensor:
        """Embeddings [R, D] of the same R sampled boxes -> scalar."""
        ours, theirs, labels = compared_people(student, teacher, self.rank_by, self.nms_thresh)
        if self.form == "correlation":
            return correlation_loss(ours, theirs)
        check_lengths(student.oim, teacher.oim)
        return contrastive_loss(ours, theirs, labels, teacher.oim)
