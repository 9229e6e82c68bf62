"""tools.export_onnx: the same results in onnxruntime, and the programs that accept the file."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import demo
from configs.defaults import load_cfg
from engine.checkpoint import Checkpoint, load_net, load_teacher
from engine.evaluation.records import evaluated_epoch, thresholds_of
from engine.onnx_net import CHECKSUM, NO_CHECKSUM, stamped
from engine.run import run
from engine.training.build import build_alone
from models.build import build_net
from models.roi_heads import PERSON
from models.search_net import SearchNet
from tests.annotations import write_image
from tests.tiny import TINY, pairs
from tools import bench_onnx, export_onnx, index_gallery
from tools.export.parity import PICTURES, check, pictures
from utils.errors import UserError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SIZES = [(48, 64), (90, 51), (61, 47), (40, 400), (400, 37), (1, 1), (700, 300)]  # height, width


@dataclass
class Exported:
    """A network, its config values, and a folder with cfg.yaml, best.pth, net.onnx and
    int8.onnx."""

    net: SearchNet
    settings: dict
    folder: Path

    @property
    def onnx(self) -> Path:
        return self.folder / "net.onnx"

    def load(self, path: Path, **settings):
        return load_net(load_cfg(None, pairs(self.settings | settings)), path, CPU)


def lively(net: SearchNet) -> SearchNet:
    """Return a random network whose features, scores and boxes differ between locations."""
    net.train()
    with torch.no_grad():
        for _ in range(30):  # until the statistics of the norms have converged
            net.backbone(torch.randn(2, 3, 64, 96))
        predictor = net.roi_heads.box_predictor
        for layer in (net.rpn.head.cls_logits, net.rpn.head.bbox_pred, predictor.cls_score):
            layer.weight.mul_(30)
        predictor.cls_score.bias[PERSON] += 2
    return net.eval()


FPN = {"BACKBONE.NAME": "resnet18_x05"}
C4 = {"BACKBONE.NAME": "mobilenet_v3_large", "MODEL.NECK": "none", "MODEL.C4.MAXIMA": "rows"}


def export(settings: dict, folder: Path) -> Exported:
    """Export a network of these settings with the program."""
    torch.manual_seed(1)
    cfg = load_cfg(None, pairs(settings))
    net = lively(build_net(cfg, num_pids=3))
    (folder / "cfg.yaml").write_text(cfg.dump())
    content = {"model": net.state_dict(), "config": cfg.dump(), "epoch": 2}
    torch.save(content, folder / "best.pth")
    (folder / "evaluations.jsonl").write_text(
        '{"epoch": 2, "search/mAP": 0.5, "thresholds/0.05": 0.625}\n'
    )
    names = [f"--{name}" for name in ("cfg", "ckpt", "out", "int8")]
    files = ["cfg.yaml", "best.pth", "net.onnx", "int8.onnx"]
    line = [str(part) for name, file in zip(names, files) for part in (name, folder / file)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export_onnx", *line])
        export_onnx.main()
    return Exported(net, settings, folder)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return a network with an FPN."""
    return export(TINY | FPN, tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module", params=["fpn", "c4"])
def each(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Return a network of each form, for the tests of the graph's numbers."""
    if request.param == "fpn":
        return request.getfixturevalue("exported")
    return export(TINY | C4, tmp_path_factory.mktemp("c4"))


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def in_onnxruntime(path: Path, image: np.ndarray, boxes: list) -> dict[str, Tensor]:
    """Run the file with onnxruntime, without code of this project."""
    session = onnxruntime.InferenceSession(path)
    feed = {"image": image, "query_boxes": np.array(boxes, np.float32).reshape(-1, 4)}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(torch.from_numpy, session.run(None, feed))))


def in_pytorch(net: SearchNet, image: np.ndarray, boxes: list) -> dict[str, Tensor]:
    pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    (found,), (queries,) = net.detect_and_embed([pixels], [torch.tensor(boxes).reshape(-1, 4)])
    names = ["boxes", "scores", "embeddings"]
    return {name: getattr(found, name) for name in names} | {"query_embeddings": queries}


