"""Reading of images as a viewer shows them, and search for images in folders."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utils.errors import UserError
from utils.media import TURNS, PictureError, picture_size, read_picture, read_pixels
from utils.names import output_names, printable
from utils.sources import PICTURE, VIDEO, kind_of, told, walk

ROOT = Path(__file__).parents[1]
GREY = np.linspace(0, 255, 40 * 60).reshape(40, 60).astype(np.uint8)  # all sides differ
COLOURS = np.stack([GREY, GREY.T.reshape(40, 60), 255 - GREY], 2)


def shown(image: Image.Image, path: Path, **options) -> np.ndarray:
    """Save an image, and return what is read, [H, W, 3]."""
    image.save(path, **options)
    return read_pixels(path, upright=True).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_own_pictures_are_upright_in_every_orientation(tmp_path, orientation, suffix):
    upright = Image.fromarray(COLOURS)
    stored = upright
    if orientation > 1:  # inverse operations: 6 and 8 of each other, the others of themselves
        stored = upright.transpose(TURNS[{6: 8, 8: 6}.get(orientation, orientation)])
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"x{suffix}"
    options = {"lossless": True} if suffix == ".webp" else {}
    np.testing.assert_array_equal(shown(stored, path, exif=exif, **options), COLOURS)
    assert picture_size(path, upright=True) == (60, 40)
    if suffix != ".tif":  # which Pillow always rotates
        kept = read_pixels(path, upright=False).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(kept, np.asarray(stored))
        assert picture_size(path, upright=False) == stored.size


@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0MM\0*\0\0\0\10\0\1\1\22", b""])
def test_a_damaged_exif_does_not_spoil_the_picture(tmp_path, exif):
    np.testing.assert_array_equal(
        shown(Image.fromarray(COLOURS), tmp_path / "x.png", exif=exif), COLOURS
    )


@pytest.mark.parametrize(
    "values, name",
    [
        (GREY.astype(np.uint16) * 257, "x.png"),
        (GREY.astype(np.uint16) * 256, "x.tif"),
        (GREY.astype(np.uint16) * 16, "twelve_bits.png"),
        (GREY.astype(np.uint16), "eight_bits.png"),
        (GREY.astype(np.uint16) * 257, "x.pgm"),
        (GREY.astype(np.int32), "x.tif"),
        (GREY.astype(np.int32) * 257, "x.tif"),
        (GREY.astype(np.int32) * 100_000, "stretched.tif"),
        (GREY.astype(np.int32) - 100, "negative.tif"),
        (GREY.astype(np.float32), "x.tif"),
        (GREY.astype(np.float32) / 255, "shares.tif"),
        (np.where(GREY == 255, np.inf, np.where(GREY == 0, np.nan, GREY)), "not_finite.tif"),
    ],
)
def test_grey_of_every_depth_is_the_8_bit_grey(tmp_path, values, name):
    dtype = np.float32 if values.dtype == np.float64 else values.dtype
    seen = shown(Image.fromarray(values.astype(dtype)), tmp_path / name)
    assert np.abs(seen.astype(int) - GREY[..., None]).max() <= 1


def test_modes_are_shown_as_a_viewer_does(tmp_path):
    grey, rgb = Image.fromarray(GREY), Image.fromarray(COLOURS)
    half = np.where(GREY < 128, 0, 255).astype(np.uint8)
    on_white = np.where(half[..., None] > 0, COLOURS, 255)
    clear = Image.fromarray(np.dstack([COLOURS, half]))
    np.testing.assert_array_equal(shown(clear, tmp_path / "x.png"), on_white)
    np.testing.assert_array_equal(shown(clear, tmp_path / "x.webp", lossless=True), on_white)
    grey_on_white = np.where(half > 0, GREY, 255)[..., None].repeat(3, 2)
    both = Image.merge("LA", [grey, Image.fromarray(half)])
    np.testing.assert_array_equal(shown(both, tmp_path / "x.png"), grey_on_white)
    one = np.where(GREY == 7, 255, GREY)[..., None].repeat(3, 2)
    np.testing.assert_array_equal(shown(grey, tmp_path / "x.png", transparency=7), one)
    palette = rgb.quantize(16)
    plain = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(shown(palette, tmp_path / "x.gif"), plain)
    index = np.asarray(palette)[..., None] == 3
    seen = shown(palette, tmp_path / "x.png", transparency=3)
    np.testing.assert_array_equal(seen, np.where(index, 255, plain))
    black_white = grey.convert("1")
    seen = shown(black_white, tmp_path / "x.png")
    np.testing.assert_array_equal(seen[..., 0], np.asarray(black_white) * np.uint8(255))
    seen = shown(rgb.convert("CMYK"), tmp_path / "x.tif")
    assert np.abs(seen.astype(int) - COLOURS).max() <= 1


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_names_that_are_not_utf_8_can_be_read(tmp_path, suffix):
    path = tmp_path / os.fsdecode(b"na\xefve" + suffix.encode())
    Image.fromarray(COLOURS).save(path)
    assert read_pixels(path, upright=True).shape == (3, 40, 60)
    assert [one.path for one in walk([tmp_path], "--gallery")[0]] == [path]


def test_plain_pixels_are_pillows(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "x.jpg")
    pixels = read_pixels(tmp_path / "x.jpg", upright=False)
    assert pixels.dtype == torch.uint8 and pixels.is_contiguous()
    decoded = np.asarray(Image.open(tmp_path / "x.jpg"))
    np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), decoded)


def make_bad(folder: Path) -> None:
    Image.fromarray(COLOURS).save(folder / "whole.png")
    whole = (folder / "whole.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no picture")
    Image.new("RGB", (1, 4000)).save(folder / "line.png")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "nowhere.jpg").symlink_to(folder / "missing")


@pytest.mark.parametrize(
    "name, says",
    [
        ("cut.png", "damaged image"),
        ("empty.jpg", "damaged image"),
        ("text.jpg", "damaged image"),
        ("line.png", "1 x 4000"),
        ("folder.jpg", "found a folder, a pipe or a device"),
        ("pipe.jpg", "found a folder, a pipe or a device"),
        ("device.jpg", "found a folder, a pipe or a device"),
        ("nowhere.jpg", "missing"),
        ("missing.jpg", "missing"),
        ("nul\0.jpg", "null"),
    ],
)
def test_a_bad_picture_is_one_line_and_never_hangs(tmp_path, name, says):
    make_bad(tmp_path)
    for read in (read_picture, read_pixels, picture_size):
        if read is picture_size and name == "cut.png":
            continue  # its header is complete
        with pytest.raises(PictureError, match=says) as error:
            read(tmp_path / name, True)
        assert str(error.value).startswith(f"{tmp_path / name}: ")


@pytest.mark.parametrize("suffix", [".jpg", ".eps", ".png", ""])
def test_postscript_reaches_no_program(tmp_path, monkeypatch, suffix):
    """Pillow would run Ghostscript for PostScript."""
    monkeypatch.setattr(subprocess, "Popen", None)
    path = tmp_path / f"x{suffix}"
    Image.fromarray(COLOURS).save(path, "eps")
    for read in (read_picture, read_pixels, picture_size):
        with pytest.raises(PictureError, match="damaged image"):
            read(path, True)
    assert bool(walk([path], "--gallery")[0]) == (suffix in (".jpg", ".png"))


def test_what_the_machine_cannot_read_is_not_the_pictures_fault(tmp_path):
    (tmp_path / "file").touch()
    for name in ("x" * 300 + ".jpg", "file/x.jpg"):
        with pytest.raises(UserError, match="x.jpg") as error:
            read_picture(tmp_path / name, upright=True)
        assert not isinstance(error.value, PictureError)


def test_heic_needs_a_package(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "x.heic"
    heif.from_pillow(Image.fromarray(COLOURS)).save(path, quality=-1)
    assert read_pixels(path, upright=True).shape == (3, 40, 60)
    assert kind_of(path.rename(tmp_path / "no_suffix")) == PICTURE
    assert "HEIF" not in Image.OPEN  # Pillow is not changed


def test_heic_without_the_package_says_so(tmp_path, monkeypatch):
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PictureError, match="pip install pillow-heif"):
        read_picture(tmp_path / "x.heic", upright=True)


def test_a_walk_takes_what_can_be_opened_and_tells_the_rest(tmp_path):
    picture = Image.fromarray(COLOURS)
    (tmp_path / "sub/deep").mkdir(parents=True)
    for name in ("a.JPG", "b.gif", "sub/a.JPG", "sub/deep/c.jfif", "._a.jpg", "e.tiff"):
        picture.save(tmp_path / name, "gif" if name == "b.gif" else "jpeg")
    picture.save(tmp_path / "no_suffix", "png")
    (tmp_path / ".git").mkdir()
    picture.save(tmp_path / ".git/x.jpg")
    for name in ("notes.txt", "v.mp4", "sub/w.MOV", "f.heic"):
        (tmp_path / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "sub/circle").symlink_to(tmp_path)
    (tmp_path / "sub/gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "found").mkdir()
    picture.save(tmp_path / "found/scene.jpg")
    media, left = walk([tmp_path, tmp_path / "a.JPG"], "--gallery", out=tmp_path / "found")
    assert [one.name for one in media] == [
        "a.JPG", "b.gif", "e.tiff", "f.heic", "no_suffix", "sub/a.JPG", "sub/deep/c.jfif",
    ]  # fmt: skip
    assert {one.kind for one in media} == {PICTURE}
    assert told(left) == [
        "left out, hidden: 2 (._a.jpg, .git)",
        "left out, results: 1 (found/)",
        "left out, no picture: 1 (notes.txt)",
        "left out, not a regular file: 1 (pipe.png)",
        "left out, a link to a folder that was already searched: 1 (sub/circle/)",
        "left out, missing: 1 (sub/gone.jpg)",
        "left out, a video: 2 (sub/w.MOV, v.mp4)",
    ]
    videos, _ = walk([tmp_path], "--gallery", kinds=[VIDEO])
    assert [(one.name, one.kind) for one in videos] == [("sub/w.MOV", VIDEO), ("v.mp4", VIDEO)]


def test_sources_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("missing", "no such file or folder"), ("pipe", "a pipe"), ("n\0", "null")):
        with pytest.raises(UserError, match="--gallery .*" + says):
            walk([tmp_path / name], "--gallery")
    (tmp_path / ".hidden.jpg").write_bytes(b"x")
    assert [one.name for one in walk([tmp_path / ".hidden.jpg"], "--gallery")[0]] == [".hidden.jpg"]


def test_long_lists_of_what_was_left_out_are_cut(tmp_path):
    for i in range(7):
        (tmp_path / f"{i}.txt").touch()
    assert told(walk([tmp_path], "--gallery")[1]) == [
        "left out, no picture: 7 (0.txt, 1.txt, 2.txt, 3.txt, 4.txt, ...)"
    ]


def test_printable_names():
    name = os.fsdecode(b"na\xefve \n\x1b[31m.jpg")
    assert printable(name) == "na\\udcefve \\n\\x1b[31m.jpg"
    assert printable("画像 é.jpg") == "画像 é.jpg"


def test_output_names_are_free_and_can_be_written(tmp_path):
    names = [
        "a.jpg",
        "sub/b.jpg",
        "sub_b.jpg",
        "A.JPG",
        "c.heic",
        "c.heic.jpg",
        "x" * 255,
        "é" * 127,
    ]
    names += ["x" * 254 + "y", os.fsdecode(b"\xff.png"), "clip.mp4", ".jpg"]
    made = output_names(names)
    assert made[:6] == [
        "a.jpg",
        "sub_b.jpg",
        "sub_b-2.jpg",
        "A-2.JPG",
        "c.heic.jpg",
        "c.heic-2.jpg",
    ]
    assert len({name.casefold() for name in made}) == len(names)
    for name in made:
        (tmp_path / (name + ".part")).write_bytes(b"")


def test_a_tilde_in_any_argument_is_the_users_home(tmp_path, monkeypatch, program):
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []
    program(
        lambda: seen.extend(sys.argv[1:]), "--out=~/a", "--cfg", "~/b", "OUTPUT_DIR", "~", "T=~/c",
        "a~b", "x=1", "--out=~/lr=1/a",
    )  # fmt: skip
    home = str(tmp_path)
    assert seen == [f"--out={home}/a", "--cfg", f"{home}/b", "OUTPUT_DIR", home, f"T={home}/c",
                    "a~b", "x=1", f"--out={home}/lr=1/a"]  # fmt: skip


def test_a_name_too_long_is_one_line_wherever_it_is_met(program):
    code, _, err = program(lambda: Path("x" * 300).is_file())
    assert code == 2 and err == f"error: {'x' * 300}: File name too long\n"


def test_no_name_breaks_a_print():
    code = (
        "import sys; from utils.errors import UserError, run_main\n"
        "def main():\n"
        "    print(sys.argv[1])\n"
        "    raise UserError(sys.argv[1])\n"
        "run_main(main)"
    )
    for name in (b"\xff\xfe.jpg", "画é.jpg".encode(), b"a\nb\x1b[1m.jpg"):
        for encoding in ("ascii", "latin-1", "utf-8"):
            ran = subprocess.run(
                [sys.executable, "-c", code, name],
                env={"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
                capture_output=True,
            )
            assert ran.returncode == 2 and b"Traceback" not in ran.stderr
            assert ran.stderr.startswith(b"error: ") and ran.stderr.count(b"\n") == 1
            assert ran.stdout


def test_a_file_of_two_sources_is_found_once(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "a/b.png")
    monkeypatch.chdir(tmp_path)
    media, left = walk([Path("a"), tmp_path / "a", Path("a/../a/b.png")], "SOURCE")
    assert [medium.name for medium in media] == ["b.png"] and not left
