"""Every program prints its --help, also without docstrings (python -OO)."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.default_network import split_overrides

ROOT = Path(__file__).parent.parent
PROGRAMS = [path.stem for path in sorted((ROOT / "tools").glob("*.py")) if path.stem != "__init__"]
OTHERS = {"ranks"}  # the arguments are torchrun's
CODE = """
import importlib, sys
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    try:
        importlib.import_module(f"tools.{name}").main()
    except SystemExit as end:
        print(name, end.code, file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.parametrize("optimized", [[], ["-OO"]])
def test_help_of_all_programs(optimized: list[str]):
    names = [name for name in PROGRAMS if name not in OTHERS]
    command = [sys.executable, *optimized, "-c", CODE, *names]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert [line.split() for line in ran.stderr.splitlines()] == [[name, "0"] for name in names]
    assert ran.stdout.count("usage: ") == len(names)


def test_a_file_may_have_the_name_of_a_config_key(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert split_overrides(["SEED", "3", "a.jpg"]) == (["a.jpg"], ["SEED", "3"])
    (tmp_path / "SEED").mkdir()
    words = ["SEED", "a.jpg", "DEVICE", "cpu"]
    assert split_overrides(words) == (["SEED", "a.jpg"], ["DEVICE", "cpu"])
