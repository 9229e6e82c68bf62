"""Train a student with the distillation terms of DISTILLER.TERMS (DDPS: dfd, ld, cd), or evaluate
one."""

from utils.early import leave_on_signals

if __name__ == "__main__":
    leave_on_signals()

    from engine.run import run
    from engine.training.build import build_distilled
    from utils.errors import run_main

    run_main(lambda: run(__doc__, build_distilled))
