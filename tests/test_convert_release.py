"""tools.convert_release: checkpoints with the names of the release are converted or refused."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml

from configs.defaults import load_cfg
from engine.checkpoint import Checkpoint, load_checkpoint, load_net, load_teacher
from models.build import build_terms
from tests.golden import named_weights
from tests.golden_net import GOLDEN, SHAPES, finds_and_embeds_as_the_release_does
from tools import convert_release
from tools.convert_release import convert
from utils.errors import UserError
from utils.states import load_state

ADAPTER = json.loads((GOLDEN / "losses.json").read_text())["dfd"]["adapter_shapes"]
LUT = "roi_heads.reid_loss.lut"
CONFIG = {
    "OUTPUT_DIR": "exp_cuhk",
    "DEVICE": "cuda",
    "SEED": 1,
    "INPUT": {
        "DATASET": "CUHK-SYSU",
        "DATA_ROOT": "data/CUHK-SYSU",
        "MIN_SIZE": 256,
        "MAX_SIZE": 416,
        "BATCH_SIZE_TRAIN": 4,
        "NUM_WORKERS_TRAIN": 3,
    },
    "SOLVER": {
        "BASE_LR": 0.0024,
        "LR_DECAY_MILESTONES": [12],
        "CLIP_GRADIENTS": 10,
        "WARMUP_FACTOR": "1e-3",
        "GAMMA": 0.5,
    },
    "MODEL": {"RPN": {"PRE_NMS_TOPN_TEST": 6000}, "LOSS": {"LUT_SIZE": 40, "CQ_SIZE": 1}},
    "FGD": {"ALPHA": 1},
    "GRAPHRELA": {},
}


def adapters(channels: int = 256) -> dict:
    """Return FGD modules of four levels, enlarged from the 32 channels of the golden values."""
    scaled = {32: channels, 16: channels // 2}
    shapes = {k: [scaled.get(size, size) for size in shape] for k, shape in ADAPTER.items()}
    return {
        str(level): {k: named_weights.value(f"fgd.{level}.{k}", s) for k, s in shapes.items()}
        for level in range(4)
    }


def write_release(folder: Path, model: dict, config: dict = CONFIG) -> tuple[str, str]:
    """Write config.yaml and epoch_19.pth as the release does, and return their paths."""
    folder.mkdir(exist_ok=True)
    cfg, ckpt = folder / "config.yaml", folder / "epoch_19.pth"
    cfg.write_text(yaml.safe_dump(config))
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.003, momentum=0.9)
    weight.sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[16])
    torch.save(
        {
            "model": model,
            "optimizer": optimizer.state_dict(),
            "epoch": 19,
            "lr_scheduler": scheduler.state_dict(),
        },
        ckpt,
    )
    return str(cfg), str(ckpt)


@pytest.fixture(scope="module")
def resnet18() -> dict:
    return named_weights.fill(SHAPES["resnet18"])


@pytest.mark.slow
@pytest.mark.parametrize("backbone", SHAPES)
def test_every_tensor_of_a_release_network_is_converted(backbone, tmp_path):
    weights = named_weights.fill(SHAPES[backbone])
    convert(*write_release(tmp_path / "release", weights), str(tmp_path / "ours"))
    cfg = load_cfg(str(tmp_path / "ours/config.yaml"))
    assert backbone == cfg.BACKBONE.NAME
    assert (backbone == "resnet18") == cfg.BACKBONE.FROZEN_BN
    assert cfg.MODEL.OIM.QUEUE_SIZE == 30
    net = load_net(cfg, tmp_path / "ours/epoch_19.pth", torch.device("cpu"))
    assert torch.equal(net.oim.lut, weights["roi_heads.reid_loss.lut"])
    assert torch.equal(net.oim.cq, weights["roi_heads.reid_loss.cq"])
    unused = sum(key.startswith("roi_heads.box_predictor.") for key in weights)
    assert len(net.state_dict()) == len(weights) - unused + 1


@pytest.mark.slow
def test_converted_student_gives_the_numbers_of_the_release(tmp_path, resnet18):
    model = {"student": resnet18, "fgd": adapters()}
    convert(*write_release(tmp_path / "release", model), str(tmp_path / "ours"))
    path = tmp_path / "ours/epoch_19.pth"
    net = load_net(load_cfg(str(tmp_path / "ours/config.yaml")), path, torch.device("cpu"))
    finds_and_embeds_as_the_release_does(net)

    checkpoint = Checkpoint.read(path)
    terms = torch.nn.ModuleDict(build_terms(checkpoint.cfg, checkpoint.cfg))
    load_state(terms, checkpoint.content["terms"], "terms")
    context = terms["dfd"].levels["2"].teacher_context.transform[3].weight
    assert torch.equal(context, model["fgd"]["2"]["channel_add_conv_t.3.weight"])
    load_teacher(path, torch.device("cpu"))


@pytest.mark.slow
def test_config_values_are_converted_and_ignored_keys_are_listed(tmp_path, resnet18, capsys):
    cfg, ckpt = write_release(tmp_path / "release", {"student": resnet18, "fgd": {}})
    convert(cfg, ckpt, str(tmp_path / "ours"))
    ours = load_cfg(str(tmp_path / "ours/config.yaml"))
    assert ours.INPUT.MIN_SIZE == 256 and ours.INPUT.NUM_WORKERS == 3
    assert ours.SOLVER.BASE_LR == 0.0024 and ours.SOLVER.MILESTONES == [12]
    assert ours.SOLVER.CLIP_GRADIENTS == 10.0 and ours.SOLVER.WARMUP_FACTOR == 1e-3
    assert ours.SOLVER.GAMMA == 0.1  # the release does not read it
    assert str(tmp_path / "ours") == ours.OUTPUT_DIR
    assert ours.DISTILLER.TEACHER_CKPT == "runs/cuhk_sysu_resnet50_base/epoch_19.pth"
    ignored = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ignored")]
    assert len(ignored) == 1
    for key in ("OUTPUT_DIR", "DEVICE", "SOLVER.GAMMA", "FGD.ALPHA", "MODEL.RPN.PRE_NMS_TOPN_TEST"):
        assert key in ignored[0]
    assert load_checkpoint(tmp_path / "ours/epoch_19.pth")["epoch"] == 20


@pytest.mark.slow
def test_mobilenet_keeps_its_rpn_threshold(tmp_path):
    weights = named_weights.fill(SHAPES["mobilenet_v2"])
    cfg, ckpt = write_release(tmp_path / "release", weights)
    torch.save({"model": weights}, ckpt)  # a checkpoint without other parts
    convert(cfg, ckpt, str(tmp_path / "ours"))
    assert load_cfg(str(tmp_path / "ours/config.yaml")).MODEL.RPN.SCORE_THRESH == 0.05
    assert "epoch" not in load_checkpoint(tmp_path / "ours/epoch_19.pth")


@pytest.mark.slow
def test_prw_table_follows_our_labels(tmp_path, resnet18):
    raw = torch.arange(1.0, 483)  # the values of a row are its identity in the release
    model = resnet18 | {LUT: raw[:, None].repeat(1, 256)}
    config = CONFIG | {"INPUT": {"DATASET": "PRW"}}
    cfg, ckpt = write_release(tmp_path / "release", model, config)
    convert(cfg, ckpt, str(tmp_path / "ours"))
    ours = load_checkpoint(tmp_path / "ours/epoch_19.pth")["model"]["roi_heads.oim.lut"]
    assert ours[:, 0].tolist() == [*range(1, 479), 480, 481, 482, 0, 0]


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harm",)


FC = "roi_heads.reid_head.fc7.bias"


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: {k: v for k, v in w.items() if k != FC}, FC),
        (lambda w: w | {"more.weight": torch.zeros(1)}, "more.weight"),
        (lambda w: w | {FC: torch.zeros(3)}, rf"{FC} .*\[3\].*\[1024\]"),
        (lambda w: {k: v for k, v in w.items() if k != LUT}, "roi_heads.oim.lut"),
        (lambda w: {"student": w, "fgd": adapters(32)}, "8 tensors.*levels.0.align.weight"),
        (lambda w: {"student": w, "fgd": {"7": adapters()["0"]}}, "dfd.levels.7"),
        (lambda w: {"student": w, "abf": {"a": torch.zeros(1)}}, "found also abf"),
        (lambda w: {"student": w, "fgd": {"0": 3}}, "fgd 0: expected"),
        (lambda w: {"a": 1}, "the network: expected"),
        (lambda w: Harmful(), "epoch_19.pth: "),
    ],
)
def test_incompatible_tensors_are_listed_and_nothing_is_written(
    change, message, tmp_path, resnet18, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    cfg, ckpt = write_release(tmp_path / "release", change(resnet18))
    with pytest.raises(UserError, match=message) as caught:
        convert(cfg, ckpt, str(tmp_path / "ours"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists() and not (tmp_path / "ours").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "text, message",
    [
        ("a: [1", "--cfg .*config.yaml"),
        ("- 1", "--cfg .*config.yaml"),
        ("INPUT: {DATASET: market}", "INPUT.DATASET: expected CUHK-SYSU or PRW; found market"),
        ("INPUT: {DATASET: [PRW]}", "INPUT.DATASET: expected CUHK-SYSU or PRW; found"),
        ("SOLVER: {MAX_EPOCHS: -3}", "SOLVER.MAX_EPOCHS: expected at least 1, found -3"),
        ("SOLVER: {MAX_EPOCHS: null}", "SOLVER.MAX_EPOCHS: expected"),
        ("INPUT: {MIN_SIZE: tall}", "INPUT.MIN_SIZE: expected a whole number, found 'tall'"),
        ("SOLVER: {BASE_LR: fast}", "SOLVER.BASE_LR: expected a number, found 'fast'"),
    ],
)
def test_bad_release_config_is_one_line(text, message, tmp_path, resnet18):
    cfg, ckpt = write_release(tmp_path / "release", resnet18)
    Path(cfg).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        convert(cfg, ckpt, str(tmp_path / "ours"))
    assert "\n" not in str(caught.value)


def test_nothing_is_overwritten(tmp_path):
    """Neither the files of the release nor a run in the target folder are overwritten."""
    cfg, ckpt = write_release(tmp_path / "release", {LUT: torch.zeros(3, 256)})
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "evaluations.jsonl").write_text("{}")
    for folder in ("release", "ours"):
        with pytest.raises(UserError, match="--out "):
            convert(cfg, ckpt, str(tmp_path / folder))


@pytest.mark.slow
def test_converting_twice_is_refused(tmp_path, resnet18):
    cfg, ckpt = write_release(tmp_path / "release", resnet18)
    convert(cfg, ckpt, str(tmp_path / "ours"))
    with pytest.raises(UserError, match="--ckpt .*epoch_19.pth: "):
        convert(cfg, str(tmp_path / "ours/epoch_19.pth"), str(tmp_path / "again"))


ODD = (None, 1.5, "text", [], {"a": 1}, torch.zeros(()), torch.zeros(2, 0), torch.ones(3))


def test_odd_structures_are_one_line(tmp_path, resnet18, monkeypatch):
    """Each part of the file is replaced by values of other kinds, one part at a time."""
    whole = {"student": resnet18, "fgd": adapters()}
    names = [LUT, "roi_heads.reid_loss.cq", "backbone.fpn.inner_blocks.0.weight"]
    assert resnet18.keys() >= set(names)
    cases = [{"model": value} for value in ODD]
    cases += [{"model": whole | {key: value}} for key in whole for value in ODD]
    cases += [{"model": whole | {"student": resnet18 | {n: v}}} for n in names for v in ODD]
    cases += [{"model": whole | {"fgd": {"0": value}}} for value in ODD]
    refused = 0
    cfg, ckpt = tmp_path / "release.yaml", tmp_path / "odd.pth"
    cfg.write_text(yaml.safe_dump(CONFIG))
    for number, content in enumerate(cases):
        monkeypatch.setattr(convert_release, "load_file", lambda *_, content=content: content)
        try:
            convert(str(cfg), str(ckpt), str(tmp_path / f"out_{number}"))
        except UserError as error:
            refused += 1
            assert str(ckpt) in str(error) and "\n" not in str(error)
    assert refused >= len(cases) - 4
