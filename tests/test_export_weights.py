"""tools.export_weights: the same network in a smaller file, and the uses that are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file

import demo
from configs.defaults import load_cfg
from engine.checkpoint import Checkpoint, load_net, load_teacher
from engine.evaluation.records import thresholds_of
from engine.run import run
from engine.training.build import build_alone
from engine.weights import TABLE, _checksum, load_weights, save_weights
from models.build import build_distiller, build_net
from models.search_net import SearchNet
from tests.annotations import write_image
from tests.tiny import TINY, pairs
from tools import export_weights
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, net: SearchNet) -> Path:
    """Return a folder with the checkpoint, config and evaluations of a run."""
    cfg = load_cfg(None, pairs(TINY))
    (tmp_path / "cfg.yaml").write_text(cfg.dump())
    run_state = {"terms": {}, "optimizer": {"state": {0: torch.rand(50_000)}}}
    content = {"model": net.state_dict(), "config": cfg.dump(), "epoch": 2} | run_state
    torch.save(content, tmp_path / "best.pth")
    (tmp_path / "evaluations.jsonl").write_text(
        '{"epoch": 2, "search/mAP": 0.5, "thresholds/0.05": 0.625}\n'
    )
    return tmp_path


@pytest.fixture
def weights(folder: Path, program: Callable) -> Path:
    path = folder / "student.safetensors"
    code, out, _ = program(export_weights.main, "--ckpt", folder / "best.pth", "--out", path)
    assert code == 0
    assert f"{path.stat().st_size / 1e6:.1f} MB" in out
    return path


def detect(net: SearchNet) -> torch.Tensor:
    image = torch.rand(3, 60, 80, generator=torch.Generator().manual_seed(0))
    found = net.detect([image])[0]
    assert len(found.boxes)
    return torch.cat([found.boxes, found.scores[:, None], found.embeddings], 1)


def test_exported_file_is_smaller_and_gives_the_same_network(weights: Path, net: SearchNet):
    cfg = load_cfg(None, pairs(TINY))
    assert torch.equal(detect(load_net(cfg, weights, CPU)), detect(net))
    assert weights.stat().st_size < (weights.parent / "best.pth").stat().st_size - 200_000
    assert not any("oim" in name for name in load_tensors(weights))
    assert Checkpoint.read(weights).cfg == cfg


def test_queue_size_may_differ(weights: Path):
    longer = TINY["MODEL.OIM.QUEUE_SIZE"] + 8
    load_net(load_cfg(None, pairs(TINY | {"MODEL.OIM.QUEUE_SIZE": longer})), weights, CPU)
    with pytest.raises(UserError, match="MODEL.OIM.QUEUE_SIZE"):
        cfg = load_cfg(None, pairs(TINY | {"MODEL.OIM.QUEUE_SIZE": longer}))
        load_net(cfg, weights.parent / "best.pth", CPU)


def test_half_precision(folder: Path, weights: Path, net: SearchNet, program: Callable):
    small = folder / "half.safetensors"
    program(export_weights.main, "--ckpt", weights, "--out", small, "--half")
    assert small.stat().st_size < 0.6 * weights.stat().st_size
    halved = load_net(load_cfg(None, pairs(TINY)), small, CPU)
    for own, other in zip(net.parameters(), halved.parameters()):
        assert other.dtype == torch.float32
        assert torch.equal(own.half().float(), other)


def test_values_outside_half_precision_are_refused(net: SearchNet, tmp_path: Path):
    state = net.state_dict() | {"rpn.head.cls_logits.bias": torch.tensor([1.0, 1e6, 0])}
    with pytest.raises(UserError, match=r"rpn\.head\.cls_logits\.bias .*1e\+06"):
        save_weights(state, "", None, tmp_path / "a.safetensors", half=True)


def found(path: Path) -> dict[str, float] | None:
    return thresholds_of(Checkpoint.read(path))


def test_thresholds_are_exported(folder: Path, weights: Path, program: Callable):
    assert found(folder / "best.pth") == found(weights) == {"0.05": 0.625}
    (folder / "evaluations.jsonl").unlink()
    line = "--ckpt", folder / "best.pth", "--out", folder / "without.safetensors"
    assert program(export_weights.main, *line)[0] == 0
    assert found(folder / "without.safetensors") is None


def test_input_size_of_an_evaluation_is_exported(folder: Path, program: Callable):
    best, out, other = folder / "best.pth", folder / "out.safetensors", folder / "other"
    sizes = {"INPUT.MIN_SIZE": 96, "INPUT.MAX_SIZE": 160}
    other.mkdir()
    line = "--ckpt", best, "--out", out, "--evaluated", other
    assert program(export_weights.main, *line)[0] == 2
    for weights, code in (("of another network", 2), (Checkpoint.read(best).digest, 0)):
        torch.save({"made": {"weights": weights} | sizes}, other / "eval_cache.pth")
        assert program(export_weights.main, *line)[0] == code
    assert {
        f"INPUT.{k}": Checkpoint.read(out).cfg.INPUT[k] for k in ("MIN_SIZE", "MAX_SIZE")
    } == sizes
    assert found(out) is None


@pytest.mark.slow
def test_demo_and_evaluation_accept_the_file(
    folder: Path, weights: Path, root: Path, program: Callable
):
    (folder / "pictures").mkdir()
    write_image(folder / "pictures" / "a.jpg", (64, 48))
    names = "--cfg", folder / "cfg.yaml", "--ckpt", weights
    query = "--query", folder / "pictures" / "a.jpg", "--box", 1, 2, 30, 40
    places = "--gallery", folder / "pictures", "--out", folder / "found"
    code, _, _ = program(demo.main, *names, *query, *places)
    assert code == 0 and (folder / "found" / "matches.json").is_file()
    for path in (weights, folder / "best.pth"):
        keys = "OUTPUT_DIR", folder / path.stem, "INPUT.DATA_ROOT", root
        line = "--cfg", folder / "cfg.yaml", "--eval", "--ckpt", path, *keys
        assert program(lambda: run("", build_alone), *line)[0] == 0
    evaluated = folder / "evaluated.safetensors"
    line = "--ckpt", folder / "best.pth", "--out", evaluated, "--evaluated", folder / "best"
    assert program(export_weights.main, *line)[0] == 0
    at = json.loads((folder / "best" / "results.json").read_text())["thresholds"]
    assert found(evaluated) == {rate: value["similarity"] for rate, value in at.items()}
    caches = [torch.load(folder / name / "eval_cache.pth") for name in ("student", "best")]
    for ours, theirs in zip(*(cache["gallery_feats"] for cache in caches)):
        assert torch.equal(ours, theirs)


def test_resume_is_refused(folder: Path, weights: Path, root: Path, program: Callable):
    keys = "OUTPUT_DIR", folder / "run", "INPUT.DATA_ROOT", root
    line = "--cfg", folder / "cfg.yaml", "--resume", "--ckpt", weights, *keys
    code, _, err = program(lambda: run("", build_alone), *line)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{weights}: " in err


@pytest.mark.slow
def test_terms_with_an_exported_teacher(weights: Path):
    teacher, teacher_cfg = load_teacher(weights, CPU)
    images = [torch.rand(3, 48, 64)]
    targets = [{"boxes": torch.tensor([[5.0, 6, 25, 36]]), "labels": torch.tensor([1])}]
    for terms, refused in (("['pkd']", False), ("['cd']", True), ("['rkd']", True)):
        cfg = load_cfg(None, [*pairs(TINY), "DISTILLER.TERMS", terms])
        model = build_distiller(cfg, build_net(cfg, 3), teacher, teacher_cfg).train()
        if refused:
            with pytest.raises(UserError, match="DISTILLER.TEACHER_CKPT"):
                model(images, targets)
        else:
            assert model(images, targets).losses["pkd"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("place", [10, 300, -1])
def test_damaged_files_are_refused(weights: Path, place: int):
    content = bytearray(weights.read_bytes())
    content[place] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=rf"--ckpt {weights}: "):
        load_net(load_cfg(None, pairs(TINY)), weights, CPU)


@pytest.mark.parametrize("text", ["", "[", "3", '{"0.05": "much"}', '{"often": 0.5}', "[" * 9999])
def test_thresholds_of_another_form_are_refused(net: SearchNet, tmp_path: Path, text: str):
    """The header is invalid, although its checksum is correct."""
    state = {name: v for name, v in net.state_dict().items() if not name.startswith(TABLE)}
    header = {"format": "pt", "config": load_cfg(None, pairs(TINY)).dump(), "thresholds": text}
    path = tmp_path / "a.safetensors"
    save_file(state, path, header | {"crc32": _checksum(state, header)})
    with pytest.raises(UserError, match=rf"--ckpt {path}: thresholds: expected "):
        load_weights(path, "--ckpt")


def test_other_files_are_refused(tmp_path: Path, folder: Path, weights: Path, program: Callable):
    weights.write_bytes(weights.read_bytes()[:5000])
    for path in (weights, tmp_path / "none.safetensors"):
        line = "--ckpt", path, "--out", tmp_path / "out.safetensors"
        code, _, err = program(export_weights.main, *line)
        assert (code, err.count("\n")) == (2, 1)
        assert f"--ckpt {path}: " in err
    resaved = {"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.ones((), dtype=torch.bool)}
    save_file(resaved, tmp_path / "other.safetensors", {"config": "SEED: 1"})
    with pytest.raises(UserError, match=r"--ckpt .*other\.safetensors: "):
        load_weights(tmp_path / "other.safetensors", "--ckpt")
    line = "--ckpt", weights, "--out", weights, "--half"
    assert program(export_weights.main, *line)[0] == 2
    line = "--ckpt", folder / "best.pth", "--out", tmp_path / "out.pth"
    code, _, err = program(export_weights.main, *line)
    assert code == 2 and ".safetensors" in err
