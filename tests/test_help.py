"""Every program prints its --help, also without docstrings (python -OO)."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.default_network import split_overrides
from tools import index_gallery

ROOT = Path(__file__).parent.parent
OTHERS = {"__init__", "ranks"}  # the arguments of ranks are torchrun's
PROGRAMS = sorted({path.stem for path in (ROOT / "tools").glob("*.py")} - OTHERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_help(name: str, program: Callable, monkeypatch: pytest.MonkeyPatch):
    module = importlib.import_module(f"tools.{name}")
    for docstring in (module.__doc__, None):
        monkeypatch.setattr(module, "__doc__", docstring)
        code, out, err = program(module.main, "--help")
        assert (code, err) == (0, "") and out.startswith("usage: ")
        assert docstring is None or docstring.split("\n")[0] in out


def test_an_empty_kind_of_an_index_is_not_the_default(program: Callable, tmp_path: Path):
    code, _, err = program(index_gallery.main, "--index", tmp_path / "people", "--kind", "", "x")
    assert code == 2 and "--kind" in err


@pytest.mark.parametrize(
    "name, option",
    [
        ("bench_loader", "--images"),
        ("benchmark", "--out"),
        ("convert_release", "--out"),
        ("export_onnx", "--check"),
        ("export_onnx", "--int8"),
        ("export_onnx", "--out"),
        ("export_weights", "--evaluated"),
        ("export_weights", "--out"),
        ("prelabel", "--out"),
        ("prelabel", "--truth"),
        ("show_results", "--out"),
    ],
)
def test_an_empty_path_is_refused(name: str, option: str, program: Callable):
    """An unset shell variable does not mean the current folder."""
    code, _, err = program(importlib.import_module(f"tools.{name}").main, option, "")
    assert code == 2 and f"argument {option}: " in err


def test_a_file_may_have_the_name_of_a_config_key(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert split_overrides(["SEED", "3", "a.jpg"]) == (["a.jpg"], ["SEED", "3"])
    (tmp_path / "SEED").mkdir()
    words = ["SEED", "a.jpg", "DEVICE", "cpu"]
    assert split_overrides(words) == (["SEED", "a.jpg"], ["DEVICE", "cpu"])
