"""One run at a time in an OUTPUT_DIR."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine.distributed import from_first
from engine.evaluation.cache import CACHE
from engine.evaluation.records import EVALUATIONS, RESULTS, SIZES_DRAWN, THRESHOLDS_DRAWN
from engine.training.folder import BEST, CONFIG
from utils.files import make_folder, remove
from utils.locks import locked

NAME = ".lock"
WRITTEN = (BEST, CACHE, CONFIG, EVALUATIONS, RESULTS, SIZES_DRAWN, THRESHOLDS_DRAWN)
# The beginnings of files that a run was killed over: names that only `written_beside` and the
# parts of an evaluation have.
PARTS = re.compile(
    rf"(?:epoch_\d+(?:_step_\d+)?\.pth|{'|'.join(map(re.escape, WRITTEN))})\.part"
    rf"|{Path(CACHE).stem}\.part\d+"
)


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Make `folder`, and keep other runs out of it; UserError where there is one, which it names.
    The lock is the first rank's, and dies with it."""
    with ExitStack() as stack:
        from_first(lambda: _enter(folder, stack))
        yield


def _enter(folder: Path, stack: ExitStack) -> None:
    make_folder(folder, "OUTPUT_DIR")
    stack.enter_context(locked(folder / NAME, f"OUTPUT_DIR {folder}"))
    for path in folder.iterdir():
        if PARTS.fullmatch(path.name):
            remove(path)
