"""CD, re-id distillation: the relations between people in the embedding space.

The correlation form is that of DDPS, TMM 2024. The contrastive form is InfoNCE (van den Oord et
al., "Representation Learning with Contrastive Predictive Coding", 2018, equation 4) with the
teacher's embeddings as keys.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, remove_small_boxes

from models.distill import BatchTerm, check_choice
from models.filtering import MIN_SIDE
from models.oim import OIM
from models.outputs import ForwardOutputs
from utils.errors import UserError


def correlation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return 0.01 · Σ (S Sᵀ - T Tᵀ)² for embeddings [P, D] of the same people, as published.

    The sum grows with P², so the effect of a weight depends on the batch size.
    """
    return 0.01 * ((student @ student.t() - teacher @ teacher.t()) ** 2).sum()


def contrastive_loss(student: Tensor, teacher: Tensor, labels: Tensor, oim: OIM) -> Tensor:
    """Return the InfoNCE loss, a mean over people, with the scale of the teacher's OIM.

    The positives of a student's embedding are the teacher's embeddings of the same identity, or of
    the same box for an unlabelled person; their losses are averaged. The negatives are embeddings
    of other identities, in the batch and in the teacher's tables. Whether two unlabelled people are
    the same person is unknown, so they are neither positives nor negatives of each other.

    Args:
        student: [P, D] unit embeddings.
        teacher: [P, D] unit embeddings of the same people.
        labels: [P] int64: 1..N, above N for unlabelled people.
        oim: the teacher's tables.
    """
    labels = labels.clamp(max=len(oim.lut) + 1)  # one label for all unlabelled people
    keys, key_labels = _keys(teacher, labels, oim)
    logits = oim.scale * student @ keys.t()
    negatives = logits.masked_fill(labels[:, None] == key_labels, -torch.inf).logsumexp(dim=1)
    same = (labels[:, None] == labels) & oim.is_labelled(labels)
    same = same | torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    # -log(e^p / (e^p + Σ e^n)) of each pair
    pairs = F.softplus(negatives[:, None] - logits[:, : len(labels)])
    return ((pairs * same).sum(dim=1) / same.sum(dim=1)).sum() / max(len(labels), 1)


def _keys(teacher: Tensor, labels: Tensor, oim: OIM) -> tuple[Tensor, Tensor]:
    """Return the teacher's embeddings [P, D] and all non-zero rows of its tables, with their
    labels: 1..N, and N + 1 for unlabelled people."""
    rows = torch.cat([oim.lut, oim.cq])
    row_labels = torch.arange(1, len(rows) + 1, device=rows.device).clamp(max=len(oim.lut) + 1)
    written = rows.any(dim=1)
    return torch.cat([teacher, rows[written]]), torch.cat([labels, row_labels[written]])


def confidence(embeddings: Tensor, labels: Tensor, oim: OIM) -> Tensor:
    """Return each person's probability of their own identity, [P]; for unlabelled people, the
    largest probability in the queue.

    Args:
        embeddings: [P, D] unit embeddings of the network that `oim` belongs to.
        labels: [P] int64: 1..N, above N for unlabelled people.
    """
    probabilities = oim.logits(embeddings).softmax(dim=1)
    count = len(oim.lut)
    own = probabilities.gather(1, labels.clamp(max=count)[:, None] - 1)[:, 0]
    queued = F.pad(probabilities[:, count:], (0, 1)).amax(dim=1)  # 0 without a queue
    return torch.where(oim.is_unlabelled(labels), queued, own)


def nms_per_identity(
    boxes: Tensor, labels: Tensor, images: Tensor, scores: Tensor, iou_thresh: float
) -> Tensor:
    """Apply non-maximum suppression among the boxes of each identity in each image.

    Args:
        boxes: [P, 4] in pixels.
        labels: [P] int64.
        images: [P] int64, the index of each box's image.
        scores: [P]; of two overlapping boxes the one with the higher score is kept.
        iou_thresh: IoU above which two boxes overlap.

    Returns:
        The indices of the boxes that are kept.
    """
    large = remove_small_boxes(boxes, MIN_SIDE)
    groups = torch.stack([images, labels], dim=1)[large].unique(dim=0, return_inverse=True)[1]
    # batched_nms offsets the boxes of each group: small group numbers and doubles keep IoUs exact
    # (findings/batched_nms_categories.sh)
    keep = batched_nms(boxes[large].double(), scores[large].double(), groups, iou_thresh)
    return large[keep]


