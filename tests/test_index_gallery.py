"""tools.index_gallery: which files are added, left out and refused, and the printed text."""

import os
import shutil
import sqlite3
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs.defaults import load_cfg
from engine.index import indexing
from engine.index.gallery_index import GalleryIndex, open_index
from engine.index.local import PEOPLE
from engine.index.people import People
from engine.search.searcher import Searcher, to_pixels
from tests.crowds import make_world, moving, noise
from tests.training import die, fork, rank_environments
from tests.videos import write_video
from tools import index_gallery
from utils.videos import sample_frames


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_world(tmp_path_factory.mktemp("index_gallery"))
    write_video(folder / "walk.mp4", moving(20))
    return folder


@pytest.fixture
def run(base: Path, tmp_path: Path, program):
    """Return a function run(arguments) that adds the options of network and index.

    It returns (exit code, stdout, stderr). With `ckpt` None, there are no options of a network.
    """

    def call(*arguments, ckpt: str | Path | None = "everyone.pth"):
        network = ("--cfg", base / "cfg.yaml", "--ckpt", base / ckpt) if ckpt else ()
        options = *network, "--index", tmp_path / "index", *arguments
        return program(index_gallery.main, *options)

    return call


def people_of(folder: Path) -> dict[str, int]:
    known = People(folder / "index" / PEOPLE).known()
    assert all(one.finished for one in known)
    return {one.source.path.name: one.people for one in known}


def matches(index: GalleryIndex) -> list[tuple]:
    """Return all people by similarity, without the last digits, which depend on the batch size."""
    return [
        (m.person.path, m.person.time, m.span, pytest.approx(m.similarity, abs=1e-5))
        for m in index.search(torch.eye(16)[:2], 999)
    ]


def test_folders_files_and_videos(run, base, tmp_path):
    code, out, _ = run(base / "gallery", base / "walk.mp4", "--every", 0.5)
    assert code == 0 and out.startswith("3 pictures and 4 frames")
    found = people_of(tmp_path)
    assert found.keys() == {"s0.jpg", "s1.png", "s2.png", "walk.mp4"}
    assert f"{sum(found.values())} people in 4 pictures and videos" in out
    index = open_index(tmp_path / "index")
    assert sorted(index.people.vectors.ids) == index.people.numbers().tolist()
    times = {time for (time,) in index.people.select("SELECT time FROM people")}
    assert sorted(t for t in times if t is not None) == pytest.approx([0, 0.5, 1, 1.5])
    code, out, _ = run("--list", ckpt=None)
    assert code == 0 and "4 frames" in out and str(base / "gallery/s1.png") in out


