"""The evaluations of a run so far: one line of JSON each, {"epoch", "search/mAP", …}."""

import json
from pathlib import Path

from engine.evaluation.records import EVALUATIONS, evaluations_of
from utils.files import write_text


class History:
    """folder: the run's. Read anew whenever it is asked: the file is what a killed run leaves."""

    def __init__(self, folder: Path):
        self.folder = folder

    def past(self) -> list[dict]:
        return evaluations_of(self.folder)

    def add(self, new: dict) -> None:
        self._write([*self.past(), new])

    def forget_after(self, epoch: int) -> None:
        """Epochs that come again, where the newest checkpoint was damaged."""
        past = self.past()
        kept = [one for one in past if one["epoch"] <= epoch]
        if len(kept) < len(past):
            self._write(kept)

    def _write(self, evaluations: list[dict]) -> None:
        text = "".join(json.dumps(one) + "\n" for one in evaluations)
        write_text(text, self.folder / EVALUATIONS)
