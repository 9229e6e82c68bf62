"""Pseudo labels: detectors of other programs, and the data that tools.pseudo_label writes."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from datasets import UNLABELED, load_dataset
from datasets.loaders import SceneDataset
from engine.search import pseudo_labels
from engine.teachers import detectors
from engine.teachers.detectors import (
    Layout,
    OutputPart,
    fit_picture,
    read_detector,
    read_onnx_detector,
)
from tests.annotations import write_own
from tests.crowds import make_world
from tools import pseudo_label
from utils.errors import UserError
from utils.videos import Frame

CPU = torch.device("cpu")
DETECTOR = """
size: [64, 128]
mean: [0, 0, 0]
deviation: [1, 1, 1]
fit: {fit}
boxes: found[0:4]
scores: found[4]
labels: found[5]
person: 1
"""
REID = "size: [16, 8]\nmean: [0, 0, 0]\ndeviation: [1, 1, 1]\n"


class Bright(nn.Module):
    """A detector of the red, the green and the blue rectangle of a picture, [1, 3, 6].

    A row has the box x1 y1 x2 y2, the brightness as its score, and the label: 1 for red and green.
    """

    def forward(self, picture: Tensor) -> Tensor:
        on = (picture > 0.15).float()
        edges = []
        for profile in (on.amax(2), on.amax(3)):  # [1, 3, W], [1, 3, H]
            length = profile.shape[2]
            places = torch.arange(length) + 1
            high = (profile * places).amax(2)
            low = length - (profile * (length - places + 1)).amax(2)
            edges.append((low, high))
        (x1, x2), (y1, y2) = edges
        labels = torch.tensor([[1.0, 1.0, 2.0]])
        return torch.stack([x1, y1, x2, y2, picture.amax((2, 3)), labels], 2)


class Colour(nn.Module):
    """A re-id network: the mean colour."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3))


