"""Tracks in MOTChallenge's form are converted to custom data, divided by time or by sequence."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import load_dataset
from tests.annotations import write_image
from tools import convert_tracks
from utils.errors import UserError

INFO = "[Sequence]\nname={0}\nimDir=img1\nframeRate=7\nseqLength={1}\nimWidth=64\nimHeight=48\n"
ROWS = """1,5,11,6,10,20,1,1,1.0
1,6,31,6,10,20,1,1,0.1
2,5,12,6,10,20,1,1,0.8
2,9,31,6,10,20,0,1,1
3,5,13,6,10,20,1,1,1

3,7,31,6,10,20,1,8,1
4,5,14.5,6,10,20,1,1,1
4,-1,31,6,10,20,1,1,1
"""


def make_sequence(folder: Path, frames: int = 4, rows: str = ROWS) -> Path:
    for frame in range(1, frames + 1):
        write_image(folder / f"img1/{frame:06d}.jpg")
    (folder / "gt").mkdir()
    (folder / "gt/gt.txt").write_text(rows)
    (folder / "seqinfo.ini").write_text(INFO.format(folder.name, frames))
    return folder


@pytest.fixture
def convert(monkeypatch, tmp_path, capsys):
    """Return a function convert(*arguments) that writes to `tmp_path / "own"` and returns what is
    printed."""

    def run(*arguments) -> str:
        command = ["convert_tracks", *arguments, "--out", tmp_path / "own"]
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        convert_tracks.main()
        return capsys.readouterr().out

    return run


def load(folder: Path):
    return load_dataset("COCO", str(folder / "own"))


def people(folder: Path, split: str) -> list[str | int | None]:
    content = json.loads((folder / f"own/{split}.json").read_text())
    return [row.get("person_id") for row in content["annotations"]]


def test_split_by_time(convert, tmp_path):
    said = convert(make_sequence(tmp_path / "gate"), "--test-share", "0.5")
    data = load(tmp_path)
    assert [s.name for s in data.train] == ["images/gate/000001.jpg", "images/gate/000002.jpg"]
    assert [s.boxes.tolist() for s in data.train] == [[[10, 5, 20, 25]], [[11, 5, 21, 25]]]
    assert [s.boxes[:, 0].tolist() for s in data.gallery] == [[12], [13.5, 30]]
    assert people(tmp_path, "train") == ["gate/5"] * 2
    assert people(tmp_path, "test") == ["gate/5"] * 2 + [None]  # -1: an unlabelled person
    assert {s.camera for s in data.train + data.gallery} == {1}
    original = (tmp_path / "gate/img1/000003.jpg").read_bytes()
    assert Path(data.gallery[0].path).read_bytes() == original
    for reason in ("its flag is 0", "class 8", "less than 0.25"):
        assert len(re.findall(f"left out, {reason}.*: 1 boxes", said)) == 1
    assert len(data.protocol(-1).query) == 1


def test_visibility_and_classes_are_as_asked(convert, tmp_path):
    sequence = make_sequence(tmp_path / "gate")
    convert(sequence, "--test-share", "0.5", "--min-visibility", "0", "--classes", "1", "8")
    assert people(tmp_path, "train") == ["gate/5", "gate/6", "gate/5"]
    assert people(tmp_path, "test") == ["gate/5", "gate/7", "gate/5", None]


@pytest.mark.parametrize("shared", [False, True])
def test_split_by_sequence(convert, tmp_path, shared):
    """Sequences are cameras. Equal numbers in two sequences are different people, unless numbers
    are shared."""
    sequences = [make_sequence(tmp_path / name) for name in ("gate", "hall", "yard")]
    shares = ["--shared-identities"] if shared else []
    said = convert(*sequences, "--test-sequences", "yard", "hall", "--every", "2", *shares)
    assert "remark: hall: " in said and "remark: yard: " in said  # have the content of gate
    data = load(tmp_path)
    assert [s.name for s in data.train] == ["images/gate/000001.jpg", "images/gate/000003.jpg"]
    assert [s.camera for s in data.gallery] == [2, 2, 3, 3]
    assert people(tmp_path, "test") == ([5] * 4 if shared else ["hall/5"] * 2 + ["yard/5"] * 2)
    matches = len(data.protocol(-1, cross_camera=shared).query)
    assert matches == (4 if shared else 2)


def test_files_with_fewer_or_more_columns(convert, tmp_path):
    rows = "1,5,11,6,10,20\n2,5,11,6,10,20,0.4,-1.5,3.2,0\n3,5,11,6,10,20,1\n4,5,11,6,10,20,1,1\n"
    sequence = make_sequence(tmp_path / "gate", rows=rows)
    (sequence / "seqinfo.ini").unlink()
    (tmp_path / "boxes.txt").write_text(rows)
    (sequence / "gt/gt.txt").unlink()
    convert(sequence, "--test-share", "0.5", "--boxes", tmp_path / "boxes.txt")
    assert people(tmp_path, "train") + people(tmp_path, "test") == ["gate/5"] * 4


def bars(count: int) -> list[np.ndarray]:
    """Return images of a white bar that moves right by 8 pixels per frame."""
    frames = np.zeros((count, 48, 64, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[:, 8 * number : 8 * number + 8] = 255
    return list(frames)


@pytest.mark.parametrize("rotation", [0, 90])
def test_a_video(convert, tmp_path, rotation):
    """The picture of each frame fits the boxes of its number, and is upright as in a video
    player."""
    pytest.importorskip("av")
    from tests.videos import write_video

    stored = [np.rot90(frame, -rotation // 90) for frame in bars(6)]
    write_video(tmp_path / "a walk.mp4", stored, rotation=rotation)
    rows = [f"{k + 1},3,{8 * k + 1},1,8,48" for k in range(6)]
    (tmp_path / "a walk.txt").write_text("\n".join(rows))
    convert(tmp_path / "a walk.mp4", "--test-share", "0.4")
    data = load(tmp_path)
    assert (len(data.train), len(data.gallery)) == (4, 2)
    for scene in data.train + data.gallery:
        x1, _, x2, _ = scene.boxes[0].astype(int)
        light = np.asarray(Image.open(scene.path).convert("L"))
        assert light.shape == (48, 64) and light[:, x1 + 1 : x2 - 1].mean() > 200
        assert np.delete(light, range(x1 - 2, x2 + 2), axis=1).mean() < 20
    assert data.train[3].name == "images/a walk/000004.jpg"


def test_a_video_with_fewer_frames_than_boxes(convert, tmp_path):
    pytest.importorskip("av")
    from tests.videos import write_video

    write_video(tmp_path / "v.mp4", bars(3))
    (tmp_path / "v.txt").write_text("1,1,1,1,8,8\n9,1,1,1,8,8\n")
    with pytest.raises(UserError, match=r"v.mp4: expected 9 frames, found 3"):
        convert(tmp_path / "v.mp4", "--test-share", "0.5")


def test_a_file_that_is_no_video(convert, tmp_path):
    pytest.importorskip("av")
    (tmp_path / "v.mp4").write_bytes(b"no video" * 99)
    (tmp_path / "v.txt").write_text("1,1,1,1,8,8\n")
    with pytest.raises(UserError, match=r"v.mp4: damaged video"):
        convert(tmp_path / "v.mp4", "--test-share", "0.5")


def test_videos_need_a_package(convert, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "v.mp4").touch()
    (tmp_path / "v.txt").write_text("1,1,1,1,8,8\n")
    with pytest.raises(UserError, match=r"v.mp4: needs the package av .*requirements-index.txt"):
        convert(tmp_path / "v.mp4", "--test-share", "0.5")


WRONG = {
    "5 columns": ("gt/gt.txt", "1,2,3,4,5", "gt.txt, line 1:"),
    "words": ("gt/gt.txt", "1,2,3,4,5,6\n1,a,3,4,5,6", "gt.txt, line 2:"),
    "frame 0": ("gt/gt.txt", "0,1,1,1,5,5", "gt.txt, line 1:"),
    "half an id": ("gt/gt.txt", "1,1.5,1,1,5,5", "gt.txt, line 1:"),
    "not a number": ("gt/gt.txt", "1,1,nan,1,5,5", "gt.txt, line 1:"),
    "nobody": ("gt/gt.txt", "1,1,1,1,5,5,0", "gt.txt: .*flag"),
    "frame 9": ("gt/gt.txt", "9,1,1,1,5,5", "gt.txt: frame 9: "),
    "other length": ("seqinfo.ini", INFO.format("x", 600), "seqLength: .* 4, found 600"),
    "no length": ("seqinfo.ini", INFO.format("x", "4 or 5"), "seqlength: "),
    "other size": (
        "seqinfo.ini",
        INFO.format("x", 4).replace("48", "50"),
        r"\(64, 50\).*\(64, 48\)",
    ),
    "other folder": (
        "seqinfo.ini",
        "[Sequence]\nimDir=img9",
        "img9: ",
    ),
    "other ending": ("seqinfo.ini", "[Sequence]\nimExt=.png", "img1: "),
    "no section": ("seqinfo.ini", "hello", r"seqinfo.ini: .*\[Sequence\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(convert, tmp_path, case):
    file, text, said = WRONG[case]
    sequence = make_sequence(tmp_path / "gate")
    (sequence / file).write_text(text)
    with pytest.raises(UserError, match=said) as error:
        convert(sequence, "--test-share", "0.5")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "own").glob("*")) and not list(tmp_path.glob(".own*"))


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--test-share", "1"], "--test-share: expected above 0 and below 1"),
        (["--test-share", "0.01"], "nothing is left for test.json"),
        (["--test-share", "0.5", "--every", "0"], "--every: expected at least 1"),
        (["--test-share", "0.5", "--min-visibility", "2"], "--min-visibility: expected 0 to 1"),
        (["--test-share", "0.5", "--classes", "7", "--boxes", "BOXES"], "--classes: .* found 6"),
        (["--test-share", "0.5", "--min-visibility", "0", "--boxes", "BOXES"], "--min-vis.* 9 col"),
        (["--test-share", "0.5", "--boxes", "a", "b"], "--boxes: expected one file for each of 1"),
        (["--test-sequences", "yard"], "--test-sequences yard: expected one of gate"),
        (["--test-sequences", "gate"], "nothing is left for train.json"),
    ],
)
def test_options_without_a_valid_value_are_refused(convert, tmp_path, arguments, said):
    boxes = tmp_path / "boxes.txt"
    boxes.write_text("1,5,11,6,10,20\n")
    arguments = [boxes if one == "BOXES" else one for one in arguments]
    with pytest.raises(UserError, match=said):
        convert(make_sequence(tmp_path / "gate"), *arguments)


@pytest.mark.parametrize("empty", ["source", "--boxes", "--out"])
def test_an_empty_path_is_refused(program, tmp_path, empty):
    """It must not mean the current folder."""
    paths = {"source": make_sequence(tmp_path / "gate"), "--out": tmp_path / "own"}
    paths |= {"--boxes": paths["source"] / "gt/gt.txt", empty: ""}
    words = [word for option in ("--out", "--boxes") for word in (option, paths[option])]
    code, _, err = program(convert_tracks.main, paths["source"], "--test-share", 0.5, *words)
    assert code == 2 and "expected a path" in err and not (tmp_path / "own").exists()


def test_nothing_already_made_is_lost(convert, tmp_path):
    sequence = make_sequence(tmp_path / "gate")
    convert(sequence, "--test-share", "0.5")
    before = (tmp_path / "own/train.json").read_bytes()
    with pytest.raises(UserError, match="own: "):
        convert(sequence, "--test-share", "0.25")
    assert (tmp_path / "own/train.json").read_bytes() == before


def test_a_failed_conversion_can_be_repeated(convert, tmp_path):
    with pytest.raises(UserError, match="nowhere: "):
        convert(tmp_path / "nowhere", "--test-share", "0.5")
    sequence = make_sequence(tmp_path / "gate")
    (sequence / "img1/000004.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"000004.jpg: damaged image"):
        convert(sequence, "--test-share", "0.5")
    write_image(sequence / "img1/000004.jpg")
    convert(sequence, "--test-share", "0.5")
    assert len(load(tmp_path).gallery) == 2


def test_the_form_of_cvat_and_datumaro(convert, tmp_path):
    """gt/labels.txt contains the names of the classes, and pixels are counted from 0."""
    rows = "1,1,11,6,10,20,1,2,1\n1,2,31,6,10,20,1,1,1\n2,1,12,6,10,20,1,2,1\n"
    sequence = make_sequence(tmp_path / "gate", frames=2, rows=rows)
    (sequence / "gt/labels.txt").write_text("car\nperson")
    said = convert(sequence, "--test-share", "0.5")
    data = load(tmp_path)
    assert [s.boxes.tolist() for s in data.train + data.gallery] == [
        [[11, 6, 21, 26]],
        [[12, 6, 22, 26]],
    ]
    assert "left out, class 1" in said and "remark: gate" in said


def test_only_pictures_are_frames(convert, tmp_path):
    sequence = make_sequence(tmp_path / "gate")
    for frame in range(1, 5):
        (sequence / f"img1/{frame:06d}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    convert(sequence, "--test-share", "0.5")
    assert len(load(tmp_path).train) == 2


def test_two_pictures_of_one_frame_are_refused(convert, tmp_path):
    sequence = make_sequence(tmp_path / "gate")
    (sequence / "seqinfo.ini").unlink()
    write_image(sequence / "img1/2.png")
    with pytest.raises(UserError, match=r"img1: .*000002.jpg and 2.png"):
        convert(sequence, "--test-share", "0.5")
    (sequence / "seqinfo.ini").write_text("[Sequence]\nimExt=.jpg\n")
    convert(sequence, "--test-share", "0.5")
    assert len(load(tmp_path).train) == 2


def test_copies_of_a_sequence_are_left_out(convert, tmp_path):
    """MOT17 contains each sequence three times, once for each detector."""
    sequences = [make_sequence(tmp_path / f"MOT17-02-{name}") for name in ("DPM", "SDP")]
    said = convert(*sequences, "--test-share", "0.5")
    assert people(tmp_path, "train") == ["MOT17-02-DPM/5"] * 2
    assert "remark: MOT17-02-SDP" in said


@pytest.mark.parametrize("name", ["gate", "Gate"])
def test_two_sequences_of_one_name_are_refused(convert, tmp_path, name):
    sequences = [make_sequence(tmp_path / "a/gate"), make_sequence(tmp_path / "b" / name)]
    with pytest.raises(UserError, match=f"SEQUENCE: .*gate and {name}"):
        convert(*sequences, "--test-share", "0.5")
    assert not (tmp_path / "own").exists()


def test_boxes_outside_their_picture_are_left_out(convert, tmp_path):
    """Otherwise they would be queries that cannot be embedded."""
    rows = f"{ROWS}3,8,65,6,10,20\n4,8,65,6,10,20\n"
    said = convert(make_sequence(tmp_path / "gate", rows=rows), "--test-share", "0.5")
    assert "outside its image: 2 boxes" in said and "gate/8" not in people(tmp_path, "test")


def test_an_id_that_a_frame_contains_twice_is_reported(convert, tmp_path):
    rows = "1,5,11,6,10,20\n1,5,31,6,10,20\n2,5,11,6,10,20\n"
    said = convert(make_sequence(tmp_path / "gate", rows=rows), "--test-share", "0.5")
    assert re.search("remark: gate: 1 frames .*first 5 in frame 1", said)


def test_a_file_without_usable_boxes_is_refused(convert, tmp_path):
    rows = "1,5,11,6,10,20,1,1,0\n2,5,11,6,10,20,1,1,0\n3,5,1,1,9,9,1,2,1\n"
    with pytest.raises(UserError, match=r"gt.txt: .*\(2: .*--min-visibility\), 1: .*--classes\)"):
        convert(make_sequence(tmp_path / "gate", rows=rows), "--test-share", "0.5")


def test_a_video_without_some_of_its_packets(convert, tmp_path):
    """MPEG-TS marks lost packets, and a gap in otherwise regular times is reported."""
    pytest.importorskip("av")
    from tests.videos import write_video

    drawn = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), np.uint8)
    write_video(tmp_path / "v.ts", drawn, codec="libx264")
    whole = (tmp_path / "v.ts").read_bytes()
    middle = len(whole) // 376 * 188
    (tmp_path / "v.ts").write_bytes(whole[:middle] + whole[middle + 3 * 188 :])
    (tmp_path / "v.txt").write_text("1,1,1,1,8,8\n2,1,1,1,8,8\n")
    with pytest.raises(UserError, match=r"v.ts: damaged video"):
        convert(tmp_path / "v.ts", "--test-share", "0.5")

    times = [number / 10 for number in range(41) if number != 20]
    write_video(tmp_path / "v.mp4", list(drawn), times)
    assert "after frame 20" in convert(tmp_path / "v.mp4", "--test-share", "0.5")
