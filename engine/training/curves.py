"""A run's curves in TensorBoard: each point once, at the number of steps its weights had learnt."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from utils.errors import UserError, reason_of


class Curves:
    """Writes through `writer`; nothing on ranks that have none. UserError where it cannot."""

    def __init__(self, folder: Path, writer: SummaryWriter | None):
        self.folder, self.writer = folder, writer

    def add(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._do(SummaryWriter.add_scalar, name, value, step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """pixels: [H, W, 3] uint8."""
        self._do(SummaryWriter.add_image, name, pixels, step, dataformats="HWC")

    def flush(self) -> None:
        """All that was added lies in the file."""
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
    except OSError as error:
        raise UserError(
            f"OUTPUT_DIR {folder}: TensorBoard's file cannot be written ({reason_of(error)}); "
            "checkpoints there are whole, continue with --resume"
        ) from None


@contextmanager
def curves_in(folder: Path, step: int, first: bool) -> Iterator[Curves]:
    """The curves of a run that goes on at `step`: what lies in `folder` from there on is void, as
    the run that told it was killed. first: whether this rank writes."""
    before = threading.excepthook
    # an error of the writer's thread is raised again here, with the next point
    threading.excepthook = lambda args: issubclass(args.exc_type, OSError) or before(args)
    try:
        with _writing(folder):
            curves = Curves(folder, SummaryWriter(folder, purge_step=step) if first else None)
        try:
            yield curves
        finally:
            curves.close()
    finally:
        threading.excepthook = before
