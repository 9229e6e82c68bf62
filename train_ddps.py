"""Train a student under a teacher by the terms of DISTILLER.TERMS (DDPS: dfd, ld, cd); or
evaluate one."""

from engine.checkpoint import load_teacher
from engine.run import run
from models.build import build_distiller, build_net, inherit
from utils.errors import run_main


def build(cfg, num_pids, device):
    teacher, teacher_cfg = load_teacher(cfg.DISTILLER.TEACHER_CKPT, device)
    student = build_net(cfg, num_pids).to(device)
    if cfg.DISTILLER.INIT_STUDENT:
        copied = inherit(student, teacher)
        print(f"student starts with {len(copied)} tensors of the teacher: {', '.join(copied)}")
    return build_distiller(cfg, student, teacher, teacher_cfg).to(device), student


if __name__ == "__main__":
    run_main(lambda: run(__doc__, build))
