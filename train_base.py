"""Train a network without distillation (a teacher, or a student's baseline), or evaluate one."""

from utils.early import leave_on_signals

if __name__ == "__main__":
    leave_on_signals()

    from engine.run import run
    from engine.training.build import build_alone
    from utils.errors import run_main

    run_main(lambda: run(__doc__, build_alone))
