"""A student under its teacher, from a config."""

import torch
from torch import nn
from yacs.config import CfgNode

from engine.checkpoint import load_teacher
from models.build import build_distiller, build_net, init_from_teacher
from models.search_net import SearchNet


def build(cfg: CfgNode, num_pids: int, device: torch.device) -> tuple[nn.Module, SearchNet]:
    """The distiller of DISTILLER.TERMS under the teacher of DISTILLER.TEACHER_CKPT, and the
    student in it: drawn first, it starts as it would alone from the same seed."""
    student = build_net(cfg, num_pids).to(device)
    teacher, teacher_cfg = load_teacher(cfg.DISTILLER.TEACHER_CKPT, device)
    if cfg.DISTILLER.INIT_STUDENT:
        copied = init_from_teacher(student, teacher)
        print(f"student starts with {len(copied)} tensors of the teacher: {', '.join(copied)}")
    return build_distiller(cfg, student, teacher, teacher_cfg).to(device), student
