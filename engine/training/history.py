"""The evaluations of a run: one line of JSON for each, {"epoch", "search/mAP", …}."""

import json
from pathlib import Path

from engine.evaluation.records import EVALUATIONS, evaluations_of
from utils.files import write_text


class History:
    """The file evaluations.jsonl in the folder of a run.

    Every call reads the file, because after a kill it is the only state that remains.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def past(self) -> list[dict]:
        """Return all evaluations, in order."""
        return evaluations_of(self.folder)

    def add(self, new: dict) -> None:
        """Append an evaluation."""
        self._write([*self.past(), new])

    def forget_after(self, epoch: int) -> None:
        """Remove the evaluations after `epoch`.

        These epochs are trained again if the run continues from an older checkpoint.
        """
        past = self.past()
        kept = [one for one in past if one["epoch"] <= epoch]
        if len(kept) < len(past):
            self._write(kept)

    def _write(self, evaluations: list[dict]) -> None:
        text = "".join(json.dumps(one) + "\n" for one in evaluations)
        write_text(text, self.folder / EVALUATIONS)