def agree(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        tolerance = 0.05 if name == "boxes" else 1e-3
        torch.testing.assert_close(value, theirs[name], atol=tolerance, rtol=0)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_same_detections_for_any_image_size(each: Exported, height: int, width: int):
    image = picture(height, width)
    boxes = [[0.0, 0, width, height], [0.2 * width, 0.1 * height, 0.7 * width, 0.9 * height]]
    theirs = in_pytorch(each.net, image, boxes)
    assert len(theirs["boxes"])
    agree(in_onnxruntime(each.onnx, image, boxes), theirs)


@pytest.mark.parametrize(
    "boxes",
    [
        [],
        [[3.0, 4, 4, 5]],
        [[0.0, 0, 1, 1], [63, 47, 64, 48], [31, 20, 32, 21]],
        [[5.0, 5, 5, 5], [-20, -9, 90, 70], [100, 100, 120, 140]],
    ],
    ids=["none", "one pixel", "pixels in corners", "no area, beyond, outside"],
)
def test_query_boxes_of_any_number_and_size(each: Exported, boxes: list):
    image = picture(48, 64)
    ours = in_onnxruntime(each.onnx, image, boxes)
    assert ours["query_embeddings"].shape == (len(boxes), TINY["MODEL.EMBEDDING_SIZE"])
    agree(ours, in_pytorch(each.net, image, boxes))


@pytest.mark.parametrize("name", ["net.onnx", "int8.onnx"])
def test_queries_are_embedded_without_the_detector(each: Exported, name: str):
    net = each.load(each.folder / name)
    part = onnx.load_from_string(net.file.of_queries().data)
    assert "NonMaxSuppression" not in {node.op_type for node in part.graph.node}
    images = [torch.from_numpy(picture(48, 64)).permute(2, 0, 1), torch.rand(3, 90, 51)]
    boxes = [torch.tensor([[3.0, 4, 30, 40], [0, 0, 64, 48]]), torch.zeros(0, 4)]
    found, expected = net.embed(images, boxes), net.detect_and_embed(images, boxes)[1]
    assert [len(one) for one in found] == [2, 0]
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    (in_torch,) = each.net.embed(images[:1], boxes[:1])
    assert (found[0] * in_torch).sum(1).min() > (1 - 1e-6 if name == "net.onnx" else 0.9)


@pytest.mark.parametrize("boxes", [[], [[3.0, 4, 30, 40]]], ids=["no query", "a query"])
def test_image_without_detections(each: Exported, tmp_path: Path, boxes: list):
    model = onnx.load(each.onnx)
    (bias,) = (one for one in model.graph.initializer if one.name.endswith("cls_score.bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([99, -99], np.float32), bias.name))
    onnx.save(model, tmp_path / "nobody.onnx")
    image = picture(48, 64)
    ours = in_onnxruntime(tmp_path / "nobody.onnx", image, boxes)
    assert [len(value) for value in ours.values()] == [0, 0, 0, len(boxes)]
    queries = in_pytorch(each.net, image, boxes)["query_embeddings"]
    torch.testing.assert_close(ours["query_embeddings"], queries, atol=1e-3, rtol=0)


@pytest.mark.parametrize("shade", [0, 255])
def test_uniform_image(each: Exported, shade: int):
    """Scores and query embeddings agree; the order of equal scores is not defined."""
    image = np.full((64, 96, 3), shade, np.uint8)
    ours, theirs = (
        run(where, image, [[8.0, 8, 40, 60]])
        for run, where in ((in_onnxruntime, each.onnx), (in_pytorch, each.net))
    )
    for name in ("scores", "query_embeddings"):
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-3, rtol=0)


def test_metadata_of_the_file(each: Exported):
    model = onnx.load(each.onnx)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", export_onnx.OPSET)]
    notes = {one.key: one.value for one in model.metadata_props}
    assert notes["config"] == (each.folder / "cfg.yaml").read_text()
    names = [one.name for one in (*model.graph.input, *model.graph.output)]
    assert all(name in notes["usage"] for name in names)
    sizes = [side.dim_param for side in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["height", "width", ""]
    assert str(Path(__file__).parents[1]).encode() not in each.onnx.read_bytes()


def test_damaged_files_are_refused(exported: Exported, tmp_path: Path):
    """One bit is changed at each of 25 positions. The quantized file has its own checksum."""
    for whole in (exported.onnx, exported.folder / "int8.onnx"):
        content = whole.read_bytes()
        path = tmp_path / whole.name
        for place in np.linspace(0, len(content) - 1, 25).astype(int):
            damaged = bytearray(content)
            damaged[place] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(UserError, match=rf"^--ckpt {path}: "):
                Checkpoint.read(path)


def test_files_without_a_checksum_are_accepted(exported: Exported, tmp_path: Path):
    """Earlier versions exported such files."""
    model = onnx.load(exported.onnx)
    kept = [one for one in model.metadata_props if one.key != CHECKSUM]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "old.onnx")
    assert check(
        exported.net, exported.load(tmp_path / "old.onnx"), exported.onnx, pictures(PICTURES)
    )


@pytest.mark.parametrize("text", ["", "[", "3", '{"0.05": "much"}'])
def test_thresholds_of_another_form_are_refused(exported: Exported, tmp_path: Path, text: str):
    model, path = onnx.load(exported.onnx), tmp_path / "a.onnx"
    notes = {one.key: one for one in model.metadata_props}
    notes["thresholds"].value, notes[CHECKSUM].value = text, NO_CHECKSUM
    path.write_bytes(stamped(model.SerializeToString()))
    with pytest.raises(UserError, match=rf"--ckpt {path}: thresholds: expected "):
        Checkpoint.read(path)


def test_thresholds_are_exported(exported: Exported):
    for name in ("best.pth", "net.onnx", "int8.onnx"):
        assert thresholds_of(Checkpoint.read(exported.folder / name)) == {"0.05": 0.625}
    assert evaluated_epoch(Checkpoint.read(exported.onnx), exported.folder) is None


def test_int8_is_smaller_and_finds_people(each: Exported):
    path = each.folder / "int8.onnx"
    layers = (m for m in each.net.roi_heads.modules() if isinstance(m, torch.nn.Linear))
    saved = 3 * sum(layer.weight.numel() for layer in layers)  # bytes of each weight
    assert (
        path.stat().st_size < each.onnx.stat().st_size - saved // 3
    )  # what describes the numbers takes space too
    image, boxes = picture(48, 64), [[3.0, 4, 30, 40]]
    ours, theirs = (
        in_onnxruntime(path, image, boxes),
        in_pytorch(each.net, image, boxes),
    )
    assert len(ours["boxes"])
    similarity = (ours["query_embeddings"] * theirs["query_embeddings"]).sum()
    assert 0.9 < similarity < 1 - 1e-7
    each.load(path)


def test_check_detects_another_network(exported: Exported, capsys):
    other = lively(build_net(load_cfg(None, pairs(exported.settings)), num_pids=3))
    images, in_file = pictures(PICTURES), exported.load(exported.onnx)
    assert check(exported.net, in_file, exported.onnx, images)
    assert not check(other, in_file, exported.onnx, images)
    assert "331×203" in capsys.readouterr().out


def test_demo_accepts_the_file(exported: Exported, tmp_path: Path, program: Callable):
    (tmp_path / "pictures").mkdir()
    for i, size in enumerate([(64, 48), (51, 90)]):
        write_image(tmp_path / "pictures" / f"{i}.png", size)
    tables = []
    for path in (exported.onnx, exported.folder / "best.pth"):
        names = "--cfg", exported.folder / "cfg.yaml", "--ckpt", path
        query = "--query", tmp_path / "pictures/0.png", "--box", 1, 2, 30, 40
        places = "--gallery", tmp_path / "pictures", "--out", tmp_path / path.stem
        code, out, err = program(demo.main, *names, *query, *places)
        assert code == 0, err
        tables.append(out[: out.index(" pictures: ")])
    assert "similarity" in tables[0]
    assert tables[0] == tables[1]


def test_index_accepts_both_forms_of_a_network(exported: Exported, tmp_path: Path, program):
    pytest.importorskip("faiss")
    (tmp_path / "pictures").mkdir()
    write_image(tmp_path / "pictures" / "a.png", (64, 48))
    for name in ("net.onnx", "best.pth"):
        line = "--cfg", exported.folder / "cfg.yaml", "--ckpt", exported.folder / name
        place = "--index", tmp_path / "index", tmp_path / "pictures"
        code, _, err = program(index_gallery.main, *line, *place)
        assert code == 0, err


def test_evaluation_accepts_the_file(
    exported: Exported, root: Path, tmp_path: Path, program: Callable
):
    found = {}
    for path in (exported.onnx, exported.folder / "best.pth"):
        line = "--cfg", exported.folder / "cfg.yaml", "--eval", "--ckpt", path
        keys = "OUTPUT_DIR", tmp_path / path.stem, "INPUT.DATA_ROOT", root
        size = "EVAL_GALLERY_SIZE", 50, "EVAL_USE_CBGM", True
        code, _, err = program(lambda: run("", build_alone), *line, *keys, *size)
        assert code == 0, err
        found[path.suffix] = json.loads((tmp_path / path.stem / "results.json").read_text())
    for part in ("detection", "search", "detection_errors"):
        assert found[".onnx"][part] == pytest.approx(found[".pth"][part], abs=1e-4)


def test_bench_onnx_has_a_row_per_network(exported: Exported, program: Callable):
    names = "--cfg", exported.folder / "cfg.yaml", "--ckpt", exported.folder / "best.pth"
    files = "--onnx", exported.onnx, exported.folder / "int8.onnx"
    code, out, err = program(bench_onnx.main, *names, "--repeats", 2, *files, "DEVICE", "cpu")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines() if line.endswith("×")]
    assert [row[0] for row in rows] == ["PyTorch", "net.onnx", "int8.onnx"]
    assert rows[0][-1] == "1.00×"


@pytest.mark.parametrize(
    "key, value", [("MODEL.ROI.SCORE_THRESH", 0.2), ("INPUT.MIN_SIZE", 60), ("MODEL.FC_SIZE", 16)]
)
def test_a_file_of_another_config_is_refused(exported: Exported, key: str, value: float):
    with pytest.raises(UserError, match=key):
        exported.load(exported.onnx, **{key: value})
    for setting in ({"EVAL_AMP": "bf16"}, {"EVAL_FAST": True}):
        with pytest.raises(UserError, match=next(iter(setting))):
            exported.load(exported.onnx, **setting)
    exported.load(exported.onnx, **{"MODEL.ROI.BATCH_SIZE": 4})
    with pytest.raises(UserError, match="DEVICE cuda: "):
        exported.load(exported.onnx, DEVICE="cuda")


def test_uses_that_need_a_checkpoint_are_refused(exported: Exported, tmp_path: Path, program):
    with pytest.raises(UserError, match=r"TEACHER_CKPT .*net.onnx: "):
        load_teacher(exported.onnx, CPU)
    line = "--cfg", exported.folder / "cfg.yaml", "--ckpt", exported.onnx
    code, _, err = program(export_onnx.main, *line, "--out", tmp_path / "again.onnx")
    assert (code, err.count("\n")) == (2, 1)
    assert "--ckpt" in err


def test_bad_names_are_one_line(exported: Exported, tmp_path: Path, program: Callable):
    line = "--cfg", exported.folder / "cfg.yaml", "--ckpt", exported.folder / "best.pth"
    one = tmp_path / "one.onnx"
    cases = {
        "net.pth": ("--out", tmp_path / "net.pth"),
        "--int8": ("--out", one, "--int8", one),
        "none.jpg": ("--out", one, "--check", tmp_path / "none.jpg"),
        "EVAL_FAST": ("--out", one, "EVAL_FAST", "True"),
    }
    for message, names in cases.items():
        code, _, err = program(export_onnx.main, *line, *names)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
        assert not one.exists()


def test_failure_with_an_older_torch_names_its_version(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
):
    def fail(*args, **kwargs):
        raise RuntimeError("no symbols\nmore")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(RuntimeError):
        export_onnx.to_onnx(exported.net, {})
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.9.1"))
    with pytest.raises(UserError, match=r"torch 2\.9\.1: .*2\.14.*no symbols"):
        export_onnx.to_onnx(exported.net, {})


def test_other_files_are_refused(exported: Exported, tmp_path: Path):
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in ("image", "boxes")]
    copy = onnx.helper.make_node("Identity", ["image"], ["boxes"])
    foreign = onnx.helper.make_graph([copy], "foreign", ends[:1], ends[1:])
    opset = [onnx.helper.make_opsetid("", export_onnx.OPSET)]
    model = onnx.helper.make_model(foreign, opset_imports=opset, ir_version=9)
    onnx.save(model, tmp_path / "foreign.onnx")
    (tmp_path / "cut.onnx").write_bytes(exported.onnx.read_bytes()[:9999])
    (tmp_path / "text.onnx").write_text("no network")
    for name in ("foreign", "cut", "text", "none"):
        with pytest.raises(UserError, match=rf"--ckpt .*{name}.onnx: ") as error:
            exported.load(tmp_path / f"{name}.onnx")
        assert "\n" not in str(error.value)


def test_without_onnxruntime_one_line(exported: Exported, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime.*requirements-onnx\.txt"):
        exported.load(exported.onnx)
