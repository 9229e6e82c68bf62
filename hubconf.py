"""The entry point of torch.hub: torch.hub.load(PATH, "person_search", source="local", cfg=, ckpt=).

The packages of this repository have common names (`datasets`, `models`, `utils`). They are
therefore imported below a private package, whatever `sys.modules` contains under these names, and
the entries of `sys.modules` with these names are left unchanged.
"""

import builtins
import hashlib
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

ROOT = os.path.dirname(os.path.realpath(__file__))
PACKAGES = ("configs", "datasets", "engine", "models", "utils")
PRIVATE = "ddps_" + hashlib.sha256(ROOT.encode()).hexdigest()[:8]  # one for each checkout

dependencies = [
    "torch",
    "torchvision",
    "yacs",
    "yaml",
    "numpy",
    "scipy",
    "PIL",
    "filelock",
    "safetensors",
    "tqdm",
]


def person_search(cfg: str | None = None, ckpt: str | None = None, overrides: Sequence[str] = ()):
    """Load a network as a Searcher (engine.search.searcher) with detect, embed and search.

    Args:
        cfg: YAML config; None: the one in the checkpoint.
        ckpt: its checkpoint; None, without cfg: the network in weights/, if that file exists.
        overrides: config values, KEY VALUE KEY VALUE ..., for example ["DEVICE", "cpu"].

    Raises:
        UserError: if a file or a value cannot be used.
    """
    cfg, ckpt = _import("engine.default_network").network_of(cfg, ckpt, overrides)
    return _import("engine.search.searcher").Searcher.load(cfg, ckpt)


def _import(name: str) -> ModuleType:
    """Import a module of this repository.

    If the packages in the process are this repository's, the module is one of them; otherwise it is
    imported below PRIVATE.
    """
    if all(_is_own(sys.modules.get(package)) for package in PACKAGES):
        return importlib.import_module(name)
    if PRIVATE not in sys.modules:
        package = ModuleType(PRIVATE)
        package.__path__ = [ROOT]
        sys.modules[PRIVATE] = package
        sys.meta_path.insert(0, _Finder())
    return importlib.import_module(f"{PRIVATE}.{name}")


def _is_own(module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and os.path.dirname(os.path.dirname(os.path.realpath(file))) == ROOT


class _Finder(MetaPathFinder):
    """A finder of the modules below PRIVATE."""

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if not fullname.startswith(PRIVATE + "."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec and type(spec.loader) is SourceFileLoader:
            spec.loader = _HubLoader(spec.loader.name, spec.loader.path)
        return spec


class _HubLoader(SourceFileLoader):
    """A loader that runs a module with an `__import__` of its own.

    Python takes a module's built-in functions from `__builtins__` among its globals, also for
    imports within functions.
    """

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__builtins__"] = vars(builtins) | {"__import__": _import_below}
        super().exec_module(module)


def _import_below(name, globals=None, locals=None, fromlist=(), level=0):
    """Import within this repository, where PACKAGES are those below PRIVATE."""
    top = name.partition(".")[0]
    if level or top not in PACKAGES:
        return builtins.__import__(name, globals, locals, fromlist, level)
    found = builtins.__import__(f"{PRIVATE}.{name}", globals, locals, fromlist)
    return found if fromlist else sys.modules[f"{PRIVATE}.{top}"]
