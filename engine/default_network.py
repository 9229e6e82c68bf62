"""The network of an inference program: its options on the command line, and the default network."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from configs.defaults import get_cfg, load_cfg, with_overrides
from configs.ranges import flatten
from configs.values import put
from engine.checkpoint import Checkpoint
from utils.errors import UserError

DEFAULT = Path(__file__).resolve().parents[1] / "weights" / "person_search_small.safetensors"
# The part of a network's own config that describes the network, not its training.
OWN = ("BACKBONE.", "MODEL.", "INPUT.MIN_SIZE", "INPUT.MAX_SIZE")


def add_network_options(parser: ArgumentParser) -> None:
    """Add --cfg and --ckpt, the first arguments of `network_of`."""
    parser.add_argument("--cfg", metavar="FILE", help="YAML config (default: the one in --ckpt)")
    parser.add_argument(
        "--ckpt",
        metavar="FILE",
        help="checkpoint, exported weights or .onnx file (default without --cfg: "
        f"weights/{DEFAULT.name}, if it exists)",
    )


def parse_sources(parser: ArgumentParser, kind: Callable[[str], Any] = str) -> Namespace:
    """Parse the arguments of a program whose positional arguments are `sources`.

    Args:
        kind: converts each source.

    Returns:
        The arguments. The pairs KEY VALUE among the sources are in `overrides`.

    Raises:
        UserError: if a source is empty.
    """
    args = parser.parse_intermixed_args()
    sources, args.overrides = split_overrides(args.sources)
    args.sources = [kind(source) for source in sources]
    return args


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate sources from pairs KEY VALUE.

    A file or folder that has the name of a config key is a source.

    Raises:
        UserError: if a source is empty.
    """
    keys, sources, overrides = flatten(get_cfg()), [], []
    rest = iter(words)
    for word in rest:
        if word in keys and not Path(word).exists():
            overrides += [word, *([value] if (value := next(rest, None)) is not None else [])]
        elif not word.strip():
            raise UserError(f"SOURCE: expected a path, found {word!r}")
        else:
            sources.append(word)
    return sources, overrides


def network_of(
    cfg_path: str | Path | None,
    ckpt: str | Path | None,
    overrides: Sequence[str] = (),
    option: str = "--ckpt",
) -> tuple[CfgNode, Checkpoint]:
    """Return the config and the checkpoint that a program uses for inference.

    Args:
        cfg_path: --cfg; None: the config that the checkpoint contains.
        ckpt: --ckpt; None, without --cfg: the network in weights/, if that file exists.
        overrides: KEY VALUE pairs.
        option: the name of `ckpt` in messages.

    Raises:
        UserError: if a config is given without a checkpoint, a path is empty, or a file or value
            cannot be used.
    """
    for name, path in (("--cfg", cfg_path), (option, ckpt)):
        if path is not None and not str(path).strip():  # an unset shell variable
            raise UserError(f"{name}: expected a path, found {path!r}")
    if cfg_path is not None:
        if ckpt is None:
            raise UserError(f"--cfg {cfg_path}: expected --ckpt FILE with it, found none")
        return load_cfg(cfg_path, overrides), Checkpoint.read(ckpt, option)
    if ckpt is None and not DEFAULT.is_file():
        raise UserError(
            f"--ckpt: expected FILE, found none; there is no default network, {DEFAULT}"
        )
    checkpoint, cfg = Checkpoint.read(ckpt or DEFAULT, option), get_cfg()
    for key, value in flatten(checkpoint.cfg).items():
        if key.startswith(OWN):
            put(cfg, key, value, f"{checkpoint.where}: ")
    cfg.BACKBONE.WEIGHTS = cfg.MODEL.WEIGHTS = ""
    return with_overrides(cfg, overrides), checkpoint
