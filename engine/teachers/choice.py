"""Which teachers a config selects, and which of their outputs are cached."""

from yacs.config import CfgNode

from configs.ranges import flatten
from models.distill import reads_of
from utils.errors import UserError

REID_TEACHER = "DISTILLER.REID_TEACHER"
TORCHVISION = "torchvision:"  # before the name of a detector of torchvision
# Keys that select a cached teacher -> the output that is cached.
CACHED_OUTPUTS = {
    REID_TEACHER: "embeddings",
    "DISTILLER.CD.CACHED": "embeddings",
    "DISTILLER.LD.CACHED": "class_logits",
}


def reid_teachers(cfg: CfgNode) -> list[str]:
    """Return the values of DISTILLER.REID_TEACHER, one or several."""
    value = cfg.DISTILLER.REID_TEACHER
    return ([value] if value else []) if isinstance(value, str) else list(value)


def cached_reads(cfg: CfgNode) -> set[str]:
    """Return what the terms of a config read from the cache: "embeddings", "class_logits"."""
    node, cached = cfg.DISTILLER, set()
    if node.CD.CACHED or reid_teachers(cfg):
        cached.add("embeddings")
    return (cached | ({"class_logits"} if node.LD.CACHED else set())) & reads_of(node.TERMS)


def needs_checkpoint(cfg: CfgNode) -> bool:
    """Return whether the terms of a config need DISTILLER.TEACHER_CKPT."""
    foreign = {"embeddings"} if reid_teachers(cfg) else set()
    return bool(reads_of(cfg.DISTILLER.TERMS) - foreign)


def check_caching(cfg: CfgNode) -> None:
    """Check that values of the config do not contradict each other.

    Raises:
        UserError: if they do.
    """
    node, reads = cfg.DISTILLER, reads_of(cfg.DISTILLER.TERMS)
    values = flatten(cfg)
    for key, wanted in CACHED_OUTPUTS.items():
        if values[key] and wanted not in reads:
            terms = "cd or rkd" if wanted == "embeddings" else "ld or kd"
            raise UserError(f"{key}: expected {terms} in DISTILLER.TERMS, found {node.TERMS}")
    if node.CD.CACHED and reid_teachers(cfg):
        raise UserError(
            f"DISTILLER.CD.CACHED: expected False with {REID_TEACHER}, whose embeddings are always "
            "cached; found True"
        )
    if node.TEACHER_AMP and reads and reads == cached_reads(cfg):
        raise UserError(
            "DISTILLER.TEACHER_AMP: expected '' if all outputs of the teacher are cached, found "
            f"{node.TEACHER_AMP}"
        )
    if node.LD.CACHED and "crop" in cfg.INPUT.AUGMENT:
        raise UserError(
            "DISTILLER.LD.CACHED True: expected whole pictures, since the cached regions are of "
            "whole pictures; found crop in INPUT.AUGMENT"
        )
