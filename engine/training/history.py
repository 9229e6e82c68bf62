"""The evaluations of a run so far: one line of JSON each, {"epoch", "recall", "ap", "mAP", …}."""

import json
from pathlib import Path

from engine.evaluation.records import EVALUATIONS
from utils.errors import UserError
from utils.files import open_file, write_text


class History:
    """folder: the run's. Read anew whenever it is asked: the file is what a killed run leaves."""

    def __init__(self, folder: Path):
        self.path = folder / EVALUATIONS

    def past(self) -> list[dict]:
        """In order; a last line that a killed run has not finished does not count."""
        if not self.path.exists():
            return []
        with open_file(self.path, "--resume") as file:
            lines = file.read().splitlines(keepends=True)
        try:
            past = [json.loads(line) for line in lines if line.endswith(b"\n")]
            if all(one.keys() >= {"epoch", "search/mAP"} for one in past):
                return past
        except (ValueError, AttributeError):
            pass
        raise UserError(
            f"{self.path}: expected lines of JSON, each with epoch and search/mAP; found others"
        ) from None

    def add(self, new: dict) -> None:
        self._write([*self.past(), new])

    def forget_after(self, epoch: int) -> None:
        """Epochs that come again, where the newest checkpoint was damaged."""
        past = self.past()
        kept = [one for one in past if one["epoch"] <= epoch]
        if len(kept) < len(past):
            self._write(kept)

    def _write(self, evaluations: list[dict]) -> None:
        write_text("".join(json.dumps(one) + "\n" for one in evaluations), self.path)
