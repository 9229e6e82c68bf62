"""Files and locks: writes are durable and complete, locks exclude others, loading runs no code."""

import errno
import os
import signal
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from engine.training.lock import sole_run
from utils import files, locks
from utils.early import leave
from utils.errors import DamagedError, UserError
from utils.files import folder_beside, load_file, save_file, write_text, written_beside
from utils.locks import locked


def test_a_lock_is_exclusive(tmp_path):
    def lock() -> AbstractContextManager[None]:
        return locked(tmp_path / "lock", "the index")

    with lock(), pytest.raises(UserError, match=f"the index: .*{os.getpid()}"), lock():
        pass
    with lock():
        pass


def test_a_signal_removes_an_unfinished_folder(tmp_path):
    before = signal.signal(signal.SIGTERM, leave)  # as in a program
    try:
        with pytest.raises(SystemExit) as end, folder_beside(tmp_path / "out", "--out") as made:
            write_text("half", made / "a.txt")
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is leave
    finally:
        signal.signal(signal.SIGTERM, before)
    assert end.value.code == 128 + signal.SIGTERM and not list(tmp_path.iterdir())


def test_a_missing_permission_is_one_line(program):
    def main() -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "data/a.json")

    code, _, err = program(main)
    assert code == 2 and err.count("\n") == 1 and "data/a.json: " in err


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


def test_each_writer_of_a_file_has_its_own(tmp_path):
    path = tmp_path / "a.txt"
    with written_beside(path) as first:
        first.write(b"first " * 1000)
        with written_beside(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first " * 1000
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failing_writer_leaves_the_part_of_another(tmp_path):
    path = tmp_path / "a.txt"
    with written_beside(path) as first:
        first.write(b"first")
        with pytest.raises(ZeroDivisionError), written_beside(path):
            raise ZeroDivisionError
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["a.txt"]


def test_the_rest_of_a_killed_writer_is_overwritten(tmp_path):
    path = tmp_path / "a.txt"
    (tmp_path / "a.txt.part").write_text("a long rest")
    write_text("short", path)
    assert path.read_text() == "short" and os.listdir(tmp_path) == ["a.txt"]


def test_a_disk_without_locks(tmp_path, monkeypatch, capsys):
    def refuse(*_args, **_options):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files, "lock_descriptor", refuse)
    monkeypatch.setattr(locks.FileLock, "acquire", refuse)
    write_text("text", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "text"
    with locked(tmp_path / "lock", "the index"):
        assert capsys.readouterr().out.count("\n") == 1


def test_a_process_that_was_started_does_not_hold_the_lock(tmp_path):
    stop, go = os.pipe()
    with locked(tmp_path / "lock", "the index"):
        child = os.fork()
        if child == 0:
            os.read(stop, 1)
            os._exit(0)
    try:
        with locked(tmp_path / "lock", "the index"):
            pass
    finally:
        os.write(go, b".")
        os.waitpid(child, 0)


def test_a_folder_is_made_at_the_place_of_a_link(tmp_path):
    disk, link = tmp_path / "disk", tmp_path / "link"
    disk.mkdir()
    link.symlink_to(disk)
    with folder_beside(link, "--out") as folder:
        (folder / "a").touch()
    assert link.is_symlink() and os.listdir(disk) == ["a"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    """A mount point cannot be replaced; another program has filled the folder meanwhile."""
    out = tmp_path / "out"
    with (
        pytest.raises(UserError, match="--out .*out: cannot be made"),
        folder_beside(out, "--out") as folder,
    ):
        (folder / "a").touch()
        (out / "of another").mkdir(parents=True)
    assert os.listdir(tmp_path) == ["out"]
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(UserError, match="mount point"), folder_beside(tmp_path / "new", "--out"):
        pass


def test_a_target_is_checked_before_the_work(tmp_path, monkeypatch):
    files.check_target("--out", tmp_path / "new/a.xml", ".xml")
    assert (tmp_path / "new").is_dir()
    with pytest.raises(UserError, match="ends in .xml"):
        files.check_target("--out", tmp_path / "a.json", ".xml")
    with pytest.raises(UserError, match="found a folder"):
        (tmp_path / "new/a.xml").mkdir()
        files.check_target("--out", tmp_path / "new/a.xml", ".xml")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="cannot be written"):
        files.check_target("--out", tmp_path / "new/b.xml", ".xml")
