"""The checkpoints of a run in its folder: saved whole, the newest found again, damaged ones put
aside."""

import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from engine.checkpoint import load_checkpoint
from engine.evaluation.records import EVALUATIONS
from utils.errors import DamagedError, UserError, reason_of
from utils.files import open_file, remove, save_file, written_beside

BEST, CONFIG = "best.pth", "config.yaml"


class CheckpointFolder:
    """The checkpoints of one run: epoch_EE.pth at an epoch's end (the first is 00),
    epoch_EE_step_SSSSSS.pth inside one, best.pth."""

    def __init__(self, folder: Path, keep: int):
        self.folder = folder
        self.keep = keep

    def newest_first(self) -> list[Path]:
        """Checkpoints by progress; a finished epoch E comes after every step within it."""

        def progress(path: Path) -> tuple[int, float]:
            epoch, step = re.fullmatch(r"epoch_(\d+)(?:_step_(\d+))?", path.stem).groups()
            return int(epoch), float("inf") if step is None else int(step)

        found = [
            p
            for p in self.folder.glob("epoch_*.pth")
            if re.fullmatch(r"epoch_\d+(_step_\d+)?", p.stem)
        ]
        return sorted(found, key=progress, reverse=True)

    def traces(self) -> list[str]:
        """Names of what an earlier run has left."""
        named = [self.folder / BEST, self.folder / EVALUATIONS]
        found = [*self.newest_first(), *self.folder.glob("epoch_*.pth.damaged*")]
        return [path.name for path in [*found, *named] if path.exists()]

    def save(self, content: dict) -> Path:
        """content["epoch"] epochs are finished and content["step"] steps of the next one."""
        epoch, step = content["epoch"], content["step"]
        name = f"epoch_{epoch:02d}_step_{step:06d}.pth" if step else f"epoch_{epoch - 1:02d}.pth"
        save_file(content, self.folder / name)
        for old in self.newest_first()[self.keep :]:
            remove(old)
        return self.folder / name

    def mark_best(self, path: Path) -> None:
        """Copy a checkpoint to best.pth."""
        with open_file(path, BEST) as source, written_beside(self.folder / BEST) as target:
            shutil.copyfileobj(source, target)

    def load_newest(self, say: Callable[[str], None]) -> tuple[Path, dict] | None:
        """The newest whole checkpoint, None where there is none at all; `say` names each damaged
        one before it, which is put aside as NAME.damaged. UserError where all are damaged, or one
        cannot be read."""
        damaged = []
        for path in self.newest_first():
            try:
                found = path, load_checkpoint(path, "--resume")
            except DamagedError as error:
                damaged.append((path, error))
                continue
            for bad, error in damaged:
                say(f"{error}; put aside as {put_aside(bad).name}, going on with {path.name}")
            return found
        if damaged:
            raise UserError(
                f"OUTPUT_DIR {self.folder}: no checkpoint there is whole ({damaged[0][1]}); give "
                "--ckpt FILE, or another OUTPUT_DIR to start anew"
            )
        return None


def put_aside(path: Path) -> Path:
    """Rename to NAME.damaged, or to the first NAME.damaged.N that is free."""
    names = itertools.chain([".damaged"], (f".damaged.{n}" for n in itertools.count(2)))
    aside = next(new for end in names if not (new := path.with_name(path.name + end)).exists())
    try:
        return path.rename(aside)
    except OSError as error:
        raise UserError(f"{path}: damaged, cannot be renamed ({reason_of(error)})") from None
