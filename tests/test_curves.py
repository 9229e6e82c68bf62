"""Curves keep every point if the clock is set back between the start and the resumption of a
run."""

import os
import time
from pathlib import Path

import pytest

from engine.training.curves import curves_in, order_before
from tests.training import scalars
from utils.errors import UserError


def write(folder: Path, steps: range, first: int) -> None:
    with curves_in(folder, first, True) as curves:
        for step in steps:
            curves.add({"loss": float(step)}, step)


@pytest.mark.parametrize(
    "clock", [(2e9, 1e9, 1.5e9), (1e9, 1e9, 1e9), (3, 2, 1), (1e9, 1e9 + 9, 5)]
)
def test_the_clock_goes_back(tmp_path: Path, monkeypatch, clock: tuple[float, ...]):
    """Steps of a killed run that are repeated have one point each."""
    for now, (first, end) in zip(clock, ((0, 5), (3, 7), (6, 9))):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        write(tmp_path, range(first, end), first)
    monkeypatch.undo()
    assert scalars(tmp_path) == {"loss": [(step, float(step)) for step in range(9)]}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_is_not_utf8_is_refused(tmp_path: Path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    with pytest.raises(UserError, match="^OUTPUT_DIR .*: expected a path in UTF-8"):
        write(folder, range(1), 0)


def test_files_are_renamed_only_if_needed_and_none_is_lost(tmp_path: Path):
    names = ["0000000005.a.1.0", "0000000005.b.1.0", "0000000006.b.1.0", "0000000009.a.1.0"]
    for name in names:
        (tmp_path / f"events.out.tfevents.{name}").write_text(name)
    (tmp_path / "events.out.tfevents.mine").write_text("mine")
    before = sorted(tmp_path.iterdir())
    order_before(tmp_path, 10)
    assert sorted(tmp_path.iterdir()) == before
    order_before(tmp_path, 9)
    after = sorted(tmp_path.iterdir())
    assert [path.read_text() for path in after] == [*names, "mine"]
    assert after[3].name < "events.out.tfevents.0000000009"
