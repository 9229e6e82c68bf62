"""Fixtures that several test modules share: a tiny dataset, a tiny network, programs in this
process."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from configs.defaults import load_cfg
from datasets import load_dataset
from datasets.base import SearchDataset
from models.build import build_net
from models.search_net import SearchNet
from tests.annotations import write_cuhk, write_image, write_protocol
from tests.tiny import TINY, pairs
from utils.errors import run_main

hypothesis.settings.register_profile(  # the same examples in every run, and no time limit
    "suite",
    derandomize=True,
    deadline=None,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.function_scoped_fixture,
    ],
)
hypothesis.settings.load_profile("suite")

A, B, C = (5, 6, 20, 30), (30, 8, 16, 30), (2, 2, 30, 40)
SIZES = {
    "g1.jpg": (64, 48),
    "g2.jpg": (48, 64),
    "g3.jpg": (90, 48),
    "g4.jpg": (64, 48),
    "g5.jpg": (64, 48),
    "g6.jpg": (48, 64),
}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Restore the number of threads, which changes the last digits of results in later tests."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a dataset.

    It has six gallery images of three sizes, one of them without people, and three queries, two of
    them in the same image.
    """
    path = tmp_path_factory.mktemp("cuhk")
    images = {
        "s1.jpg": [A],
        "g1.jpg": [A, B],
        "g2.jpg": [C],
        "g3.jpg": [A, B],
        "g4.jpg": [C],
        "g5.jpg": [(1, 1, 0, 4)],
        "g6.jpg": [A],
    }
    queries = [
        ("g1.jpg", A, [("g2.jpg", C), ("g3.jpg", A), ("g5.jpg", None)]),
        ("g1.jpg", B, [("g3.jpg", B), ("g6.jpg", None)]),
        ("g2.jpg", C, [("g4.jpg", C), ("g2.jpg", C), ("g1.jpg", None), ("g5.jpg", None)]),
    ]
    longer = [(name, box, [*listed, ("g6.jpg", None)]) for name, box, listed in queries]
    write_cuhk(path, images, list(SIZES), [[("s1.jpg", A)]], {50: queries, 100: longer})
    write_protocol(path / "annotation/test/subset/Occlusion.mat", "Occlusion1", queries[1:2])
    for name, size in SIZES.items():
        write_image(path / "Image/SSM" / name, size)
    return path


@pytest.fixture(scope="module")
def dataset(root: Path) -> SearchDataset:
    return load_dataset("CUHK-SYSU", str(root))


@pytest.fixture(scope="module")
def net() -> SearchNet:
    torch.manual_seed(0)
    return build_net(load_cfg(None, pairs(TINY)), num_pids=3).eval()


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function program(main, *arguments) that runs a program in this process and returns
    (exit code, stdout, stderr)."""

    def call(main: Callable[[], int | None], *arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            run_main(main)
        return end.value.code, *capsys.readouterr()

    return call
