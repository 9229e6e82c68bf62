"""Convert a checkpoint of the published release, and its config, to the format of this project.

    python -m tools.convert_release --cfg config.yaml --ckpt epoch_19.pth --out runs/released

The sizes of the network are read from the tensors. Values that the release keeps in its code come
from this project's config for the same dataset and backbone, all others from the release's config.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from configs.defaults import load_cfg
from configs.files import parse
from configs.ranges import check_ranges, flatten
from configs.values import put
from models.backbones import BACKBONES
from models.build import build_net, build_terms
from tools.export.release_format import (
    CONFIG_KEYS,
    PRW_TABLE,
    convert_state,
    rename_adapter,
    renumber_prw,
)
from utils.arguments import nonempty, program_parser
from utils.errors import UserError, no_memory, reason_of, run_main
from utils.files import expect_new, folder_beside, load_file, read_text, save_file, write_text
from utils.states import incompatibilities

DATASET_FOLDERS = {"CUHK-SYSU": "cuhk_sysu", "PRW": "prw"}
LUT = "roi_heads.oim.lut"
HEAD = "roi_heads.oim.head"  # position in the queue


def split_model(content: dict, where: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the state dicts of the network and of the terms, with this project's names.

    Args:
        content: {"model": state dict} or, for a distilled student,
            {"model": {"student": state dict, "fgd": {level: state dict}}}.
        where: beginning of messages.

    Raises:
        UserError: if `content` has another form.
    """
    model = content.get("model")
    if "config" in content or not isinstance(model, dict):
        raise UserError(
            f"{where}: expected a checkpoint of the release, a dict with the key model and "
            f"without config; found {', '.join(map(str, content)) or 'no keys'}"
        )
    fgd = {}
    if "student" in model:
        model = dict(model)
        state, fgd = model.pop("student"), model.pop("fgd", {})
        if model:
            raise UserError(
                f"{where}: expected the keys student and fgd, found also "
                f"{', '.join(map(str, model))}"
            )
        model = state
    parts = {"the network": model} | {f"fgd {level}": adapter for level, adapter in fgd.items()}
    for name, part in parts.items():
        if not isinstance(part, dict) or not all(isinstance(v, Tensor) for v in part.values()):
            raise UserError(f"{where}: {name}: expected a state dict of tensors")
    terms = {
        f"dfd.levels.{level}.{rename_adapter(key)}": value
        for level, adapter in fgd.items()
        for key, value in adapter.items()
    }
    return convert_state(model), terms


def model_sizes(state: dict[str, Tensor], where: str) -> dict[str, object]:
    """Return the config values that follow from the shapes of the tensors: backbone, norm and
    widths.

    Raises:
        UserError: if tensors are missing or belong to another network.
    """
    try:
        channels = tuple(
            state[f"backbone.fpn.inner_blocks.{i}.0.weight"].shape[1] for i in range(4)
        )
        heads = [state[f"roi_heads.embedding_head.{part}.0.weight"] for part in ("pooled", "fc")]
        sizes = {
            "BACKBONE.FROZEN_BN": not any(
                k.startswith("backbone.body.") and k.endswith("num_batches_tracked") for k in state
            ),
            "MODEL.FPN_CHANNELS": state["backbone.fpn.inner_blocks.0.0.weight"].shape[0],
            "MODEL.FC_SIZE": state["roi_heads.box_head.fc6.weight"].shape[0],
            "MODEL.EMBEDDING_SIZE": sum(head.shape[0] for head in heads),
            "MODEL.OIM.QUEUE_SIZE": state["roi_heads.oim.cq"].shape[0],
        }
        state[LUT].shape[0]
    except (KeyError, IndexError) as error:
        raise UserError(
            f"{where}: expected a person search network of the release, found none; missing or "
            f"different: {error.args[0]}"
        ) from None
    names = [name for name, spec in BACKBONES.items() if spec.channels == channels]
    if not names:
        known = ", ".join(f"{name} {spec.channels}" for name, spec in BACKBONES.items())
        raise UserError(f"{where}: expected FPN inputs of one of {known}; found {channels}")
    return {"BACKBONE.NAME": names[0]} | sizes


def read_release_config(path: str) -> dict[str, object]:
    """Read a YAML config of the release as {"A.B.C": value}."""
    return flatten(parse(read_text(Path(path), "--cfg"), f"--cfg {path}: "))


