"""The C4 form: network, distillation, and the programs that use a network."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_large

from configs.defaults import get_cfg, load_cfg
from datasets.types import UNLABELED
from engine.checkpoint import Checkpoint
from engine.weights import load_weights, save_weights
from models import c4
from models.backbones import BACKBONES
from models.build import build_distiller, build_net, build_terms
from models.distill import FPN_LEVELS, dfd
from models.fast.inference import optimize_for_inference
from models.network import Network
from models.search_net import SearchNet
from tests.interruptions import At
from tests.ranks import largest_difference, make_comparable
from tests.tiny import PUBLIC, TINY, WIDTHS, pairs
from tests.training import Run, differences, make_data, run_ranks, same
from tools import profile_model
from utils.errors import UserError

FOLDER = Path(__file__).parents[1] / "configs"
C4 = {"MODEL.NECK": "none", "MODEL.C4.POOL_SIZE": 4, "MODEL.ANCHOR_SIZES": "[16, 32]"}
# Three people: RKD compares ratios of distances, which are always equal between two people.
BOXES = torch.tensor([[10.0, 10, 40, 60], [60, 5, 80, 50], [86, 8, 108, 56]])
CHANNELS = WIDTHS[2]  # of the map of stride 16
ALL_TERMS = ["dfd", "ld", "cd", "pkd", "reviewkd", "kd", "hint", "rkd"]


def settings(**changes: object) -> dict:
    return TINY | C4 | {key.replace("__", "."): value for key, value in changes.items()}


def make_net(**changes: object) -> SearchNet:
    torch.manual_seed(0)
    return build_net(load_cfg(None, pairs(settings(**changes))), num_pids=4)


def batch() -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Return two images, one without people."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(3, 64, width, generator=generator) for width in (112, 96)]
    nobody = {"boxes": BOXES[:0], "labels": torch.zeros(0, dtype=torch.int64)}
    return images, [{"boxes": BOXES, "labels": torch.tensor([1, 2, UNLABELED])}, nobody]


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", PUBLIC)
@pytest.mark.parametrize("heads", ["double", "shared"])
def test_one_map_of_stride_16_and_the_last_stage_on_each_region(backbone, heads):
    spec = BACKBONES[backbone]
    with torch.device("meta"):
        net = make_net(BACKBONE__NAME=backbone, MODEL__C4__HEADS=heads).eval()
        maps = net.backbone(torch.empty(1, 3, 64, 96))
        vectors = net.roi_heads.represent(torch.empty(5, spec.channels[2], 4, 4))
    assert {name: level.shape for name, level in maps.items()} == {"2": (1, spec.channels[2], 4, 6)}
    assert vectors.shape == (5, spec.stage_channels)
    assert (net.roi_heads.reid_head is None) == (heads == "shared")
    assert net.rpn.head.cls_logits.out_channels == 2 * 3  # two sizes of three shapes


@pytest.mark.parametrize("dataset", ["cuhk_sysu", "prw"])
@pytest.mark.parametrize("kind", ["base", "ddps"])
def test_the_published_size(dataset, kind):
    with torch.device("meta"):
        cfg = load_cfg(FOLDER / dataset / f"mobilenet_v3_large_c4_{kind}.yaml")
        counts = profile_model.parameters(build_net(cfg, num_pids=1, pretrained=False))
    assert counts["all"] == sum(counts.values()) - counts["all"]
    assert 5.3e6 < counts["all"] < 5.5e6 and counts["neck"] == 0


def test_a_region_is_what_the_plain_formula_says():
    """Detection and both depths of an embedding equal RoIAlign, stage and maximum as plain
    formulas."""
    net = make_net().eval()
    image, box = torch.rand(3, 64, 128), torch.tensor([[16.0, 0, 80, 64]])
    (found,) = net.embed([image], [box])
    level = net.backbone(net.transform([image])[0].tensors)["2"]
    heads = net.roi_heads
    pooled = heads.box_roi_pool({"2": level}, [box], [(64, 128)])
    assert pooled.shape == (1, CHANNELS, 4, 4)
    stage = heads.reid_head.stage(pooled)
    depths = pooled.amax((2, 3)), stage.amax((2, 3))
    joined = [heads.embedding_head.pooled(depths[0]), heads.embedding_head.fc(depths[1])]
    torch.testing.assert_close(found, nn.functional.normalize(torch.cat(joined, 1)))
    first_bin = level[0, :, :2, 1:3].mean((1, 2))  # of the size of a pixel, between four pixels
    torch.testing.assert_close(pooled[0, :, 0, 0], first_bin, atol=1e-5, rtol=0)


@pytest.mark.parametrize("heads", ["double", "shared"])
@pytest.mark.parametrize("checkpointed", [True, False])
def test_gradients_reach_every_weight(heads, checkpointed):
    options = {"BACKBONE__FREEZE": False, "BACKBONE__CHECKPOINT": checkpointed}
    net = make_net(MODEL__C4__HEADS=heads, **options).train()
    sum(net(*batch()).losses.values()).backward()
    assert [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None] == []
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    total = sum(float(gradient.square().sum()) for gradient in gradients)
    again = make_net(MODEL__C4__HEADS=heads, BACKBONE__FREEZE=False).train()
    sum(again(*batch()).losses.values()).backward()
    expected = sum(float(p.grad.square().sum()) for p in again.parameters() if p.grad is not None)
    assert total == pytest.approx(expected, rel=1e-4)


def test_other_regions_leave_running_statistics_as_they_are():
    """As those of a cached teacher, which are not the sampled ones."""
    net = make_net().train()
    outputs = net.forward_train(*batch())
    before = {name: value.clone() for name, value in net.named_buffers()}
    boxes = [boxes + 3 for boxes in outputs.proposals.boxes]
    other = net.on_proposals(outputs, replace(outputs.proposals, boxes=boxes))
    assert not other.class_logits.equal(outputs.class_logits)
    assert all(value.equal(before[name]) for name, value in net.named_buffers())


def test_both_heads_start_as_the_backbones_last_stage(tmp_path):
    """The ImageNet weights initialise the backbone and both copies of the last stage, including its
    last convolution."""
    whole = mobilenet_v3_large()
    torch.save(whole.state_dict(), tmp_path / "imagenet.pth")
    net = make_net(BACKBONE__NAME="mobilenet_v3_large", BACKBONE__WEIGHTS=tmp_path / "imagenet.pth")
    parts = [(part, i) for i, part in enumerate(BACKBONES["mobilenet_v3_large"].stage)]
    state = net.state_dict()
    for head in ("box_head", "reid_head"):
        for part, number in parts:
            for name, value in whole.features[int(part)].state_dict().items():
                assert value.equal(state[f"roi_heads.{head}.stage.{number}.{name}"])
    cut = {k: v for k, v in whole.state_dict().items() if not k.startswith("features.16.")}
    torch.save(cut, tmp_path / "cut.pth")
    with pytest.raises(UserError, match="weights of mobilenet_v3_large.*expected 16.0.weight"):
        make_net(BACKBONE__NAME="mobilenet_v3_large", BACKBONE__WEIGHTS=tmp_path / "cut.pth")


def test_rows_of_a_region_are_kept_apart():
    """Turning a region upside down changes the embedding only with "rows"; mirroring it never."""
    torch.manual_seed(0)
    pooled = torch.rand(3, CHANNELS, 4, 4)
    for maxima, equal in (("region", True), ("rows", False)):
        net = make_net(MODEL__C4__MAXIMA=maxima).eval()
        embed = net.roi_heads.embedding_head
        fc = torch.rand(3, embed.fc[0].in_features)
        expected = embed(pooled, fc)[0]
        assert torch.allclose(embed(pooled.flip(3), fc)[0], expected)
        assert torch.allclose(embed(pooled.flip(2), fc)[0], expected) == equal
        assert len(net.detect([torch.rand(3, 64, 96)])[0].boxes) > 0


def test_a_narrow_rpn_has_narrow_weights():
    wide, narrow = make_net(), make_net(MODEL__C4__RPN_CHANNELS=12)
    assert narrow.rpn.head.conv[0][0].weight.shape == (12, CHANNELS, 3, 3)
    assert wide.rpn.head.conv[0][0].weight.shape == (CHANNELS, CHANNELS, 3, 3)
    assert len(narrow.eval().detect([torch.rand(3, 64, 96)])[0].boxes) > 0


@pytest.mark.parametrize(
    "key, value",
    [
        ("MODEL.NECK", "pan"),
        ("MODEL.C4.HEADS", "triple"),
        ("MODEL.C4.MAXIMA", "columns"),
        ("MODEL.C4.POOL_SIZE", 2),
        ("MODEL.C4.RPN_CHANNELS", -1),
        ("MODEL.ANCHOR_SIZES", "[]"),
    ],
)
def test_bad_values_name_their_key(key, value):
    with pytest.raises(UserError, match=f"^{key}: expected .* found") as error:
        build_net(load_cfg(None, pairs(TINY | C4 | {key: value})), num_pids=1)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="^MODEL.ANCHOR_SIZES: expected 5"):
        load_cfg(None, ["MODEL.ANCHOR_SIZES", "[16, 32]"])  # with an FPN


# --- distillation ---------------------------------------------------------------------------------

FPN = {"MODEL__NECK": "fpn", "MODEL__ANCHOR_SIZES": "[8, 16, 24, 32, 48]"}
PAIRS = {  # the form of the student, and of the teacher
    "C4 and FPN": ({}, FPN),
    "FPN and C4": (FPN, {}),
    "C4 and C4": ({}, {}),
}


@pytest.mark.parametrize("name", PAIRS)
def test_terms_compare_the_maps_of_equal_stride(name):
    """Each term of a C4 and an FPN network has a loss and gradients; DFD uses only level "2"."""
    terms = {"DISTILLER__TERMS": ALL_TERMS}
    cfg, teacher_cfg = (
        load_cfg(None, pairs(settings(BACKBONE__NAME=backbone, **form, **terms)))
        for backbone, form in zip(("resnet18_x05", "resnet18"), PAIRS[name])
    )
    torch.manual_seed(0)
    student, teacher = build_net(cfg, 4), build_net(teacher_cfg, 4)
    distiller = build_distiller(cfg, student, teacher, teacher_cfg).train()
    assert list(distiller.terms["dfd"].levels) == list(distiller.terms["pkd"].align) == [c4.LEVEL]
    assert list(distiller.terms["reviewkd"].fusions) == [c4.LEVEL]
    seen = student.forward_train(*batch())
    with torch.no_grad():
        other = teacher.forward_teacher(seen)
    assert seen.features[c4.LEVEL].shape[2:] == other.features[c4.LEVEL].shape[2:]
    for term in distiller.terms.values():
        loss = term(seen, other)
        assert loss.isfinite() and loss > 0
        loss.backward(retain_graph=True)
        assert all(p.grad is not None for p in term.parameters())
    sizes, targets = seen.images.image_sizes, seen.targets
    masks = [
        dfd.foreground_mask(t["boxes"], size, seen.features[c4.LEVEL].shape[2:])
        for t, size in zip(targets, sizes)
    ]
    level = distiller.terms["dfd"].levels[c4.LEVEL]
    maps = seen.features[c4.LEVEL], other.features[c4.LEVEL]
    alone = level(*maps, torch.stack(masks), cfg.DISTILLER.DFD.TEMPERATURE)
    torch.testing.assert_close(distiller.terms["dfd"](seen, other), alone)


def test_terms_of_two_fpn_networks_use_every_level():
    cfg = get_cfg()
    cfg.DISTILLER.TERMS = ["dfd", "pkd", "reviewkd", "hint"]
    terms = build_terms(cfg, cfg)
    assert tuple(terms["dfd"].levels) == tuple(terms["hint"].regressors) == FPN_LEVELS
    assert list(terms["reviewkd"].fusions) == ["pool", "3", "2", "1", "0"]
    assert [f.attention is None for f in terms["reviewkd"].fusions.values()] == [True] + 4 * [False]


# --- programs that use networks -------------------------------------------------------------------


def people(net: Network, image: torch.Tensor) -> tuple:
    (found,), (query,) = net.detect_and_embed([image], [BOXES])
    return found.boxes, found.scores, found.embeddings, query


def warmed(**changes: object) -> SearchNet:
    """Return the network after forward passes in train mode, so that folding its norms changes
    weights."""
    net = make_net(**changes).train()
    with torch.no_grad():
        for _ in range(3):
            net(*batch())
    return net.eval()


@pytest.mark.parametrize("heads", ["double", "shared"])
def test_checkpoints_weights_and_folded_norms_find_the_same_people(tmp_path, heads):
    net = warmed(MODEL__C4__HEADS=heads)
    cfg = load_cfg(None, pairs(settings(MODEL__C4__HEADS=heads)))
    image = torch.rand(3, 64, 112)
    expected = people(net, image)
    assert len(expected[0])
    torch.save({"model": net.state_dict(), "config": cfg.dump()}, tmp_path / "net.pth")
    weights = tmp_path / "net.safetensors"
    save_weights(net.state_dict(), cfg.dump(), None, weights, half=False)
    assert not any("oim" in name for name in load_weights(weights, "--ckpt")["model"])
    for path in (tmp_path / "net.pth", weights):
        loaded = Checkpoint.read(path).search_net(cfg, torch.device("cpu"))
        assert all(map(torch.equal, expected, people(loaded, image)))
        fast = optimize_for_inference(loaded)
        assert not any(type(m).__name__ == "BatchNorm2d" for m in fast.modules())
        for ours, theirs in zip(people(fast, image), expected):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    for key, value in (("MODEL.NECK", "fpn"), ("MODEL.C4.POOL_SIZE", 7)):
        sizes = {"MODEL.ANCHOR_SIZES": "[16, 32, 64, 128, 256]"}
        other = load_cfg(None, pairs(settings() | sizes | {key: value}))
        with pytest.raises(UserError, match=f"another model: .*{key} is"):
            Checkpoint.read(weights).search_net(other, torch.device("cpu"))


@pytest.mark.slow
def test_the_profile_counts_the_stage():
    """A shared stage is counted once. Each further region costs one pass of the stage."""
    values = settings(BACKBONE__NAME="resnet18_x05", MODEL__C4__HEADS="shared")
    cfg = FOLDER / "cuhk_sysu/resnet18_x05_base.yaml"
    few, more = (
        profile_model.measure(
            str(cfg), pairs(values | {"MODEL.RPN.POST_NMS_TOP_N": f"[20, {count}]"}), [1], 1
        )
        for count in (10, 20)
    )
    assert (few["proposals"], more["proposals"]) == (10, 20)
    convolutions = 4 * 128 * 256 * 9 + 3 * 4 * 256 * 256 * 9 + 4 * 128 * 256  # at 2×2 positions
    assert more["flops"] - few["flops"] == 10 * 2 * (convolutions + 256 * (2 + 8))


OPTIONS = ("MODEL.NECK", "none", "MODEL.C4.POOL_SIZE", "4", "MODEL.C4.MAXIMA", "rows")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Return a folder with data and an uninterrupted C4 run of one rank with fixed regions."""
    folder = tmp_path_factory.mktemp("c4")
    make_data(folder)
    run = Run(folder, "whole", *OPTIONS, sabotage=make_comparable)
    assert run.wait() == 0, run.text
    return folder


def die_in_the_sixth_step() -> None:
    """Apply `make_comparable`, and kill the process in its sixth step."""
    make_comparable()
    At("train_step", "step", 6, "before")()


@pytest.mark.slow
def test_killed_and_resumed_to_the_bit(whole, tmp_path):
    run = Run(whole, tmp_path, *OPTIONS, sabotage=die_in_the_sixth_step)
    assert run.wait() == -signal.SIGKILL, run.text
    run = Run(whole, tmp_path, *OPTIONS, "--resume", sabotage=make_comparable)
    assert run.wait() == 0, run.text
    assert differences(tmp_path, whole / "whole") == []


@pytest.mark.slow
def test_two_ranks_follow_one(whole, tmp_path):
    runs = run_ranks(2, whole, tmp_path, *OPTIONS, sabotage=make_comparable)
    assert [run.wait() for run in runs] == [0, 0], runs[0].text + runs[1].text
    first, second = (torch.load(tmp_path / f"rank{r}.pt") for r in (0, 1))
    assert same(first, second)
    assert largest_difference(torch.load(whole / "whole" / "rank0.pt"), first) < 1e-6
