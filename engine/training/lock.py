"""The lock of an OUTPUT_DIR, which allows one run at a time."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine.distributed import from_first
from engine.evaluation.cache import CACHE
from engine.evaluation.records import EVALUATIONS, RESULTS, SIZES_DRAWN, THRESHOLDS_DRAWN
from engine.training.folder import BEST, CONFIG
from engine.training.inputs import INPUTS
from utils.files import make_folder, remove
from utils.locks import locked

NAME = ".lock"
WRITTEN = (BEST, CACHE, CONFIG, EVALUATIONS, INPUTS, RESULTS, SIZES_DRAWN, THRESHOLDS_DRAWN)
# Incomplete files of a killed run. Only `written_beside` and `make_cache` write such names.
INCOMPLETE = re.compile(
    rf"(?:epoch_\d+(?:_step_\d+)?\.pth|{'|'.join(map(re.escape, WRITTEN))})(?:\.\d+)?\.part"
    rf"|{Path(CACHE).stem}\.part\d+"
)


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Create `folder`, and lock it for the run within the context.

    Rank 0 holds the lock, which is released when its process ends.

    Raises:
        UserError: if another process, which the message names, holds the lock.
    """
    with ExitStack() as stack:
        from_first(lambda: _enter(folder, stack))
        yield


def _enter(folder: Path, stack: ExitStack) -> None:
    make_folder(folder, "OUTPUT_DIR")
    stack.enter_context(locked(folder / NAME, f"OUTPUT_DIR {folder}"))
    for path in folder.iterdir():
        if INCOMPLETE.fullmatch(path.name):
            remove(path)
