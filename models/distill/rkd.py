"""RKD: distances and angles between people in the embedding space, independent of scale.

Park et al., "Relational Knowledge Distillation", CVPR 2019, equations 4 to 10; here they are means
over pairs and triplets instead of sums, for the people that CD compares.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from models.distill import BatchTerm
from models.distill.cd import compared_people
from models.outputs import ForwardOutputs


def differences(embeddings: Tensor) -> Tensor:
    """Return the difference vectors of all pairs: [P, D] -> [P, P, D]."""
    return embeddings[None] - embeddings[:, None]


def distances(embeddings: Tensor) -> Tensor:
    """Return the distances of all pairs, divided by their mean: [P, D] -> [P, P]."""
    pairs, count = differences(embeddings).norm(dim=2), len(embeddings)
    return pairs * count * (count - 1) / pairs.sum().clamp(min=1e-12)


def angles(embeddings: Tensor) -> Tensor:
    """Return the cosines of the angles of all triplets, at the first of the three: [P, D] -> [P, P,
    P].

    If two of the three are the same person, the value is 0 or 1, equal for all networks.
    """
    sides = F.normalize(differences(embeddings), dim=2)
    return sides @ sides.mT


def rkd_loss(
    student: Tensor, teacher: Tensor, distance_weight: float, angle_weight: float
) -> Tensor:
    """Return the Huber losses (delta 1) of distances, mean over pairs, and of angles, mean over
    triplets.

    With fewer than two people there is no pair, and with fewer than three no triplet; that loss is
    0.

    Args:
        student: [P, D] embeddings.
        teacher: [P, D'] embeddings of the same people.
        distance_weight: of the distances.
        angle_weight: of the angles.
    """
    people = len(student)
    pairs, triplets = people * (people - 1), people * (people - 1) * (people - 2)
    distance = F.smooth_l1_loss(distances(student), distances(teacher), reduction="sum")
    angle = F.smooth_l1_loss(angles(student), angles(teacher), reduction="sum")
    return distance_weight * distance / max(pairs, 1) + angle_weight * angle / max(triplets, 1)


class Term(BatchTerm):
    """RKD on the sampled boxes that are people.

    Args:
        distance_weight: of the distances.
        angle_weight: of the angles.
        nms_thresh: IoU above which two boxes of one identity overlap.
    """

    reads = "embeddings"

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        levels: Sequence[str],
        distance_weight: float,
        angle_weight: float,
        nms_thresh: float,
    ):
        super().__init__()
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight
        self.nms_thresh = nms_thresh

    def rows(self, student: ForwardOutputs, teacher: ForwardOutputs) -> tuple[Tensor, ...]:
        """Return embeddings [P, D] and the teacher's embeddings [P, D'] of the compared people."""
        return compared_people(student, teacher, "teacher", self.nms_thresh)[:2]

    def loss(self, rows: tuple[Tensor, ...], teacher: ForwardOutputs) -> Tensor:
        ours, theirs = rows
        return rkd_loss(ours, theirs, self.distance_weight, self.angle_weight)
