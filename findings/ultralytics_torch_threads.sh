#!/usr/bin/env bash
# ultralytics 8.4.190 (torch 2.14.1): the first prediction of a model on the CPU sets PyTorch's number of
# threads for the whole process, to one less than the number of cores (at most 8, at least 1). Everything
# else in the process that uses PyTorch then runs with that number; a timing that compares a YOLO model with
# another network measures both with fewer threads than the caller has set. Importing the package and
# building a model do not change the number, and later predictions of the same model do not either.
#
# Output seen (Linux x86_64, 2 cores, Python 3.11):
#   set by the caller: 2, after the model was built: 2, after its first prediction: 1
#   set by the caller again: 2, after the second prediction: 2
# Exit code 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    torch==2.14.1 torchvision==0.29.1 opencv-python-headless==5.0.0.93 matplotlib pyyaml requests psutil
venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
    ultralytics==8.4.190 ultralytics-thop==2.2.3
YOLO_CONFIG_DIR="$folder" YOLO_AUTOINSTALL=0 venv/bin/python - <<'PYTHON'
import os
import sys

import numpy as np
import torch
from ultralytics import YOLO

expected = min(8, max(1, os.cpu_count() - 1))
given = expected + 1
picture = np.zeros((64, 64, 3), np.uint8)

torch.set_num_threads(given)
model = YOLO("yolo26n.yaml", verbose=False)
built = torch.get_num_threads()
model.predict(picture, imgsz=64, verbose=False)
first = torch.get_num_threads()
torch.set_num_threads(given)
model.predict(picture, imgsz=64, verbose=False)
second = torch.get_num_threads()
print(
    f"set by the caller: {given}, after the model was built: {built}, "
    f"after its first prediction: {first}"
)
print(f"set by the caller again: {given}, after the second prediction: {second}")
right = (built, first, second) == (given, expected, given)
sys.exit(0 if right else "the behaviour has changed")
PYTHON
