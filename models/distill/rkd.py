"""RKD: people's distances and angles in the embedding space, up to scale.

Park et al., "Relational Knowledge Distillation", CVPR 2019, equations 4 to 10, as means over pairs
and over triplets in place of sums, on the embeddings of the people that CD compares.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.distill.cd import compared_people
from models.outputs import ForwardOutputs


def differences(embeddings: Tensor) -> Tensor:
    """[P, D] -> [P, P, D]: from each of the people to every other."""
    return embeddings[None] - embeddings[:, None]


def distances(embeddings: Tensor) -> Tensor:
    """[P, D] -> [P, P]: distance of every pair, as a share of their mean."""
    pairs, count = differences(embeddings).norm(dim=2), len(embeddings)
    return pairs * count * (count - 1) / pairs.sum().clamp(min=1e-12)


def angles(embeddings: Tensor) -> Tensor:
    """[P, D] -> [P, P, P]: the cosine of the angle at the first of three people between the other
    two; 0 or 1, for every network the same, where two of the three are one."""
    sides = F.normalize(differences(embeddings), dim=2)
    return sides @ sides.mT


def rkd_loss(
    student: Tensor, teacher: Tensor, distance_weight: float, angle_weight: float
) -> Tensor:
    """Huber losses (delta 1) of distances, mean over pairs, and of angles, mean over triplets.

    student, teacher: [P, D] embeddings of the same people; D may differ. Fewer than two people have
    no pair, fewer than three no triplet.
    """
    people = len(student)
    pairs, triplets = people * (people - 1), people * (people - 1) * (people - 2)
    distance = F.smooth_l1_loss(distances(student), distances(teacher), reduction="sum")
    angle = F.smooth_l1_loss(angles(student), angles(teacher), reduction="sum")
    return distance_weight * distance / max(pairs, 1) + angle_weight * angle / max(triplets, 1)


class Term(nn.Module):
    """Relations among the sampled boxes that are people.

    Args:
        distance_weight, angle_weight: of the two parts.
        nms_thresh: IoU above which two boxes of one identity are one.
    """

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        distance_weight: float,
        angle_weight: float,
        nms_thresh: float,
    ):
        super().__init__()
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight
        self.nms_thresh = nms_thresh

    def forward(self, student: ForwardOutputs, teacher: ForwardOutputs) -> Tensor:
        """Embeddings [R, D] of the same R sampled boxes -> scalar."""
        ours, theirs, _ = compared_people(student, teacher, "teacher", self.nms_thresh)
        return rkd_loss(ours, theirs, self.distance_weight, self.angle_weight)
