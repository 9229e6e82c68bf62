"""torch.hub gives the Searcher of a checkpoint, to a process that knows nothing of this folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.crowds import make_world

ROOT = Path(__file__).parent.parent
CODE = """
import sys, torch
root, folder = sys.argv[1:]
load = lambda ckpt: torch.hub.load(root, "person_search", source="local", cfg=folder + "/cfg.yaml",
                                   ckpt=folder + ckpt, overrides=["DEVICE", "cpu"])
searcher = load("/everyone.pth")
picture = folder + "/query.jpg"
people = searcher.detect([picture])[0]
wanted = searcher.embed(picture, people.boxes[:1])
print(len(people.boxes), *wanted.shape, round(float(wanted.norm()), 3))
try:
    load("/missing.pth")
except Exception as error:
    print(error)
"""


@pytest.mark.slow
def test_hub_gives_the_searcher(tmp_path: Path) -> None:
    folder = make_world(tmp_path)
    line = [sys.executable, "-c", CODE, str(ROOT), str(folder)]
    ran = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    people, missing = ran.stdout.splitlines()
    assert people == "5 1 16 1.0", ran.stderr
    assert missing == f"--ckpt {folder}/missing.pth: no such file"
