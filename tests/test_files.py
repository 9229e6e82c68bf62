"""Files and locks: durable and complete writes, one process at a time, loading runs no code."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from engine.training.lock import sole_run
from utils.errors import DamagedError, UserError
from utils.files import load_file, save_file, write_text, written_beside
from utils.locks import locked


def test_a_lock_is_exclusive(tmp_path):
    def lock() -> AbstractContextManager[None]:
        return locked(tmp_path / "lock", "the index")

    with lock(), pytest.raises(UserError, match=f"the index: .*{os.getpid()}"), lock():
        pass
    with lock():
        pass


def test_one_run_per_output_dir(tmp_path):
    first, second, other = (sole_run(tmp_path / name) for name in ("run", "run", "other"))
    with first, other, pytest.raises(UserError, match="OUTPUT_DIR .*run: "), second:
        pass


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    path, steps = tmp_path / "a.txt", []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        steps.append(("fsync", os.fstat(descriptor).st_size))
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        steps.append(("replace", os.path.getsize(source)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_text("five!", path)
    assert steps[:2] == [("fsync", 5), ("replace", 5)]
    assert path.read_text() == "five!"


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), written_beside(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.txt"]


class RunsCode:
    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_loading_a_file_runs_no_code(tmp_path):
    torch.save({"model": RunsCode(tmp_path / "harm")}, tmp_path / "a.pth")
    with pytest.raises(DamagedError, match="--ckpt .*a.pth: "):
        load_file(tmp_path / "a.pth", "--ckpt")
    assert not (tmp_path / "harm").exists()
    save_file({"model": torch.ones(2)}, tmp_path / "b.pth")
    assert load_file(tmp_path / "b.pth", "--ckpt")["model"].tolist() == [1, 1]
