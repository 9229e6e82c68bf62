"""The training job scripts: the commands that they run for one process and for several."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = """#!/bin/bash
if [ "$1" = -c ]; then exit $NO_GPU; fi
echo "$@"
"""
SYNC = "SOLVER.SYNC_BN True"


@pytest.fixture
def start(tmp_path: Path):
    """Return a function start(script, arguments, NPROC, number of GPUs).

    It returns the command line with which Python is started.
    """
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    files = [*sorted(ROOT.glob("requirements*.txt")), ROOT / "constraints.txt"]
    installed = b"".join(path.read_bytes() for path in files)
    (tmp_path / ".ddps-requirements.txt").write_bytes(installed)

    def call(script: str, arguments: str, nproc: str, gpus: bool) -> tuple[int, str]:
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        own = {"PATH": path, "VIRTUAL_ENV": str(tmp_path), "NO_GPU": str(int(not gpus))}
        own |= {"NPROC": nproc} if nproc else {}
        ran = subprocess.run(
            ["bash", ROOT / script, *arguments.split()],
            env=own,
            capture_output=True,
            text=True,
        )
        return ran.returncode, " ".join(ran.stdout.split()) + ran.stderr

    return call


def test_defaults(start):
    base = "train_base.py --cfg configs/cuhk_sysu/resnet50_base.yaml"
    assert start("job_train_base.sh", "", "", True) == (0, base)
    ddps = "train_ddps.py --cfg a.yaml --resume SEED 3"
    assert start("job_train_ddps.sh", "a.yaml --resume SEED 3", "", True) == (0, ddps)


@pytest.mark.parametrize(
    "arguments, nproc, gpus, sync",
    [
        ("SEED 3", "4", True, True),
        ("SEED 3", "1", True, False),
        ("SEED 3", "4", False, False),
        ("DEVICE cpu SEED 3", "4", True, False),
    ],
)
def test_several_gpus_join_their_norms(start, arguments, nproc, gpus, sync):
    ranks = f"-m tools.ranks --standalone --nproc_per_node={nproc}"
    rest = f"{SYNC} {arguments}" if sync else arguments
    code, line = start("job_train_base.sh", f"a.yaml {arguments}", nproc, gpus)
    assert (code, line) == (0, f"{ranks} train_base.py --cfg a.yaml {rest}")


def test_a_wrong_number_of_processes(start):
    code, line = start("job_train_base.sh", "", "many", True)
    assert code == 2 and line.startswith("error: NPROC: expected")
