"""The checkpoints of a run in its folder: saving, finding the newest, renaming damaged ones."""

import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from engine.checkpoint import load_checkpoint
from engine.evaluation.records import EVALUATIONS
from engine.weights import SUFFIX
from utils.errors import DamagedError, UserError, first_of, reason_of
from utils.files import open_file, remove, save_file, written_beside

BEST, CONFIG = "best.pth", "config.yaml"


class CheckpointFolder:
    """The checkpoint files of one run.

    epoch_EE.pth is written at the end of an epoch (the first is 00), epoch_EE_step_SSSSSS.pth
    within an epoch. best.pth is a copy of the one with the highest mAP.

    Args:
        folder: OUTPUT_DIR.
        keep: how many checkpoints remain beside best.pth.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder = folder
        self.keep = keep

    def newest_first(self) -> list[Path]:
        """Return the paths of all checkpoints except best.pth, the most advanced first.

        A finished epoch is more advanced than every step within it.
        """

        def progress(path: Path) -> tuple[int, float]:
            epoch, step = re.fullmatch(r"epoch_(\d+)(?:_step_(\d+))?", path.stem).groups()
            return int(epoch), float("inf") if step is None else int(step)

        found = [
            p
            for p in self.folder.glob("epoch_*.pth")
            if re.fullmatch(r"epoch_\d+(_step_\d+)?", p.stem)
        ]
        return sorted(found, key=progress, reverse=True)

    def files_of_earlier_run(self) -> list[str]:
        """Return the names of the files that an earlier run has written into this folder."""
        named = [self.folder / BEST, self.folder / EVALUATIONS]
        found = [*self.newest_first(), *self.folder.glob("epoch_*.pth.damaged*")]
        return [path.name for path in [*found, *named] if path.exists()]

    def check_unused(self, resume: bool, checkpoint: str | None) -> None:
        """Refuse to overwrite an existing run.

        Raises:
            UserError: if OUTPUT_DIR holds files of a run and `resume` is false, or files of a run
                without a checkpoint.
        """
        left = self.files_of_earlier_run()
        if left and not resume:
            raise UserError(
                f"OUTPUT_DIR {self.folder}: contains {first_of(left)} of an earlier run; "
                "give --resume to continue it, or another OUTPUT_DIR"
            )
        if left and not checkpoint and not self.newest_first():
            raise UserError(
                f"OUTPUT_DIR {self.folder}: contains {first_of(left)}, but no checkpoint to "
                "continue from; give --ckpt FILE, or another OUTPUT_DIR"
            )

    def save(self, content: dict) -> Path:
        """Write a checkpoint and remove the oldest ones beyond `keep`.

        Args:
            content: "epoch" is the number of finished epochs, "step" the number of finished steps
                of the next one.

        Returns:
            The path of the file.
        """
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

    def find(self, path: str | None, say: Callable[[str], None]) -> tuple[Path, dict] | None:
        """Return the path and the content of the checkpoint from which to continue, or None."""
        if not path:
            return self.load_newest(say)
        newest = self.newest_first()[:1]
        if newest and newest[0].resolve() != Path(path).resolve():
            raise UserError(
                f"--ckpt {path}: OUTPUT_DIR {self.folder} contains {newest[0].name}, which the run "
                "would overwrite or mix with; move it, or give another OUTPUT_DIR"
            )
        if Path(path).suffix == SUFFIX:
            raise UserError(
                f"--ckpt {path}: expected a checkpoint of the run, found inference-only weights"
            )
        return Path(path), load_checkpoint(path)

    def load_newest(
        self, say: Callable[[str], None], rename: bool = True
    ) -> tuple[Path, dict] | None:
        """Read the newest undamaged checkpoint.

        Newer damaged ones are reported through `say`.

        Args:
            rename: whether damaged ones are renamed to NAME.damaged.

        Returns:
            The path and the content, or None if the folder holds no checkpoint.

        Raises:
            UserError: if all checkpoints are damaged, or one cannot be read.
        """
        damaged = []
        for path in self.newest_first():
            try:
                found = path, load_checkpoint(path, "--resume")
            except DamagedError as error:
                damaged.append((path, error))
                continue
            for bad, error in damaged:
                renamed = f"renamed to {put_aside(bad).name}, " if rename else ""
                say(f"{error}; {renamed}continuing with {path.name}")
            return found
        if damaged:
            raise UserError(
                f"OUTPUT_DIR {self.folder}: every checkpoint is damaged ({damaged[0][1]}); give "
                "--ckpt FILE, or another OUTPUT_DIR to start from the beginning"
            )
        return None


def put_aside(path: Path) -> Path:
    """Rename a file to NAME.damaged, or to NAME.damaged.N with the first free N. Return the new
    path."""
    names = itertools.chain([".damaged"], (f".damaged.{n}" for n in itertools.count(2)))
    aside = next(new for end in names if not (new := path.with_name(path.name + end)).exists())
    try:
        return path.rename(aside)
    except OSError as error:
        raise UserError(f"{path}: damaged, and cannot be renamed ({reason_of(error)})") from None
