"""Construction of a distilled student from a config."""

import torch
from torch import nn
from yacs.config import CfgNode

from engine.checkpoint import load_teacher
from engine.device import precision_of
from models.build import build_distiller, build_net, init_from_teacher
from models.search_net import SearchNet


def build(cfg: CfgNode, num_pids: int, device: torch.device) -> tuple[nn.Module, SearchNet]:
    """Build the distiller of DISTILLER.TERMS with the teacher of DISTILLER.TEACHER_CKPT.

    The student is initialised first. With the same seed it has the initial weights of a student
    that is trained without a teacher.

    Returns:
        The distiller, and the student in it.
    """
    student = build_net(cfg, num_pids).to(device)
    teacher, teacher_cfg = load_teacher(cfg.DISTILLER.TEACHER_CKPT, device)
    if cfg.DISTILLER.INIT_STUDENT:
        copied = init_from_teacher(student, teacher)
        print(f"student initialised with {len(copied)} teacher tensors: {', '.join(copied)}")
    precision = precision_of("DISTILLER.TEACHER_AMP", cfg.DISTILLER.TEACHER_AMP)
    return build_distiller(cfg, student, teacher, teacher_cfg, precision).to(device), student
