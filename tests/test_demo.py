"""The demo on a tiny random network, its bad input, and what it draws with."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import demo
from configs.defaults import load_cfg
from models.build import build_net
from tests.tiny import TINY, pairs
from utils.drawing import Style, Tile, contact_sheet, cut_out, draw_boxes
from utils.errors import run_main
from utils.lettering import drawable, font, wrapped
from utils.sources import PICTURE, Medium

ROOT = Path(__file__).parent.parent
SMALL = TINY | {
    "INPUT.MAX_SIZE": 96,
    "INPUT.BATCH_SIZE_TEST": 2,
    "MODEL.ROI.DETECTIONS_PER_IMAGE": 5,
}


def noise(path: Path, size: tuple[int, int], seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def save_net(path: Path, person: float) -> None:
    """A checkpoint that finds people everywhere (person > 0) or nowhere."""
    torch.manual_seed(0)
    cfg = load_cfg(None, pairs(SMALL))
    net = build_net(cfg, num_pids=3)
    net.roi_heads.box_predictor.cls_score.bias.data = torch.tensor([-person, person])
    torch.save({"model": net.state_dict(), "config": cfg.dump()}, path)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    (folder / "gallery").mkdir()
    for i, size in enumerate([(96, 64), (60, 90), (96, 64)]):
        noise(folder / "gallery" / f"s{i}.{'png' if i else 'jpg'}", size, i)
    noise(folder / "query.jpg", (96, 64), 0)
    (folder / "gallery" / "query.json").write_text("{}")
    (folder / "cfg.yaml").write_text(load_cfg(None, pairs(SMALL)).dump())
    save_net(folder / "everyone.pth", 5.0)
    save_net(folder / "nobody.pth", -5.0)
    return folder


@pytest.fixture
def run(base, tmp_path, monkeypatch, capsys):
    """Run the demo in this process; returns (exit code, stdout, stderr)."""

    def call(**options):
        args = {
            "cfg": base / "cfg.yaml",
            "ckpt": base / "everyone.pth",
            "query": base / "query.jpg",
            "box": "10 5 40 60",
            "gallery": base / "gallery",
            "out": tmp_path / "out",
        } | options
        overrides = args.pop("overrides", "").split()
        line = [
            part
            for key, value in args.items()
            if value is not None
            for part in (f"--{key}", *(value.split() if key == "box" else [str(value)]))
        ]
        monkeypatch.setattr(sys, "argv", ["demo.py", *line, *overrides])
        with pytest.raises(SystemExit) as end:
            run_main(demo.main)
        return end.value.code, *capsys.readouterr()

    return call


def test_draws_every_scene_and_a_sheet(run, tmp_path):
    code, out, _ = run()
    assert code == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["contact_sheet.jpg", "scene_s0.jpg", "scene_s1.png", "scene_s2.png"]
    assert all(Image.open(tmp_path / "out" / name).size[0] >= 800 for name in names)
    similarities = [float(row.split()[-1]) for row in out.splitlines()[2 : 2 + demo.TOP]]
    assert similarities == sorted(similarities, reverse=True)
    assert str(tmp_path / "out" / "contact_sheet.jpg") in out


def test_similarity_is_the_query_embedding_with_each_weighted_one(base):
    from engine.checkpoint import load_net

    net = load_net(load_cfg(None, pairs(SMALL)), base / "everyone.pth", torch.device("cpu"))
    pictures, _ = demo.gallery_images(base / "gallery", base / "out")
    query, box = demo.own_image(base / "query.jpg"), torch.tensor([10.0, 5, 40, 60])
    alone, _ = demo.search(net, torch.device("cpu"), query, box, pictures[:1])
    people = net.detect([demo.own_image(pictures[0].path)])[0]
    wanted = net.embed([query], [box[None]])[0][0]
    expected = (people.embeddings @ wanted).sort(descending=True).values
    assert len(expected) == 5
    torch.testing.assert_close(alone[0].similarities, expected)


def test_rank_goes_over_all_pictures():
    def found(*similarities):
        n = len(similarities)
        picture = Medium(Path("x"), "x", PICTURE)
        return demo.Found(
            picture, torch.zeros(n, 4), torch.tensor(similarities), torch.zeros(n).long()
        )

    scenes = [found(0.5, 0.2), found(), found(0.9, 0.4, 0.1)]
    best = demo.rank(scenes)
    assert [s.ranks.tolist() for s in scenes] == [[2, 4], [], [1, 3, 5]]
    assert [float(s.similarities[i]) for s, i in best] == pytest.approx([0.9, 0.5, 0.4, 0.2, 0.1])


def test_nobody_found_still_draws(run, base, tmp_path):
    code, out, _ = run(ckpt=base / "nobody.pth")
    assert code == 0 and "no person found" in out
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_the_querys_own_picture_is_drawn_but_not_ranked(run, base, tmp_path):
    code, out, _ = run(query=base / "gallery" / "s0.jpg")
    assert code == 0 and "own picture" in out
    assert "s0.jpg" not in "".join(out.splitlines()[2 : 2 + demo.TOP])
    assert (tmp_path / "out" / "scene_s0.jpg").is_file()


def test_the_query_of_the_demo_folder_is_the_default(run, base, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "DEMO", tmp_path)
    code, _, err = run(query=None, box=None)
    assert code == 2 and "--query" in err and err.count("\n") == 1
    noise(tmp_path / "q.jpg", (96, 64), 0)
    (tmp_path / "query.json").write_text(json.dumps({"image": "q.jpg", "box": [1, 2, 30]}))
    code, _, err = run(query=None, box=None)
    assert code == 2 and "query.json" in err
    text = json.dumps({"image": "q.jpg", "box": [1, 2, 30, 60]})
    (tmp_path / "query.json").write_text(text, encoding="utf-8-sig")
    assert run(query=None, box=None)[0] == 0


@pytest.mark.parametrize(
    "options, says",
    [
        ({"query": "missing.jpg"}, "missing.jpg"),
        ({"box": None}, "--box"),
        ({"query": None}, "--query"),
        ({"box": "200 5 240 60"}, "96 x 64"),
        ({"box": "10 5 400 60"}, "96 x 64"),
        ({"box": "-10 5 40 60"}, "96 x 64"),
        ({"box": "10 5 10 60"}, "x1 < x2"),
        ({"box": "nan 5 40 60"}, "x1 < x2"),
        ({"gallery": "missing"}, "--gallery missing"),
        ({"gallery": "x" * 300}, "File name too long"),
        ({"out": "x" * 300}, "File name too long"),
        ({"query": "x" * 300}, "File name too long"),
        ({"cfg": "x" * 300}, "File name too long"),
        ({"ckpt": "missing.pth"}, "missing.pth"),
        ({"overrides": "INPUT.SKIP_DAMAGED False"}, "always named and passed over"),
        ({"overrides": "DEVICE cuda:77"}, "cuda:77"),
        ({"overrides": "BACKBONE.NAME resnet18"}, "BACKBONE.NAME"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, options, says):
    code, _, err = run(**options)
    assert code == 2
    assert err.startswith("error: ") and says in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_empty_gallery(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("no picture")
    code, _, err = run(gallery=tmp_path / "empty")
    assert code == 2 and "found none; left out, no picture: 1 (notes.txt)" in err
    assert err.count("\n") == 1


def test_a_picture_cut_short_is_named_and_the_others_are_searched(run, base, tmp_path):
    gallery = tmp_path / "gallery"
    (gallery / "sub").mkdir(parents=True)
    whole = (base / "gallery" / "s0.jpg").read_bytes()
    for name in ("a.jpg", "sub/a.jpg", "._a.jpg"):
        (gallery / name).write_bytes(whole)
    (gallery / "b.jpg").write_bytes(whole[: len(whole) // 2])
    code, out, err = run(gallery=gallery)
    assert code == 0 and "sub/a.jpg" in out
    assert "left out, hidden: 1 (._a.jpg)" in err
    assert "left out, damaged image" in err and "(b.jpg)" in err
    drawn = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert drawn == ["contact_sheet.jpg", "scene_a.jpg", "scene_sub_a.jpg"]
    code, _, err = run(query=gallery / "b.jpg")
    assert code == 2 and "b.jpg" in err


def test_the_gallery_may_be_one_picture_but_a_whole_one(run, base, tmp_path):
    code, out, _ = run(gallery=base / "gallery/s0.jpg")
    assert code == 0 and "1 pictures" in out
    (tmp_path / "cut.jpg").write_bytes((base / "gallery/s0.jpg").read_bytes()[:900])
    code, _, err = run(gallery=tmp_path / "cut.jpg")
    assert code == 2 and "cut.jpg" in err


def test_out_is_not_the_gallery_nor_a_file(run, base, tmp_path):
    code, _, err = run(out=base / "gallery")
    assert code == 2 and "--out" in err
    (tmp_path / "file").write_text("")
    code, _, err = run(out=tmp_path / "file")
    assert code == 2 and "--out" in err and err.count("\n") == 1


@pytest.mark.slow
def test_as_a_program(base):
    line = [sys.executable, "demo.py", "--cfg", "missing.yaml", "--ckpt", "x"]
    ran = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 2 and ran.stderr == "error: --cfg missing.yaml: no such file\n"


@pytest.mark.parametrize("size", [(416, 256), (1500, 900), (60, 90)])
def test_boxes_lie_where_they_should(size):
    image = Image.new("RGB", size, (128, 128, 128))
    box = torch.tensor([[0.25, 0.25, 0.75, 0.75]]) * torch.tensor([*size, *size])
    drawn = draw_boxes(image, box, ["0.93"], Style((255, 0, 0), 1.0))
    assert max(drawn.size) == max(*size, 1200)
    assert image.getpixel((0, 0)) == image.getpixel((size[0] // 4, size[1] // 2))  # not touched
    red = np.argwhere((np.asarray(drawn) == (255, 0, 0)).all(-1))
    low = red.max(0)[::-1] / np.array(drawn.size)  # the label is above: look at the other corner
    np.testing.assert_allclose(low, 0.75, atol=0.01)


def test_no_boxes_and_boxes_beyond_the_picture():
    image = Image.new("RGB", (40, 30))
    assert draw_boxes(image, torch.zeros(0, 4), [], long_side=80).size == (80, 60)
    assert draw_boxes(image, [[-50, -50, 900, 900], [5, 5, 5, 5]], ["far", ""]).size == (1200, 900)


def test_cut_out_and_contact_sheet():
    image = Image.new("RGB", (100, 50), (0, 200, 0))
    person = cut_out(image, [90, 10, 99, 40], (40, 80))
    assert person.size == (40, 80) and person.getpixel((39, 40)) == (0, 200, 0)
    sheet = contact_sheet(
        [Tile(image, "one\ntwo", (255, 0, 0))] * 5, columns=3, title="title", width=700
    )
    assert sheet.width == 700 and sheet.height > 2 * 50


def test_letters_without_a_glyph_are_escaped():
    assert drawable("Фото é Ωμέγα-1.jpg") == "Фото é Ωμέγα-1.jpg"
    assert drawable("e\u0301") == "é"  # as macOS writes it
    assert drawable("画\n\udcff\t") == "\\u753b\n\\udcff\\t"
    assert drawable("\u2009 \U0001f9ff") == "\\u2009 \\U0001f9ff"


@pytest.mark.parametrize("name", ["IMG_20240101_120000123.jpg", "x" * 255, "a b", "画" * 80, ""])
def test_captions_are_wrapped_and_whole(name):
    lines = wrapped(drawable(name), font(19), 155).split("\n")
    assert "".join(lines) == drawable(name)
    assert max(font(19).getlength(line) for line in lines) <= 155
    assert wrapped(name, font(19), 1) == "\n".join(name)  # at least a letter a line


def test_names_that_differ_look_different_on_a_sheet():
    image = Image.new("RGB", (160, 320))
    for name in ("PXL_20240101_123456789", "x" * 254, "sub/folder/IMG"):
        one, other = (
            contact_sheet([Tile(image, f"#1  0.98\n{name}{end}")] * 9, 9) for end in ("1", "2")
        )
        assert one.size == other.size and one.tobytes() != other.tobytes()
