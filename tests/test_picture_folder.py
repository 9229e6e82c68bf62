"""Pictures of a run replace those of the run before, and no other file is removed."""

import json
from pathlib import Path

import pytest
from PIL import Image

from utils.files import file_digest
from utils.picture_folder import RECORD, replace_pictures


def put(folder: Path, *names: str) -> None:
    replace_pictures(folder, [(name, Image.new("RGB", (9, 9))) for name in names])


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {RECORD}


def test_only_own_pictures_are_replaced(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "of_the_user.png")
    put(tmp_path, "a.png", "b.png", "changed.png")
    (tmp_path / "a.png").rename(tmp_path / "renamed.png")
    Image.new("RGB", (9, 9), "red").save(tmp_path / "changed.png")
    put(tmp_path, "c.png")
    assert names_in(tmp_path) == {"of_the_user.png", "renamed.png", "changed.png", "c.png"}
    put(tmp_path)
    assert names_in(tmp_path) == {"of_the_user.png", "renamed.png", "changed.png"}


def test_names_that_differ_in_case_may_be_one_file(tmp_path):
    put(tmp_path, "a.png")
    put(tmp_path, "A.png")
    assert "A.png" in names_in(tmp_path) and (tmp_path / "a.png").exists()


@pytest.mark.parametrize("record", ["", "[]", '{"a.png": 3}', '{"a', "[" * 9999])
def test_an_invalid_record_removes_nothing(tmp_path, record):
    put(tmp_path, "a.png")
    (tmp_path / RECORD).write_text(record)
    put(tmp_path, "b.png")
    assert names_in(tmp_path) == {"a.png", "b.png"}


def test_a_record_names_files_in_the_folder_only(tmp_path):
    outside, out = tmp_path / "mine.png", tmp_path / "out"
    outside.write_bytes(b"mine")
    (out / "folder").mkdir(parents=True)
    names = "../mine.png", str(outside), "..", "folder"
    (out / RECORD).write_text(json.dumps(dict.fromkeys(names, file_digest(outside, ""))))
    put(out, "a.png")
    assert outside.exists() and names_in(out) == {"folder", "a.png"}


def test_pictures_that_cannot_be_written_replace_nothing(tmp_path):
    put(tmp_path, "a.png")

    def failing():
        yield "b.png", Image.new("RGB", (9, 9))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        replace_pictures(tmp_path, failing())
    assert "a.png" in names_in(tmp_path)
    put(tmp_path, "b.png")
    assert names_in(tmp_path) == {"b.png"}
