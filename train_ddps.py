"""Train a student under a teacher by the terms of DISTILLER.TERMS (DDPS: dfd, ld, cd); or
evaluate one."""

from engine.distillation import build
from engine.run import run
from utils.errors import run_main

if __name__ == "__main__":
    run_main(lambda: run(__doc__, build))
