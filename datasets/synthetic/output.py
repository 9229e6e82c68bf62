"""The folder of a synthetic dataset with its record, and the processes that draw."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from datasets.workers import prepare_worker
from utils.errors import UserError
from utils.files import expect_new, read_text, write_text

T = TypeVar("T")
R = TypeVar("R")
VERSION = 1  # increases when the same parameters would give other images
RECORD = "synthetic.json"
LONGEST_SIDE = 4096  # pixels; drawing takes gigabytes beyond it, and JPEG files end at 65,500


def check_size(size: tuple[int, int], options: tuple[str, str] = ("--width", "--height")) -> None:
    """Check the width and height of the pictures.

    Args:
        options: the names of both in messages.

    Raises:
        UserError: one is out of its range.
    """
    for option, side in zip(options, size):
        if not 64 <= side <= LONGEST_SIDE:
            raise UserError(f"{option}: expected 64 to {LONGEST_SIDE} pixels, found {side}")


def check_common(size: tuple[int, int], workers: int | None, difficulty: float) -> None:
    """Check the parameters that are common to all layouts.

    Raises:
        UserError: one is out of its range.
    """
    check_size(size)
    if workers is not None and workers < 1:
        raise UserError(f"--workers: expected at least 1, found {workers}")
    if not 0 <= difficulty <= 1.5:
        raise UserError(f"--difficulty: expected 0 to 1.5, found {difficulty}")


def check_at_least(**limits: tuple[int, int]) -> None:
    """Check parameters by name, each given as its value and its smallest valid value.

    Raises:
        UserError: one is too small.
    """
    for name, (value, minimum) in limits.items():
        if value < minimum:
            raise UserError(f"--{name}: expected at least {minimum}, found {value}")


def is_finished(out: str, asked: dict, record: str = RECORD) -> bool:
    """Return whether `out` holds a complete dataset with the parameters `asked`.

    Args:
        record: the name of the file in `out` that contains the parameters.

    Raises:
        UserError: if `out` contains something else, or its record is damaged.
    """
    path = os.path.join(out, record)
    if not os.path.exists(path):
        expect_new(Path(out), "--out")
        return False
    try:
        found = json.loads(read_text(Path(path), ""))
        finished = found.pop("finished")
    except (ValueError, AttributeError, TypeError, KeyError):
        raise UserError(f"{path}: damaged; delete the folder {out}") from None
    for key in asked | found:
        if found.get(key) != asked.get(key):
            raise UserError(
                f"{out}: contains a dataset with {key} {found.get(key)}, not {asked.get(key)}; "
                "delete it or choose another folder"
            )
    return finished


def write_record(out: str, asked: dict, finished: bool, record: str = RECORD) -> None:
    write_text(json.dumps(asked | {"finished": finished}, indent=1), Path(out, record))


def in_parallel(
    draw: Callable[[T], R], frames: Sequence[T], workers: int | None, chunk: int = 4
) -> Iterator[R]:
    """Compute results in several processes, and yield them in order.

    Args:
        workers: number of processes; None: one per core.
        chunk: number of frames that a process takes at a time.

    Raises:
        UserError: if a process was killed.
    """
    workers = workers or (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )
    if workers == 1:
        yield from map(draw, frames)
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), prepare_worker, initargs=(0,)
    )
    try:
        yield from pool.map(draw, frames, chunksize=chunk)
    except BrokenProcessPool:
        raise UserError(
            f"--workers: expected fewer than {workers}: one of these processes was killed, as the "
            "system does when memory runs out"
        ) from None
    finally:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        pool.shutdown(cancel_futures=True)
