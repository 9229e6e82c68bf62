"""The demo with a tiny random network: results, drawings and errors."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import demo
from configs.defaults import load_cfg
from engine.checkpoint import load_net
from engine.search import arguments, presentation
from engine.search.arguments import TOP
from engine.search.presentation import QUERY, QueryPerson, SearchedImage, draw_scene
from engine.search.searcher import Searcher
from tests.crowds import SMALL, make_world, moving, noise
from tests.tiny import pairs
from tests.videos import write_video
from tools import index_gallery
from utils.drawing import Style, Tile, contact_sheet, cut_out, draw_boxes, save_picture
from utils.lettering import drawable, font, wrapped
from utils.media import read_pixels
from utils.pages import Figure, Section, Span, Timeline, data_url, page, period
from utils.picture_folder import RECORD

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = make_world(tmp_path_factory.mktemp("demo"))
    (folder / "gallery" / "query.json").write_text("{}")
    return folder


@pytest.fixture
def run(base, tmp_path, program):
    """Return a function that runs the demo with default options; see `program`."""

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
            for part in (f"--{key.replace('_', '-')}", *str(value).split(" "))
        ]
        return program(demo.main, *line, *overrides)

    return call


def test_draws_every_scene_a_sheet_and_a_page(run, tmp_path):
    code, out, _ = run()
    assert code == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    results = ["contact_sheet.jpg", "index.html", "matches.json"]
    assert names == [RECORD, *results, "scene_s0.jpg", "scene_s1.png", "scene_s2.png"]
    drawn = [name for name in names if name.endswith(("jpg", "png"))]
    assert all(Image.open(tmp_path / "out" / name).size[0] >= 800 for name in drawn)
    similarities = [float(row.split()[-1]) for row in out.splitlines()[2 : 2 + TOP]]
    assert similarities == sorted(similarities, reverse=True)
    assert str(tmp_path / "out" / "contact_sheet.jpg") in out


def test_a_later_search_replaces_the_drawings(run, base, tmp_path):
    run()
    code, _, _ = run(gallery=base / "gallery" / "s1.png")
    assert code == 0
    assert [path.name for path in (tmp_path / "out").glob("scene_*")] == ["scene_s1.png"]


def test_a_sheet_shows_no_more_than_fit_on_it(run, monkeypatch):
    """The size of a JPEG is limited, so the sheet is. The page and the table contain all
    matches."""
    seen = []

    def sheet(tiles, columns, title):
        seen.append((len(tiles), title))
        return contact_sheet(tiles, columns, title)

    monkeypatch.setattr(presentation, "MATCHES_SHOWN", 1)
    monkeypatch.setattr(presentation, "contact_sheet", sheet)
    code, out, _ = run()
    assert code == 0 and len(out.splitlines()) > TOP
    assert seen[0][0] == 2 and seen[0][1].endswith(f": 1 of {TOP}")


def matches_of(out: Path) -> list[dict]:
    return json.loads((out / "matches.json").read_text())


@pytest.mark.slow
def test_matches_are_the_query_embedding_with_each_weighted_one(run, base, tmp_path):
    run(top=999)
    net = load_net(load_cfg(None, pairs(SMALL)), base / "everyone.pth", torch.device("cpu"))

    def pixels(path: Path) -> torch.Tensor:
        return read_pixels(path, upright=True).float() / 255

    wanted = net.embed([pixels(base / "query.jpg")], [torch.tensor([[10.0, 5, 40, 60]])])[0][0]
    expected = []
    for path in sorted(base.glob("gallery/s*")):
        people = net.detect([pixels(path)])[0]
        people = people[people.scores >= 0.5]
        similarities = people.weighted_embeddings @ wanted
        rows = zip(people.boxes.tolist(), people.scores.tolist(), similarities)
        expected += [(str(path), box, score, float(similarity)) for box, score, similarity in rows]
    expected.sort(key=lambda row: -row[3])
    found = matches_of(tmp_path / "out")
    assert [one["rank"] for one in found] == list(range(1, len(expected) + 1))
    for one, (image, box, score, similarity) in zip(found, expected):
        assert one.keys() == {"rank", "image", "box", "score", "similarity"}
        assert one["image"] == image and one["box"] == pytest.approx(box, abs=0.02)
        assert (one["score"], one["similarity"]) == pytest.approx((score, similarity), abs=2e-4)


@pytest.fixture(scope="module")
def index(base, tmp_path_factory) -> Path:
    """Return an index of mixed/, the gallery, and a video of which one frame per 0.3 s is read."""
    folder = tmp_path_factory.mktemp("indexed")
    shutil.copytree(base / "gallery", base / "mixed")
    write_video(base / "mixed" / "walk.mp4", moving(12))
    line = ["--cfg", base / "cfg.yaml", "--ckpt", base / "everyone.pth", "--index", folder]
    line += [base / "mixed", "--every", 0.3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["index", *map(str, line)])
        index_gallery.main()
    return folder


@pytest.mark.slow
def test_an_index_finds_what_its_gallery_does(run, base, index, tmp_path):
    assert run(gallery=base / "mixed", every=0.3, top=20)[0] == 0
    code, out, _ = run(gallery=None, index=index, top=20, out=tmp_path / "indexed")
    assert code == 0 and "walk.mp4 0:00" in out
    one, other = (tmp_path / name / "matches.json" for name in ("out", "indexed"))
    assert one.read_text() == other.read_text()
    videos = [m for m in matches_of(tmp_path / "indexed") if m["image"].endswith("walk.mp4")]
    assert videos and all(m["from"] <= m["time"] <= m["to"] <= 0.9 for m in videos)
    assert any(m["from"] < m["to"] for m in videos)
    page = (tmp_path / "indexed" / "index.html").read_text()
    assert page.count('<div class="line">') == 1 and "://" not in page
    assert page.count("<figure") == 1 + len(matches_of(tmp_path / "indexed"))


def test_an_index_is_searched_without_its_gallery(run, base, index, tmp_path):
    """The matches are printed, and the files that are missing or have changed are named."""
    away = (base / "mixed").rename(tmp_path / "away")
    try:
        code, out, err = run(gallery=None, index=index)
        assert code == 0 and "s1.png" in out
        assert ": 3 " in err and err.count("\n") == 1
    finally:
        away.rename(base / "mixed")
    assert run(gallery=None, index=index)[2] == ""
    times = (base / "mixed" / "s1.png").stat()
    os.utime(base / "mixed" / "s1.png", (times.st_atime, times.st_mtime + 1))
    try:
        code, _, err = run(gallery=None, index=index)
        assert code == 0
        assert ": 1 " in err and "(s1.png)" in err and err.count("\n") == 1
    finally:
        os.utime(base / "mixed" / "s1.png", ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_video_as_query(run, tmp_path):
    write_video(tmp_path / "walk.mp4", moving(3))
    code, _, err = run(query=tmp_path / "walk.mp4")
    assert code == 2 and err.count("\n") == 1
    assert err.startswith(f"error: --query {tmp_path}/walk.mp4: expected a picture")


@pytest.mark.parametrize("option", ["query", "gallery", "index", "out"])
def test_an_empty_path_is_refused(run, option):
    code, _, err = run(**{"gallery": None, option: ""})
    assert code == 2 and f"--{option}" in err.splitlines()[-1]


def test_a_picture_beyond_the_limit(run):
    code, _, err = run(overrides="INPUT.MAX_PIXELS 6143")
    assert code == 2 and "query.jpg" in err and "INPUT.MAX_PIXELS" in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_query_without_a_box(run, base, index, tmp_path):
    options = {"gallery": None, "index": index, "box": None}
    code, _, err = run(**options)
    assert code == 2 and "query_query.jpg" in err and "--person N" in err and "5" in err
    assert Image.open(tmp_path / "out" / "query_query.jpg").size == (1200, 800)
    assert run(**options, person=6)[0] == 2 and run(**options, person=0)[0] == 2
    assert run(**options, person=2)[0] == 0
    by_number = matches_of(tmp_path / "out")
    searcher = Searcher.load(load_cfg(base / "cfg.yaml"), base / "everyone.pth")
    boxes = searcher.detect([base / "query.jpg"])[0].boxes
    box = sorted(boxes.tolist(), key=lambda b: b[0] + b[2])[1]
    assert run(**options | {"box": " ".join(map(str, box))})[0] == 0
    assert matches_of(tmp_path / "out") == by_number


def test_nobody_in_the_query(run, base):
    code, _, err = run(box=None, ckpt=base / "nobody.pth")
    assert (
        code == 2 and err.startswith(f"error: --query {base}/query.jpg: ") and err.count("\n") == 1
    )


@pytest.mark.slow
def test_several_queries_are_joined(base, tmp_path, program):
    line = ["--cfg", base / "cfg.yaml", "--ckpt", base / "everyone.pth", "--top", 999]
    line += ["--gallery", base / "gallery", "--out", tmp_path / "out"]
    one = ["--query", base / "query.jpg", "--box", 10, 5, 40, 60]
    two = ["--query", base / "query.jpg", "--box", 30, 5, 90, 60]

    def found(*words) -> dict[str, float]:
        assert program(demo.main, *line, *words)[0] == 0
        return {str(m["box"]): m["similarity"] for m in matches_of(tmp_path / "out")}

    first, second = found(*one), found(*two)
    mean, most = found(*one, *two), found(*one, *two, "--join", "max")
    for box in first:
        assert mean[box] == pytest.approx((first[box] + second[box]) / 2, abs=2e-4)
        assert most[box] == pytest.approx(max(first[box], second[box]), abs=2e-4)
    code, _, err = program(demo.main, *line, "--person", 1, *one)
    assert code == 2 and err.startswith("error: --person 1: expected once")


def test_every_needs_a_video(run):
    code, _, err = run(every=0.5)
    assert code == 2 and "--every" in err and err.count("\n") == 1


@pytest.mark.slow
def test_open_set_search(run, base, tmp_path):
    run(top=999)
    ranked = matches_of(tmp_path / "out")
    least = ranked[3]["similarity"] - 1e-4
    assert run(min_similarity=least)[0] == 0
    assert matches_of(tmp_path / "out") == ranked[:4]
    code, out, _ = run(min_similarity=0.99)
    assert code == 0 and "0.990" in out and matches_of(tmp_path / "out") == []
    assert "nobody" in (tmp_path / "out" / "index.html").read_text()
    code, _, err = run(false_alarms=0.05)
    assert code == 2 and "--ckpt" in err and err.count("\n") == 1
    known = torch.load(base / "everyone.pth", weights_only=True)
    rates = {"0.01": 2.0, "0.05": least, "0.1": -1.0}
    torch.save(known | {"thresholds": rates}, tmp_path / "evaluated.pth")
    options = {"ckpt": tmp_path / "evaluated.pth"}
    assert run(**options, false_alarms=0.05)[0] == 0
    assert matches_of(tmp_path / "out") == ranked[:4]
    assert run(**options, false_alarms=0.01)[0] == 0 and matches_of(tmp_path / "out") == []
    code, _, err = run(**options, false_alarms=0.2)
    assert code == 2 and "0.01, 0.05, 0.1" in err


def test_another_networks_index_and_none(run, base, index, tmp_path):
    code, _, err = run(gallery=None, index=index, ckpt=base / "other.pth")
    assert code == 2 and "everyone.pth" in err and err.count("\n") == 1
    code, _, err = run(gallery=None, index=tmp_path / "none")
    assert code == 2 and f"{tmp_path}/none" in err and err.count("\n") == 1
    code, _, err = run(gallery=None, index=index, every=5)
    assert code == 2 and err.startswith("error: --every: expected")
    code, _, err = run(index=index)
    assert code == 2 and "--index" in err and "--gallery" in err


@pytest.mark.slow
def test_nobody_found_still_draws(run, base, tmp_path):
    code, _, _ = run(ckpt=base / "nobody.pth")
    assert code == 0 and matches_of(tmp_path / "out") == []
    pictures = [path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")]
    assert len(pictures) == 6


@pytest.mark.slow
def test_the_querys_own_picture_is_drawn_but_not_ranked(run, base, tmp_path):
    code, out, _ = run(query=base / "gallery" / "s0.jpg")
    assert code == 0 and "\ns0.jpg " in out
    assert "s0.jpg" not in "".join(out.splitlines()[2 : 2 + TOP])
    assert (tmp_path / "out" / "scene_s0.jpg").is_file()


@pytest.mark.slow
def test_the_query_of_the_demo_folder_is_the_default(run, tmp_path, monkeypatch):
    monkeypatch.setattr(arguments, "DEMO", tmp_path)
    code, _, err = run(query=None, box=None)
    assert code == 2 and "--query" in err and err.count("\n") == 1
    noise((96, 64), 0).save(tmp_path / "q.jpg")
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
        ({"query": None}, "--box 10 5 40 60"),
        ({"top": 0}, "--top 0"),
        ({"every": -1}, "--every -1"),
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
        ({"overrides": "INPUT.SKIP_DAMAGED False"}, "INPUT.SKIP_DAMAGED"),
        ({"overrides": "DEVICE cuda:77"}, "cuda:77"),
        ({"overrides": "EVAL_AMP fp8"}, "EVAL_AMP"),
        ({"min_similarity": "nan"}, "--min-similarity nan"),
        ({"after": "2026-01-31"}, "--after"),
        ({"camera": "cellar"}, "--camera cellar"),
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
    assert "1 (._a.jpg)" in err and "1 (b.jpg)" in err
    drawn = sorted(path.name for path in (tmp_path / "out").iterdir())
    results = ["contact_sheet.jpg", "index.html", "matches.json"]
    assert drawn == [RECORD, *results, "scene_a.jpg", "scene_sub_a.jpg"]
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
def test_as_a_program():
    line = [sys.executable, "demo.py", "--cfg", "missing.yaml", "--ckpt", "x"]
    ran = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 2 and ran.stderr.startswith("error: --cfg missing.yaml: ")


@pytest.mark.parametrize("size", [(416, 256), (1500, 900), (60, 90)])
def test_boxes_lie_where_they_should(size):
    image = Image.new("RGB", size, (128, 128, 128))
    box = torch.tensor([[0.25, 0.25, 0.75, 0.75]]) * torch.tensor([*size, *size])
    drawn = draw_boxes(image, box, ["0.93"], Style((255, 0, 0), 1.0))
    assert max(drawn.size) == max(*size, 1200)
    assert image.getpixel((0, 0)) == image.getpixel((size[0] // 4, size[1] // 2))  # not touched
    red = np.argwhere((np.asarray(drawn) == (255, 0, 0)).all(-1))
    low = red.max(0)[::-1] / np.array(drawn.size)  # the label is at the opposite corner
    np.testing.assert_allclose(low, 0.75, atol=0.01)


def test_every_query_in_a_picture_is_marked():
    picture, path = Image.new("RGB", (400, 300)), Path("a.jpg")
    boxes = (10, 20, 90, 200), (200, 20, 280, 200)
    queries = [QueryPerson(path, torch.zeros(3, 300, 400), torch.tensor(box)) for box in boxes]
    scene = SearchedImage(path, None, [], [])
    drawn = draw_scene(scene, {}, queries, lambda *_: picture, 400)
    assert [drawn.getpixel((box[0], 110)) for box in boxes] == [QUERY.color] * 2


def test_no_boxes_and_boxes_beyond_the_picture():
    image = Image.new("RGB", (40, 30))
    assert draw_boxes(image, torch.zeros(0, 4), [], long_side=80).size == (80, 60)
    assert draw_boxes(image, [[-50, -50, 900, 900], [5, 5, 5, 5]], ["far", ""]).size == (1200, 900)


def test_timelines_show_people_at_the_same_time_in_rows():
    image = Image.new("RGB", (8, 8))
    figures = [Figure(image, data_url(image), (1, 2, 3), str(i), "", 0.5) for i in range(4)]
    spans = [Span(0, 4, 0), Span(3, 5, 1), Span(4.5, 8, 2), Span(5, 5, 3)]
    html = page("t", "", [Section("a", "b", figures, [Timeline("<v>.mp4", 8, spans)])])
    assert re.findall(r"top:(\d+)px;left:min\(([\d.]+)%, 100% - 15px\);width:([\d.]+)%", html) == [
        ("0", "0.00", "50.00"),
        ("24", "37.50", "25.00"),
        ("0", "56.25", "43.75"),
        ("48", "62.50", "0.00"),
    ]
    assert "height:70px" in html and "&lt;v&gt;.mp4" in html


def test_times_of_a_tracklet():
    assert (period(61.0, 62.5), period(3.0, 3.0)) == ("1:01.0 – 1:02.5", "0:03.0")
    noon = datetime(2026, 1, 31, 12).timestamp()
    assert period(noon, noon + 5) == "2026-01-31 12:00:00 – 12:00:05"
    assert period(noon, noon + 86400) == "2026-01-31 12:00:00 – 2026-02-01 12:00:00"


def test_cut_out_and_contact_sheet():
    image = Image.new("RGB", (100, 50), (0, 200, 0))
    person = cut_out(image, [90, 10, 99, 40], (40, 80))
    assert person.size == (40, 80) and person.getpixel((39, 40)) == (0, 200, 0)
    sheet = contact_sheet(
        [Tile(image, "one\ntwo", (255, 0, 0))] * 5, columns=3, title="title", width=700
    )
    assert sheet.width == 700 and sheet.height > 2 * 50


def test_tall_pictures_fit_on_a_contact_sheet(tmp_path):
    tall = Tile(Image.new("RGB", (10, 500)), "tall", (255, 0, 0))
    save_picture(contact_sheet([tall] * 12, 3), tmp_path / "sheet.jpg")
    assert Image.open(tmp_path / "sheet.jpg").width == 1600


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
    assert wrapped(name, font(19), 1) == "\n".join(name)  # at least one letter per line


def test_names_that_differ_look_different_on_a_sheet():
    image = Image.new("RGB", (160, 320))
    for name in ("PXL_20240101_123456789", "x" * 254, "sub/folder/IMG"):
        one, other = (
            contact_sheet([Tile(image, f"#1  0.98\n{name}{end}")] * 9, 9) for end in ("1", "2")
        )
        assert one.size == other.size and one.tobytes() != other.tobytes()
