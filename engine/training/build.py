"""Construction of what is trained from a config: a network alone, or a distilled student."""

import sys

import torch
from torch import nn
from yacs.config import CfgNode

from datasets.base import SearchDataset
from engine.device import precision_of
from engine.distributed import rank
from engine.teachers.build import build_teacher
from models.build import build_distiller, build_net
from models.search_net import SearchNet


def build_alone(
    cfg: CfgNode, dataset: SearchDataset, device: torch.device
) -> tuple[nn.Module, SearchNet]:
    """Build a network that is trained without a teacher, and return it twice.

    The first rank reports a teacher in the config, which is not used.
    """
    if cfg.DISTILLER.TEACHER_CKPT and not cfg.DISTILLER.INIT_STUDENT and rank() == 0:
        print(
            "DISTILLER.TEACHER_CKPT: not used, since train_base.py trains without a teacher",
            file=sys.stderr,
        )
    net = build_net(cfg, dataset.num_pids).to(device)
    return net, net


def build_distilled(
    cfg: CfgNode, dataset: SearchDataset, device: torch.device
) -> tuple[nn.Module, SearchNet]:
    """Build the distiller of DISTILLER.TERMS with its teacher.

    The student is initialised first. With the same seed it has the initial weights of a student
    that is trained without a teacher.

    Returns:
        The distiller, and the student in it.

    Raises:
        UserError: if the config contradicts itself, or its teacher cannot be used.
    """
    student = build_net(cfg, dataset.num_pids).to(device)
    teacher, teacher_cfg = build_teacher(cfg, dataset, device)
    precision = precision_of("DISTILLER.TEACHER_AMP", cfg.DISTILLER.TEACHER_AMP)
    return build_distiller(cfg, student, teacher, teacher_cfg, precision).to(device), student
