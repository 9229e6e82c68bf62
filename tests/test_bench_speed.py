"""tools.bench_speed: the peers' networks, ratios, and a run without the peers."""

from pathlib import Path

import pytest
import torch

from configs.defaults import load_cfg
from tests.tiny import TINY, pairs
from tools import bench_speed


def test_osnet_has_the_published_size() -> None:
    net = bench_speed.osnet_x025()
    assert net(torch.zeros(2, 3, 256, 128)).shape == (2, 512)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(203e3, rel=0.02)


def test_ratios_are_medians_over_the_rounds() -> None:
    rows = bench_speed.table({"a": [0.1, 0.2, 0.4], "b": [0.2, 0.2, 0.2]})
    assert rows[0] == ["a", 200.0, 100.0, 1.0, 1.0] and rows[1][3:] == [1.0, 1.0]
    clock = iter(range(100))
    times = bench_speed.measure({"a": list, "b": list}, 4, lambda: next(clock))
    assert times == {"a": [1] * 4, "b": [1] * 4}


@pytest.mark.slow
def test_students_in_pytorch(tmp_path: Path, program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_speed, "find_spec", lambda name: None)
    (tmp_path / "tiny_base.yaml").write_text(load_cfg(None, pairs(TINY)).dump())
    options = "--runtime", "pytorch", "--rounds", 1, "--sizes", "64x96", "--clock", "cpu"
    code, out, _ = program(bench_speed.main, "--cfg", tmp_path / "tiny_base.yaml", *options)
    assert code == 0 and "64x96" in out and "tiny" in out
    args = bench_speed.parse_args(["--cfg", "a", "--sizes", "3x4", "5x6", "MODEL.FC_SIZE", "64"])
    assert (args.cfg, args.sizes) == (["a"], [(3, 4), (5, 6)])
    assert args.overrides == ["MODEL.FC_SIZE", "64"]
    assert program(bench_speed.main, "--sizes", "3")[0] == 2
    code, _, err = program(bench_speed.main, "--runtime", "onnxruntime", "--bf16")
    assert code == 2 and err.count("\n") == 1