def test_what_is_in_it_is_what_the_network_finds(run, base, tmp_path):
    run(base / "gallery")
    cfg = load_cfg(base / "cfg.yaml", [])
    searcher = Searcher.load(cfg, base / "everyone.pth")
    people = open_index(tmp_path / "index").people
    for path in sorted((base / "gallery").iterdir()):
        found = searcher.detect([path])[0]
        stored = people.persons(people.numbers().tolist())
        stored = [p for p in stored if p.path.name == path.name]
        torch.testing.assert_close(torch.tensor([p.box for p in stored]), found.boxes)
        rows = torch.from_numpy(np.stack([p.embedding for p in stored]))
        torch.testing.assert_close(rows, found.weighted_embeddings, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_again_it_adds_what_is_new_or_changed_and_nothing_else(run, base, tmp_path):
    mine = shutil.copytree(base / "gallery", tmp_path / "mine")
    shutil.copy(base / "walk.mp4", mine)
    assert "3 pictures and 20 frames" in run(mine)[1]
    before = open_index(tmp_path / "index").people.numbers()
    assert "0 pictures and 0 frames" in run(mine)[1]
    (tmp_path / "link").symlink_to(mine)  # the same files by another path
    assert "0 pictures and 0 frames" in run(tmp_path / "link", mine / "s0.jpg")[1]
    assert np.array_equal(open_index(tmp_path / "index").people.numbers(), before)
    noise((96, 64), 9).save(mine / "s1.png")
    noise((96, 64), 10).save(mine / "new.png")
    (mine / "s2.png").unlink()
    _code, out, _ = run(mine)
    assert "2 pictures and 0 frames" in out and "1 (s2.png)" in out
    assert len(people_of(tmp_path)) == 5
    assert "0 pictures and 4 frames" in run(mine, "--every", 0.5)[1]  # with another interval
    fresh = tmp_path / "fresh"
    run(mine, "--every", 0.5, "--index", fresh)
    kept = [m for m in matches(open_index(tmp_path / "index")) if m[0].name != "s2.png"]
    assert kept == matches(open_index(fresh))


def test_remove(run, base, tmp_path):
    mine = shutil.copytree(base / "gallery", tmp_path / "mine" / "sub")
    run(tmp_path / "mine", base / "walk.mp4")
    shutil.rmtree(mine)
    code, out, _ = run("--remove", base / "walk.mp4", mine / "s0.jpg", "--list", ckpt=None)
    assert code == 0 and "s1.png" in out and "walk.mp4  " not in out
    assert run("--remove", tmp_path / "mine", ckpt=None)[0] == 0
    index = open_index(tmp_path / "index")
    assert people_of(tmp_path) == {} and not len(index.people.vectors.ids)
    code, _, err = run("--remove", mine, ckpt=None)
    assert code == 2 and err.startswith(f"error: --remove {mine}: ") and err.count("\n") == 1


def test_what_is_damaged_is_named_and_passed_over(run, base, tmp_path):
    mine = shutil.copytree(base / "gallery", tmp_path / "mine")
    content = (mine / "s0.jpg").read_bytes()
    (mine / "cut.jpg").write_bytes(content[: len(content) // 2])
    (mine / "bad.png").write_bytes(b"no picture")
    (mine / "notes.txt").write_text("notes")
    (mine / "bad.mp4").write_bytes(b"no video")
    frames = [np.asarray(noise((96, 64), i)) for i in range(40)]
    write_video(tmp_path / "whole.mp4", frames)
    content = (tmp_path / "whole.mp4").read_bytes()
    (mine / "cut.mp4").write_bytes(content[: len(content) // 2])
    code, out, err = run(mine, "--every", 0.5)
    assert code == 0 and "3 pictures and 4 frames" in out
    for name in ("cut.jpg", "bad.png", "notes.txt", "bad.mp4", "cut.mp4"):
        assert name in err
    assert "a part, truncated: 1." in err
    assert people_of(tmp_path).keys() == {"s0.jpg", "s1.png", "s2.png", "cut.mp4"}
    assert "truncated" in run("--list", ckpt=None)[1]
    assert "0 pictures and 0 frames" in run(mine, "--every", 0.5)[1]


def test_what_fails_with_one_source_leaves_the_others(run, base, tmp_path, monkeypatch):
    """One source fails: it is removed after it was listed, refused by the network, too large, or
    makes a decoder raise an error. It is named, and read again in the next run."""
    mine = shutil.copytree(base / "gallery", tmp_path / "mine")
    for i, name in enumerate(("gone.jpg", "odd.png", "nan.png", "raises.png")):
        noise((96, 64), 20 + i).save(mine / name)
    noise((300, 300), 30).save(mine / "large.png")
    frames = [np.asarray(noise((96, 64), i)) for i in range(8)]
    write_video(mine / "odd.mp4", frames)
    write_video(mine / "large.mp4", [np.zeros((100, 102, 3), np.uint8)] * 3)
    (mine / "gone.jpg").rename(tmp_path / "gone.jpg")
    (mine / "gone.jpg").symlink_to(tmp_path / "gone.jpg")
    odd = [
        to_pixels(mine / "odd.png"),
        next(iter(sample_frames(mine / "odd.mp4", 0, 0.5, print))).pixels,
    ]
    detect, read, walk = Searcher.detect, indexing.read_pixels, index_gallery.walk

    def detecting(self, pictures):
        if any(
            torch.equal(one, other) for one in pictures for other in odd if one.shape == other.shape
        ):
            raise RuntimeError("could not create a primitive")
        found = detect(self, pictures)
        for one, people in zip(pictures, found):
            if torch.equal(one, nan):
                people.embeddings[0] = torch.nan
        return found

    def reading(path, *args):
        if path.name == "raises.png":
            raise ZeroDivisionError("of a decoder")
        return read(path, *args)

    def walking(*args, **options):
        media = walk(*args, **options)
        (tmp_path / "gone.jpg").unlink(missing_ok=True)
        return media

    nan = to_pixels(mine / "nan.png")
    with monkeypatch.context() as patch:
        patch.setattr(Searcher, "detect", detecting)
        patch.setattr(indexing, "read_pixels", reading)
        patch.setattr(index_gallery, "walk", walking)
        code, out, err = run(mine, "INPUT.MAX_PIXELS", 10_000)
    assert code == 0 and "Traceback" not in err
    names = {
        "gone.jpg": "No such file",
        "large.png": "INPUT.MAX_PIXELS",
        "large.mp4": "INPUT.MAX_PIXELS",
        "raises.png": "of a decoder",
    }
    names |= {
        "odd.png": "not enough memory",
        "odd.mp4": "not enough memory",
        "nan.png": "not finite",
    }
    for name, reason in names.items():
        assert [reason in line for line in err.splitlines() if name in line] == [True], err
    known = open_index(tmp_path / "index").people.known()
    assert {one.source.path.name for one in known if one.finished} == {"s0.jpg", "s1.png", "s2.png"}
    assert [one.source.path.name for one in known if not one.finished] == ["odd.mp4"]
    before = open_index(tmp_path / "index").people.numbers()
    code, out, _ = run(mine)
    assert code == 0 and "4 pictures and 5 frames" in out  # two are those that failed
    assert set(before) < set(open_index(tmp_path / "index").people.numbers())


def test_a_changed_source_stays_until_it_is_replaced(run, base, tmp_path):
    mine = shutil.copytree(base / "gallery", tmp_path / "mine")
    run(mine)
    before = matches(open_index(tmp_path / "index"))
    (mine / "s1.png").write_bytes(b"damaged meanwhile")
    assert run(mine)[0] == 0
    assert matches(open_index(tmp_path / "index")) == before
    noise((96, 64), 9).save(mine / "s1.png")
    assert "1 pictures and 0 frames" in run(mine)[1]
    after = matches(open_index(tmp_path / "index"))
    assert after != before and len(open_index(tmp_path / "index").people.known()) == 3
    run(mine, "--index", tmp_path / "fresh")
    assert after == matches(open_index(tmp_path / "fresh"))


def test_a_name_that_is_not_utf8(run, base, tmp_path):
    mine = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\nmine"))
    mine.mkdir()
    shutil.copy(base / "gallery/s0.jpg", mine / "s0.jpg")
    assert run(mine, "--list")[0] == 0
    assert next(iter(People(tmp_path / "index" / PEOPLE).known())).source.path == mine / "s0.jpg"
    assert run("--remove", mine, ckpt=None)[0] == 0


def test_a_network_with_a_name_that_is_not_utf8(run, base, tmp_path):
    network = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.pth"))
    shutil.copy(base / "everyone.pth", network)
    assert run(base / "gallery", ckpt=network)[0] == 0
    assert run(base / "gallery", ckpt=network)[0] == 0


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["missing"], "SOURCE missing: "),
        (["--every", "-1", "."], "--every -1.0: "),
        (["--every", "nan", "."], "--every nan"),
        (["--list"], "--cfg, --ckpt: "),
        (["--list", "--every", "5"], "--every"),
        (["--kind", "Nonsense", "GALLERY"], "--kind Nonsense"),
        (["GALLERY", "DEVICE"], "KEY VALUE"),
        (["GALLERY", "DEVICE", "cuda:77"], "cuda:77"),
        (["EMPTY"], "empty: "),
        (["GALLERY", ""], "SOURCE: "),
        (["GALLERY", "INPUT.MAX_PIXELS", "999999999"], "INPUT.MAX_PIXELS: "),
    ],
)
def test_bad_input_is_one_line(run, base, tmp_path, arguments, says):
    (tmp_path / "empty").mkdir()
    places = {"GALLERY": base / "gallery", "EMPTY": tmp_path / "empty"}
    code, _, err = run(*(places.get(word, word) for word in arguments))
    assert code == 2 and says in err
    assert err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--list"], ["--remove", "x"], []])
def test_without_sources_and_index_it_is_one_line(run, tmp_path, arguments):
    code, _, err = run(*arguments, ckpt=None)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path / "index").exists()


@pytest.mark.slow
def test_another_network_and_a_damaged_index(run, base, tmp_path):
    run(base / "gallery")
    code, _, err = run(base / "gallery", ckpt="other.pth")
    assert code == 2 and "everyone.pth" in err
    code, _, err = run(base / "gallery", "INPUT.MIN_SIZE", "48")
    assert code == 2 and "INPUT.MIN_SIZE 64" in err
    with open(tmp_path / "index" / PEOPLE, "r+b") as file:
        file.write(os.urandom(5000))
    code, _, err = run(base / "gallery")
    assert code == 2 and f"{PEOPLE}: " in err and err.count("\n") == 1


def test_without_its_packages(run, base, monkeypatch):
    for package in ("faiss", "av"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            code, _, err = run(base / "walk.mp4")
            assert "requirements-index.txt" in err
            assert code == (2 if package == "faiss" else 0)


def test_a_full_disk(run, base, tmp_path, monkeypatch):
    run(base / "gallery")
    connect = sqlite3.connect

    def small(*args, **options):
        db = connect(*args, **options)
        db.execute(
            f"PRAGMA max_page_count = {(tmp_path / 'index' / PEOPLE).stat().st_size // 4096}"
        )
        return db

    monkeypatch.setattr(sqlite3, "connect", small)
    code, _, err = run(base / "walk.mp4")
    assert code == 2 and PEOPLE in err and err.splitlines()[-1].startswith("error: ")


# --- killed, and many ranks ---


def _die_after(commits: int) -> None:
    """Kill the process within a transaction, after a number of complete ones."""
    add, calls = People.add, iter(range(1000))

    def dying(self, source, *args):
        add(self, source, *args)
        if next(calls) == commits:
            die()

    People.add = dying


def _command(base: Path, index: Path) -> list:
    network = "--cfg", base / "cfg.yaml", "--ckpt", base / "everyone.pth"
    return ["index", *network, "--index", index, base / "gallery", base / "walk.mp4", "--every=0.2"]


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> GalleryIndex:
    """Return an index that was made without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    process = fork(index_gallery.main, _command(base, folder / "index"), folder / "said")
    process.join(60)
    assert process.exitcode == 0, (folder / "said").read_text()
    return open_index(folder / "index")


@pytest.mark.slow
@pytest.mark.parametrize("commits", [0, 1, 3, 5, 8])
def test_killed_at_any_moment_it_continues(base, whole, tmp_path, program, commits):
    torch.set_num_threads(1)  # as in the other processes
    command, kill = _command(base, tmp_path / "index"), partial(_die_after, commits)
    process = fork(index_gallery.main, command, tmp_path / "said", [kill])
    process.join(60)
    assert process.exitcode == -9
    if commits >= 3:
        query_embeddings = torch.eye(16)[:1]
        assert len(open_index(tmp_path / "index").search(query_embeddings, 3)) == 3
    assert program(index_gallery.main, *command[1:])[0] == 0
    resumed = open_index(tmp_path / "index")
    question = "SELECT path, time, x1, score, embedding FROM people JOIN sources ON source = "
    question += "sources.id ORDER BY path, time, people.id"
    assert resumed.people.select(question) == whole.people.select(question)
    assert matches(resumed) == matches(whole)  # tracklets continue across the interruption


@pytest.mark.slow
def test_ranks_share_the_sources(run, base, tmp_path):
    network = ["--cfg", base / "cfg.yaml", "--ckpt", base / "everyone.pth"]
    shutil.copy(base / "walk.mp4", tmp_path / "walk2.mp4")
    sources = [base / "gallery", base / "walk.mp4", tmp_path / "walk2.mp4", "--every", "0.3"]
    command = ["index", *network, "--index", tmp_path / "index", *sources]
    for words in ("3 pictures and 14 frames", "0 pictures and 0 frames"):
        started = [
            fork(index_gallery.main, command, tmp_path / f"said{i}", env=env)
            for i, env in enumerate(rank_environments(2))
        ]
        for process in started:
            process.join(120)
        said = [(tmp_path / f"said{i}").read_text() for i in range(2)]
        assert [process.exitcode for process in started] == [0, 0], said
        assert words in said[0] and said[1] == ""
    assert [path.name for path in (tmp_path / "index").glob("*.sqlite")] == [PEOPLE]
    assert run(*sources, "--index", tmp_path / "one")[0] == 0
    assert matches(open_index(tmp_path / "index")) == matches(open_index(tmp_path / "one"))


def test_a_picture_turned_by_exif_is_searched_upright(run, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    noise((96, 48), 3).save(tmp_path / "turned.png", exif=exif)
    run(tmp_path / "turned.png")
    persons = open_index(tmp_path / "index").people
    boxes = np.array([p.box for p in persons.persons(persons.numbers().tolist())])
    assert boxes[:, 2].max() <= 48 and boxes[:, 3].max() > 48