def make_config(
    release: dict[str, object], sizes: dict[str, object], distilled: bool, out: str, where: str
) -> CfgNode:
    """Return this project's config of the dataset and backbone, with the values of the release.

    Args:
        release: values of the release's config, by key.
        sizes: values that `model_sizes` returns.
        distilled: whether the checkpoint is of a distilled student.
        out: OUTPUT_DIR.
        where: beginning of messages.
    """
    dataset = release.get("INPUT.DATASET", "CUHK-SYSU")  # the release's default
    if not isinstance(dataset, str) or dataset not in DATASET_FOLDERS:
        raise UserError(
            f"{where}: INPUT.DATASET: expected {' or '.join(DATASET_FOLDERS)}; found {dataset}"
        )
    folder = Path(__file__).resolve().parents[1] / "configs" / DATASET_FOLDERS[dataset]
    base, ddps = (folder / f"{sizes['BACKBONE.NAME']}_{kind}.yaml" for kind in ("base", "ddps"))
    cfg = load_cfg(str(ddps if distilled and ddps.is_file() else base))
    cfg.defrost()
    values = {ours: release[key] for key, ours in CONFIG_KEYS.items() if key in release}
    if dataset == "PRW":  # it has one gallery; the release's config may contain another value
        values.pop("EVAL_GALLERY_SIZE", None)
    for key, value in (values | sizes | {"OUTPUT_DIR": out}).items():
        put(cfg, key, value, f"{where}: ")
    try:
        check_ranges(cfg)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return cfg


def check_fit(cfg: CfgNode, state: dict[str, Tensor], terms: dict[str, Tensor], where: str) -> None:
    """Check that the tensors have the shapes of the config.

    Raises:
        UserError: with all tensors of other shapes.
    """
    with torch.device("meta"):  # shapes only, no memory for the values
        wrong = incompatibilities(build_net(cfg, len(state[LUT]), pretrained=False), state)
        if terms:
            masks = [v for k, v in terms.items() if k.endswith("student_context.mask.weight")]
            teacher = cfg.clone()
            teacher.MODEL.FPN_CHANNELS = masks[0].shape[1] if masks else cfg.MODEL.FPN_CHANNELS
            wrong += incompatibilities(nn.ModuleDict(build_terms(cfg, teacher)), terms)
    if wrong:
        raise UserError(f"{where}: {len(wrong)} tensors do not fit: {'; '.join(sorted(wrong))}")


@contextmanager
def well_formed(where: str) -> Iterator[None]:
    """Convert errors within the context that are due to an unexpected structure of a file.

    Raises:
        UserError: for each of them.
    """
    try:
        yield
    except (
        *(ArithmeticError, AssertionError, AttributeError, LookupError),
        *(RuntimeError, TypeError, ValueError),
    ) as error:
        if no_memory(error):
            raise
        raise UserError(f"{where}: unexpected structure ({reason_of(error)})") from None


def convert(cfg_path: str, ckpt_path: str, out: str) -> None:
    """Write out/config.yaml and out/<name of ckpt_path>, and print what was converted."""
    where, folder = f"--ckpt {ckpt_path}", Path(out)
    release = read_release_config(cfg_path)
    target = folder / Path(ckpt_path).with_suffix(".pth").name
    expect_new(folder, "--out")
    content = load_file(ckpt_path, "--ckpt")
    with well_formed(where):
        state, terms = split_model(content, where)
        sizes = model_sizes(state, where)
        state.setdefault(HEAD, torch.zeros((), dtype=torch.int64))
        cfg = make_config(release, sizes, "student" in content["model"], out, f"--cfg {cfg_path}")
        reordered = cfg.INPUT.DATASET == "PRW" and len(state[LUT]) == PRW_TABLE
        if reordered:
            state[LUT] = renumber_prw(state[LUT])
        check_fit(cfg, state, terms, where)
    if reordered:
        print(
            "PRW: the rows of the OIM table are reordered to the labels of this project; "
            "identities 483 and 932 have no row in the release and start empty"
        )
    checkpoint = {"model": state, "terms": terms, "config": cfg.dump(), "step": 0}
    if isinstance(content.get("epoch"), int):  # the last epoch's index -> finished epochs
        checkpoint["epoch"] = content["epoch"] + 1
    with folder_beside(folder, "--out") as made:
        write_text(cfg.dump(), made / "config.yaml")
        save_file(checkpoint, made / target.name)
    ignored = [key for key in release if key not in CONFIG_KEYS]
    if ignored:
        print(f"ignored keys of {cfg_path}: {', '.join(ignored)}")
    print("the release does not save the position in the OIM queue: it starts at 0")
    print(
        f"{cfg.BACKBONE.NAME}: {len(state)} tensors of the network, {len(terms)} of DFD, "
        f"{len(state[LUT])} identities, queue of {cfg.MODEL.OIM.QUEUE_SIZE}"
    )
    print(f"wrote {folder / 'config.yaml'} and {target}")


def main() -> None:
    parser = program_parser(__doc__)
    for option, kind, text in (
        ("--cfg", "FILE", "the release's config.yaml"),
        ("--ckpt", "FILE", "the release's checkpoint"),
        ("--out", "FOLDER", "new folder for config.yaml and checkpoint"),
    ):
        parser.add_argument(option, required=True, type=nonempty, metavar=kind, help=text)
    args = parser.parse_args()
    convert(args.cfg, args.ckpt, args.out)


if __name__ == "__main__":
    run_main(main)