def check_tables(identities: int, teacher: OIM) -> None:
    """Check that the teacher's table has the student's number of identities.

    Raises:
        UserError: if it has another number of them, or none.
    """
    if not len(teacher.lut):
        raise UserError(
            "DISTILLER.TEACHER_CKPT: expected a checkpoint of the teacher's training, since the "
            "terms cd and rkd need its table of identities; found inference-only weights"
        )
    if identities != len(teacher.lut):
        raise UserError(
            f"DISTILLER.TERMS: expected a teacher of the same {identities} "
            f"identities, found one of {len(teacher.lut)}"
        )


def compared_people(
    student: ForwardOutputs, teacher: ForwardOutputs, rank_by: str, nms_thresh: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Select the people that are compared, by NMS among the boxes of one identity.

    Args:
        rank_by: which of two overlapping boxes is kept: "teacher", the one with the higher
            confidence of the teacher, or "constant", the first.
        nms_thresh: IoU above which two boxes of one identity overlap.

    Returns:
        The student's embeddings [P, D], the teacher's [P, D'], and the labels [P].
    """
    check_tables(len(student.oim.lut), teacher.oim)
    all_labels, boxes = torch.cat(student.people.labels), student.people.boxes
    counts = torch.tensor([len(image) for image in boxes], device=all_labels.device)
    images = torch.arange(len(counts), device=all_labels.device).repeat_interleave(counts)
    people = all_labels.nonzero()[:, 0]
    labels = all_labels[people].clamp(max=len(student.oim.lut) + 1)  # unlabelled: one class
    if rank_by == "teacher":
        with torch.no_grad():
            scores = confidence(teacher.embeddings[people], labels, teacher.oim)
    else:
        scores = torch.ones(len(people), device=labels.device)
    chosen = nms_per_identity(torch.cat(boxes)[people], labels, images[people], scores, nms_thresh)
    people = people[chosen]
    return student.embeddings[people], teacher.embeddings[people], labels[chosen]


class Term(BatchTerm):
    """CD on the sampled boxes that are people.

    The correlation form compares people within each network, so the lengths of the embeddings may
    differ. The contrastive form compares the student's embeddings with the teacher's. If their
    lengths differ, a linear projection of the student's embeddings is trained with the student.

    Args:
        form: "correlation" (published) or "contrastive".
        rank_by: as in `compared_people`; the release, which does not load the teacher's tables,
            effectively ranks by "constant".
        nms_thresh: as in `compared_people`.
        lengths: of the student's and of the teacher's embeddings.
    """

    reads = "embeddings"

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        levels: Sequence[str],
        form: str,
        rank_by: str,
        nms_thresh: float,
        lengths: tuple[int, int] = (0, 0),
    ):
        super().__init__()
        self.form = check_choice("DISTILLER.CD.FORM", form, ("correlation", "contrastive"))
        self.rank_by = check_choice("DISTILLER.CD.RANK_BY", rank_by, ("teacher", "constant"))
        self.nms_thresh = nms_thresh
        own, other = lengths
        projected = form == "contrastive" and own != other
        self.projection = nn.Linear(own, other, bias=False) if projected else None

    def rows(self, student: ForwardOutputs, teacher: ForwardOutputs) -> tuple[Tensor, ...]:
        """Return embeddings [P, D], the teacher's embeddings [P, D'] and labels [P] of the compared
        people."""
        ours, theirs, labels = compared_people(student, teacher, self.rank_by, self.nms_thresh)
        if self.projection is not None:
            ours = F.normalize(self.projection(ours))
        return ours, theirs, labels

    def loss(self, rows: tuple[Tensor, ...], teacher: ForwardOutputs) -> Tensor:
        ours, theirs, labels = rows
        if self.form == "correlation":
            return correlation_loss(ours, theirs)
        return contrastive_loss(ours, theirs, labels, teacher.oim)
