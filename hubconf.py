"""torch.hub's door: torch.hub.load(PATH, "person_search", source="local", cfg=F, ckpt=F)."""

from collections.abc import Sequence

dependencies = [
    "torch",
    "torchvision",
    "yacs",
    "yaml",
    "numpy",
    "scipy",
    "sklearn",
    "PIL",
    "safetensors",
    "matplotlib",
    "tabulate",
    "tqdm",
]


def person_search(cfg: str, ckpt: str, overrides: Sequence[str] = ()):
    """The Searcher of a checkpoint (engine.search.searcher), with detect, embed and search.

    cfg: YAML config; ckpt: checkpoint of that config; overrides: KEY VALUE KEY VALUE ... of it, as
    ["DEVICE", "cpu"]. Raises UserError where they do not fit.
    """
    from configs.defaults import load_cfg  # torch.hub puts this folder on the path for the call
    from engine.search.searcher import Searcher

    return Searcher.load(load_cfg(cfg, overrides), ckpt)
