"""torch.hub returns the Searcher of a checkpoint, even beside packages of the same names."""

import subprocess
import sys
from pathlib import Path

import pytest

import hubconf
import utils
from tests.crowds import make_world

ROOT = Path(__file__).parent.parent
START = """
import sys, torch
root, folder = sys.argv[1:]
def load(ckpt="/everyone.pth"):
    return torch.hub.load(root, "person_search", source="local", cfg=folder + "/cfg.yaml",
                          ckpt=folder + ckpt, overrides=["DEVICE", "cpu"])
def found(searcher):
    return len(searcher.detect([folder + "/query.jpg"])[0].boxes)
"""
ALONE = """
before = set(sys.modules), list(sys.path)
searcher = load()
picture = folder + "/query.jpg"
people = searcher.detect([picture])[0]
wanted = searcher.embed(picture, people.boxes[:1])
print(len(people.boxes), *wanted.shape, round(float(wanted.norm()), 3))
new = set(sys.modules) - before[0]
print(len(new & {"configs", "datasets", "engine", "models", "utils"}), sys.path == before[1])
from datasets import Dataset
from models.yolo import Net
import utils
print(utils.helper())
try:
    load("/missing.pth")
except Exception as error:
    print(error)
"""
OTHERS_FIRST = """
import datasets, importlib, pickle, utils
from models.yolo import Net
ours = datasets, utils, sys.modules["models.yolo"]
searcher = load()
assert ours == (sys.modules["datasets"], sys.modules["utils"], sys.modules["models.yolo"])
assert utils.helper() == 1 and datasets.Dataset and not hasattr(datasets, "load_dataset")
private = type(searcher).__module__.partition(".")[0]
later = importlib.import_module(private + ".engine.onnx_net")
assert later.UserError.__module__ == private + ".utils.errors"
people = searcher.detect([folder + "/query.jpg"])[0]
assert type(pickle.loads(pickle.dumps(people))) is type(people)
print(len(people.boxes))
"""
THIS_FIRST = """
sys.path.insert(0, root)
from engine.search.searcher import Searcher
searcher = load()
assert type(searcher) is Searcher
print(found(searcher))
"""


def test_a_package_that_is_not_imported_is_not_the_repositorys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT / "tests" / "golden")  # as deep in the repository as "utils/NAME.py"
    assert hubconf._is_own(utils) and not hubconf._is_own(None)


def run(code: str, world: Path, cwd: Path) -> list[str]:
    line = [sys.executable, "-c", START + code, str(ROOT), str(world)]
    ran = subprocess.run(line, cwd=cwd, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """Return a folder with other modules named `utils`, `models` and `datasets`."""
    (tmp_path / "utils.py").write_text("def helper():\n    return 1\n")
    for package, module in (("models", "yolo"), ("datasets", "arrow")):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("class Dataset: ...\n")
        (tmp_path / package / f"{module}.py").write_text("class Net: ...\n")
    return tmp_path


@pytest.mark.slow
def test_hub_returns_the_searcher_and_leaves_imports_unchanged(world: Path, beside: Path) -> None:
    people, new, helper, missing = run(ALONE, world, beside)
    assert people == "5 1 16 1.0" and (new, helper) == ("0 True", "1")
    assert f"--ckpt {world}/missing.pth" in missing


@pytest.mark.slow
def test_packages_of_the_same_names_may_be_imported_before(world: Path, beside: Path) -> None:
    assert run(OTHERS_FIRST, world, beside) == ["5"]


@pytest.mark.slow
def test_the_repository_may_be_imported_before(world: Path, beside: Path) -> None:
    assert run(THIS_FIRST, world, beside) == ["5"]
