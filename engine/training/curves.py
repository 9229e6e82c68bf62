"""Training curves in TensorBoard. Each point is written once, at the number of steps done."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from utils.errors import UserError, reason_of

EVENTS = re.compile(r"events\.out\.tfevents\.(\d{10,})")


class Curves:
    """The curves of one run.

    Args:
        folder: of the event files.
        writer: None on all ranks but the first, whose calls then do nothing.

    Raises:
        UserError: from every method, if the file cannot be written.
    """

    def __init__(self, folder: Path, writer: SummaryWriter | None):
        self.folder, self.writer = folder, writer

    def add(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._do(SummaryWriter.add_scalar, name, value, step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Add a picture, [H, W, 3] uint8."""
        self._do(SummaryWriter.add_image, name, pixels, step, dataformats="HWC")

    def flush(self) -> None:
        """Write everything that was added to the file."""
        self._do(SummaryWriter.flush)

    def close(self) -> None:
        self._do(SummaryWriter.close)

    def _do(self, act: Callable[..., None], *args: Any, **options: Any) -> None:
        if self.writer is not None:
            with _writing(self.folder):
                act(self.writer, *args, **options)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeEncodeError:
        raise UserError(
            f"OUTPUT_DIR {folder}: expected a path in UTF-8, which TensorBoard requires"
        ) from None
    except OSError as error:
        raise UserError(
            f"OUTPUT_DIR {folder}: the TensorBoard file cannot be written ({reason_of(error)}); "
            "the checkpoints are complete, continue with --resume"
        ) from None


@contextmanager
def curves_in(folder: Path, step: int, first: bool) -> Iterator[Curves]:
    """Open the curves of a run that continues at `step`.

    Points from `step` on, which a killed run has left in `folder`, are removed.

    Args:
        first: whether this rank writes.
    """
    before = threading.excepthook
    # An OSError of the writer's thread is raised again in this thread by the next call.
    threading.excepthook = lambda args: issubclass(args.exc_type, OSError) or before(args)
    try:
        with _writing(folder):
            if first:
                order_before(folder, int(time.time()))
            curves = Curves(folder, SummaryWriter(folder, purge_step=step) if first else None)
        try:
            yield curves
        finally:
            curves.close()
    finally:
        threading.excepthook = before


def order_before(folder: Path, now: int) -> None:
    """Rename the event files in `folder` if TensorBoard would not read the next one after them.

    TensorBoard reads event files in the order of the times in their names, and the points of a file
    replace those of the files before it. If the clock was set back, or a run resumes within the
    second of its start, the times of the old files are lowered; their order is kept.

    Args:
        now: time of the next file, in seconds.
    """
    files = sorted(path for path in folder.glob("events.out.tfevents.*") if EVENTS.match(path.name))
    times = [int(EVENTS.match(path.name)[1]) for path in files]
    if not files or times[-1] < now:
        return
    first = max(min(times[0], now - len(files)), 0)
    for number, path in enumerate(files):
        new = path.with_name(EVENTS.sub(f"events.out.tfevents.{first + number:010d}", path.name))
        while new != path and new.exists():
            new = new.with_name(new.name + "_")
        path.rename(new)