def export(module: nn.Module, path: Path, size: tuple[int, int], description: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter takes a fraction of the time
        torch.onnx.export(
            module.eval(),
            (torch.rand(1, 3, *size),),
            path,
            dynamo=False,
            input_names=["pictures"],
            output_names=["found" if isinstance(module, Bright) else "embeddings"],
            dynamic_axes=None if isinstance(module, Bright) else {"pictures": {0: "n"}},
        )
    path.with_suffix(".yaml").write_text(description)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with bright.onnx, colour.onnx, and their descriptions."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("networks")
    export(Bright(), folder / "bright.onnx", (64, 128), DETECTOR.format(fit="stretch"))
    export(Colour(), folder / "colour.onnx", (16, 8), REID)
    return folder


def drawn(red: tuple | None, green: tuple | None = None, size: tuple[int, int] = (96, 64)):
    """Return a picture [H, W, 3] with a red rectangle of brightness 0.9 and a green one of 0.4, at
    (x1, y1, x2, y2); what is not red or green is dark blue."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for channel, (box, value) in enumerate([(red, 230), (green, 102)]):
        if box:
            pixels[box[1] : box[3], box[0] : box[2], channel] = value
    return pixels


@pytest.fixture
def run(program, networks):
    """Return a function run(*arguments) that returns the exit code and what is printed."""

    def call(*arguments, detector="bright.onnx", reid=None) -> tuple[int, str]:
        named = str(detector).startswith("torchvision:")
        options = ["--detector", detector if named else networks / detector]
        options += ["--reid", networks / reid] if reid else []
        code, out, err = program(pseudo_label.main, *options, *arguments, "DEVICE", "cpu")
        return code, out + err

    return call


def people_of(folder: Path) -> dict[str, list[tuple[list[int], str | None, float]]]:
    """Return boxes in whole pixels, identities and scores, by the name of the image."""
    content = json.loads((folder / "train.json").read_text())
    found: dict = {image["id"]: [] for image in content["images"]}
    for row in content["annotations"]:
        box = [round(v) for v in row["bbox"]]
        found[row["image_id"]].append((box, row.get("person_id"), row["score"]))
    return {image["file_name"]: found[image["id"]] for image in content["images"]}


def test_pictures_become_unlabelled_people_with_scores(run, tmp_path):
    pictures = tmp_path / "pictures"
    (pictures / "sub").mkdir(parents=True)
    Image.fromarray(drawn((10, 8, 30, 40), (50, 20, 60, 50))).save(pictures / "a.png")
    Image.fromarray(drawn((24, 4, 60, 60))).save(pictures / "sub/a.png")
    Image.fromarray(drawn(None)).save(pictures / "nobody.png")
    (pictures / "broken.png").write_bytes(b"x")
    code, said = run(pictures, "--out", tmp_path / "own")
    assert code == 0 and "broken.png" in said
    assert people_of(tmp_path / "own") == {
        "images/a.png": [([10, 8, 20, 32], None, 0.902), ([50, 20, 10, 30], None, 0.4)],
        "images/sub/a.png": [([24, 4, 36, 56], None, 0.902)],
    }
    assert {p.name for p in (tmp_path / "own/images").rglob("*.png")} == {"a.png"}
    assert run(pictures, "--out", tmp_path / "sure", "--min-score", "0.5")[0] == 0
    assert [len(rows) for rows in people_of(tmp_path / "sure").values()] == [1, 1]
    code, said = run(pictures, "--out", tmp_path / "own")
    assert code == 2 and "--out " in said and len(people_of(tmp_path / "own")) == 2


def test_sources_above_the_working_folder_stay_within_the_output(run, tmp_path, monkeypatch):
    for folder in ("work/here", "pictures"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(drawn((10, 8, 30, 40))).save(tmp_path / folder / "a.png")
    monkeypatch.chdir(tmp_path / "work")
    assert run("../pictures", "here", "--out", tmp_path / "own")[0] == 0
    names = {"images/pictures/a.png", "images/work/here/a.png"}
    assert people_of(tmp_path / "own").keys() == names
    assert all((tmp_path / "own" / name).is_file() for name in names)


def test_tracklets_of_a_video_become_identities(run, tmp_path):
    """The red person walks and jumps once; the green one is not sure enough to be linked."""
    pytest.importorskip("av")
    from tests.videos import write_video

    lefts = [4, 8, 12, 16, 70, 66, 40]
    frames = [drawn((x, 8, x + 20, 56), (40, 10, 50, 20)) for x in lefts]
    write_video(tmp_path / "walk.mp4", frames, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 20])
    reid = "colour.onnx"
    code, said = run(tmp_path / "walk.mp4", "--every", "0", "--out", tmp_path / "own", reid=reid)
    assert code == 0, said
    rows = list(people_of(tmp_path / "own").values())
    first, second = "walk.mp4/1", "walk.mp4/2"
    reds = [[name for _, name, score in some if score > 0.7] for some in rows]
    assert reds == [[first]] * 4 + [[second]] * 2 + [[None]]
    assert all(name is None for some in rows for _, name, score in some if score < 0.7)
    assert all(0.2 < score < 0.6 for some in rows for _, _, score in some if score < 0.7)
    joined = [tmp_path / "walk.mp4", "--every", "0.2", "--out", tmp_path / "joined"]
    assert run(*joined, "--min-similarity", "0.5", reid=reid)[0] == 0
    names = {name for some in people_of(tmp_path / "joined").values() for _, name, _ in some}
    assert names == {first, None} and len(people_of(tmp_path / "joined")) == 4


def test_frames_within_a_millisecond_have_files_of_their_own(run, tmp_path, monkeypatch):
    times = [0.0, 1e-5, 2e-5, 0.001]
    pixels = [torch.from_numpy(drawn((x, 8, x + 20, 56))).permute(2, 0, 1) for x in (4, 6, 8, 9)]
    frames = [*map(Frame, times, pixels)]
    monkeypatch.setattr(pseudo_labels, "sample_frames", lambda *_: iter(frames))
    (tmp_path / "walk.mp4").touch()
    options = ["--every", "0", "--out", tmp_path / "own"]
    assert run(tmp_path / "walk.mp4", *options, reid="colour.onnx")[0] == 0
    found = people_of(tmp_path / "own")
    assert [rows[0][0][0] for rows in found.values()] == [4, 6, 8, 9]
    assert all((tmp_path / "own" / name).is_file() for name in found)


def test_pseudo_labels_are_further_training_data(run, tmp_path):
    """Unlabelled people alone are enough; boxes with a low score are ignore regions."""
    Image.fromarray(drawn((10, 8, 30, 40), (50, 20, 60, 50))).save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", "--out", tmp_path / "more")[0] == 0
    gallery = {"c.jpg": [("p", 5, 6, 20, 30)], "d.jpg": [("p", 5, 6, 20, 30)]}
    write_own(tmp_path / "own", {"b.jpg": [("p", 5, 6, 20, 30)]}, gallery)
    extra = [["COCO", str(tmp_path / "more"), 1.0]]
    data = load_dataset("COCO", str(tmp_path / "own"), extra)
    assert data.num_pids == 1 and [len(scene.boxes) for scene in data.train] == [1, 2]
    image, target = SceneDataset(data.train, min_score=0.5)[1]
    assert image.shape == (3, 64, 96) and target["labels"].tolist() == [UNLABELED] * 2
    assert target["scores"].tolist() == pytest.approx([0.902, 0])


def test_a_network_of_this_project_needs_no_other(run, tmp_path):
    world, out = make_world(tmp_path), tmp_path / "own"
    code, said = run(world / "gallery", "--out", out, detector=world / "everyone.pth")
    assert code == 0, said
    assert [len(rows) for rows in people_of(out).values()] == [5] * 3


@pytest.mark.slow
def test_a_network_of_this_project_links_people(run, tmp_path):
    pytest.importorskip("av")
    from tests.crowds import moving
    from tests.videos import write_video

    world = make_world(tmp_path)
    write_video(tmp_path / "walk.mp4", moving(4, step=1))
    options = [tmp_path / "walk.mp4", "--every", "0", "--out", tmp_path / "own"]
    assert run(*options, detector=world / "everyone.pth")[0] == 0
    assert any(name for rows in people_of(tmp_path / "own").values() for _, name, _ in rows)


BOXES = torch.tensor([[10.0, 20, 30, 60], [50, 4, 60, 14], [0, 0, 100, 50]])
SCORES, LABELS = torch.tensor([0.9, 0.4, 0.8]), torch.tensor([3, 3, 1])
EVERYTHING = dict(person=3, transposed=False, form="xyxy", unit="pixels", nms=True)


def read(
    outputs: dict[str, Tensor],
    boxes: OutputPart,
    scores: OutputPart,
    labels: OutputPart | None,
    **values,
):
    layout = Layout("d.yaml", boxes, scores, labels, **EVERYTHING | values)
    found, sure = layout.read(outputs, (50, 100))
    return found.tolist(), sure.tolist()


def test_layouts_of_outputs():
    """The usual forms of detectors' outputs give the same people."""
    boxes, scores, labels = OutputPart("boxes"), OutputPart("scores"), OutputPart("labels")
    apart = {"boxes": BOXES, "scores": SCORES, "labels": LABELS}
    expected = BOXES[:2].tolist(), SCORES[:2].tolist()
    assert read(apart, boxes, scores, labels) == expected
    batched = {name: value[None] for name, value in apart.items()}
    assert read(batched, boxes, scores, labels) == expected
    one = {"o": torch.cat([BOXES, SCORES[:, None], LABELS[:, None]], 1)[None]}
    columns = (
        OutputPart("o", slice(0, 4)),
        OutputPart("o", slice(4, 5)),
        OutputPart("o", slice(5, 6)),
    )
    assert read(one, *columns) == expected
    centres = torch.cat([(BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]], 1)
    shares = centres / torch.tensor([100.0, 50, 100, 50])
    classes = torch.zeros(3, 5).scatter(1, LABELS[:, None], SCORES[:, None])
    turned = {"o": torch.cat([shares, classes], 1).T[None]}
    parts = OutputPart("o", slice(0, 4)), OutputPart("o", slice(4, 9))
    found, sure = read(turned, *parts, None, transposed=True, form="cxcywh", unit="shares")
    np.testing.assert_allclose(found[:2], expected[0], atol=1e-4)
    assert sure == pytest.approx([0.9, 0.4, 0])
    nobody = {"boxes": torch.zeros(1, 0, 4), "scores": torch.zeros(1, 0), "labels": torch.zeros(0)}
    assert read(nobody, boxes, scores, labels) == ([], [])


@pytest.mark.parametrize("values", [dict(person=None), dict(person=5)])
def test_a_class_that_no_output_has(values):
    outputs = {"boxes": BOXES, "scores": torch.rand(3, 5)}
    with pytest.raises(UserError, match="person: expected a class below 5"):
        read(outputs, OutputPart("boxes"), OutputPart("scores"), None, **values)


@pytest.mark.parametrize(
    "found", [torch.rand(2, 3), torch.rand(6), torch.rand(2), torch.rand(3, 0)]
)
def test_scores_need_a_row_for_each_box(found):
    """Numbers of another shape are not distributed over the boxes."""
    with pytest.raises(UserError, match="scores: expected a row for each of 3 boxes"):
        read({"b": BOXES, "s": found}, OutputPart("b"), OutputPart("s"), None, person=0)


@pytest.mark.parametrize("fit", ["stretch", "centre", "corner"])
@pytest.mark.parametrize("size", [(96, 64), (200, 40)])
def test_boxes_are_those_of_the_picture(networks, tmp_path, fit, size):
    (tmp_path / "d.onnx").write_bytes((networks / "bright.onnx").read_bytes())
    (tmp_path / "d.yaml").write_text(DETECTOR.format(fit=fit))
    net = read_onnx_detector(str(tmp_path / "d.onnx"), "--detector", CPU)
    net = net.__class__(**vars(net) | {"run": lambda x: {"found": without_grey(x)}})
    picture = torch.from_numpy(drawn((16, 8, 56, 32), size=size)).permute(2, 0, 1)
    [found] = net.detect([picture], 0.5)
    assert found.scores.tolist() == pytest.approx([0.9], abs=0.01)
    np.testing.assert_allclose(found.boxes[0], [16, 8, 56, 32], atol=2)
    assert fit_picture(picture, (64, 128), fit)[0].shape[1:] == (
        picture.shape[1:] if fit == "stretch" else (64, 128)
    )


def without_grey(picture: Tensor) -> Tensor:
    """Return the detector's output on a picture whose padding is made black."""
    padding = (picture - detectors.GREY / 255).abs().amax(1, keepdim=True) < 1e-3
    return Bright()(picture * ~padding)


def test_overlapping_boxes_are_suppressed_unless_the_network_does_it():
    found = torch.tensor([[0.0, 0, 10, 20, 0.9], [0, 0, 10, 19, 0.8], [20, 0, 30, 20, 0.7]])
    parts = OutputPart("o", slice(0, 4)), OutputPart("o", slice(4, 5)), None
    prepare = detectors.Preparation((50, 100))
    for nms, count in ((True, 3), (False, 2)):
        layout = Layout("d.yaml", *parts, **EVERYTHING | {"nms": nms})
        net = detectors.OnnxDetector("d", prepare, "stretch", layout, lambda x: {"o": found})
        assert len(net.detect([torch.zeros(3, 50, 100, dtype=torch.uint8)], 0.1)[0].boxes) == count


class Three(nn.Module):
    """A detector in the form of torchvision's."""

    def __init__(self):
        super().__init__()
        self.boxes = nn.Parameter(torch.zeros(3, 4))

    def forward(self, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
        found = {"boxes": self.boxes, "scores": SCORES, "labels": torch.tensor([1, 1, 2])}
        return [found for _ in pictures]


def test_detectors_of_torchvision(tmp_path, monkeypatch):
    """Weights from a file or downloaded, and people alone."""
    asked = []
    monkeypatch.setattr(detectors, "get_model", lambda *names, **o: asked.append(o) or Three())
    torch.save({"boxes": BOXES}, tmp_path / "w.pth")
    name = f"torchvision:fcos_resnet50_fpn={tmp_path / 'w.pth'}"
    net = read_detector(name, "--detector", CPU)
    [people] = net.detect([torch.zeros(3, 50, 100, dtype=torch.uint8)], 0.5)
    assert people.boxes.tolist() == BOXES[:1].tolist()
    read_detector("torchvision:fcos_resnet50_fpn", "--detector", CPU)
    assert asked == [{"weights": None, "weights_backbone": None}, {"weights": "DEFAULT"}]
    torch.save({"boxes": BOXES[:2]}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="w.pth: .*another shape"):
        read_detector(name, "--detector", CPU)


def test_a_download_that_fails(monkeypatch):
    def get(*names, **options):
        raise OSError("no network")

    monkeypatch.setattr(detectors, "get_model", get)
    with pytest.raises(UserError, match="torchvision:fcos_resnet50_fpn: .*no network"):
        read_detector("torchvision:fcos_resnet50_fpn", "--detector", CPU)


WRONG = {
    "an unknown key": ("boxes:", "box:", "'box': expected one of "),
    "no size": ("size: [64, 128]", "", "size: expected height and width"),
    "another size": ("size: [64, 128]", "size: [64, 64]", "size: expected that of the network"),
    "no such output": (
        "found[4]",
        "scores",
        "scores: expected one of the network's outputs, found",
    ),
    "no person": ("person: 1", "", "person: expected the label"),
    "a negative output": ("boxes: found[0:4]", "boxes: -2", "boxes: expected one of the network"),
    "no date": ("size: [64, 128]", "size: 2024-13-45", "not YAML"),
    "a key twice": ("person: 1", "person: 1\nperson: 2", "'person' is given twice"),
    "a wrong form": ("fit:", "form: centre\nfit:", "form: expected xyxy or xywh or cxcywh"),
    "three columns": ("found[0:4]", "found[0:3]", "boxes: expected 4 numbers"),
    "scores of nothing": ("found[4]", "found[9]", "scores: expected a row for each of 3 boxes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_description_is_one_line(networks, tmp_path, case):
    old, new, said = WRONG[case]
    text = DETECTOR.format(fit="stretch")
    assert old in text
    (tmp_path / "d.onnx").write_bytes((networks / "bright.onnx").read_bytes())
    (tmp_path / "d.yaml").write_text(text.replace(old, new))
    with pytest.raises(UserError) as error:
        read_onnx_detector(str(tmp_path / "d.onnx"), "--detector", CPU)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert str(tmp_path / "d.yaml") in str(error.value)


OPTIONS = {
    "an empty name": (["--reid", ""], "--reid: "),
    "every": (["--every", "-1"], "--every: "),
    "score": (["--min-score", "0"], "--min-score: "),
    "similarity": (["--min-similarity", "2"], "--min-similarity: "),
    "a value for other networks": (["INPUT.MIN_SIZE", "64"], "override INPUT.MIN_SIZE: "),
    "re-id of pictures": (["--reid", "reid.onnx"], "--reid: expected with a video"),
    "seconds of pictures": (["--every", "0"], "--every: expected with a video"),
    "tracklets of pictures": (["--min-similarity", "0"], "--min-similarity: expected with a video"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_wrong_options_are_one_line(run, tmp_path, case):
    arguments, said = OPTIONS[case]
    Image.fromarray(drawn((10, 8, 30, 40))).save(tmp_path / "a.png")
    code, printed = run(tmp_path / "a.png", "--out", tmp_path / "own", *arguments)
    assert code == 2 and said in printed and not (tmp_path / "own").exists()


def test_sources_and_networks_that_do_not_fit(run, networks, tmp_path):
    out = ["--out", tmp_path / "own"]
    code, said = run(networks, *out)
    assert code == 2 and "SOURCE: " in said
    (tmp_path / "a.mp4").touch()
    code, said = run(tmp_path / "a.mp4", *out)
    assert code == 2 and "--reid: " in said
    code, said = run(tmp_path / "a.mp4", *out, reid="colour.onnx")
    assert code == 2 and "a.mp4" in said and "found nobody" in said
    Image.fromarray(drawn(None)).save(tmp_path / "a.png")
    for detector, expected in {
        "colour.yaml": "expected a checkpoint of this project",
        "none.onnx": "no such file",
        "torchvision:resnet18": "expected one of fasterrcnn",
    }.items():
        code, said = run(tmp_path / "a.png", *out, detector=detector)
        assert code == 2 and "--detector " in said and expected in said
    assert not (tmp_path / "own").exists() and not list(tmp_path.glob(".own*"))
