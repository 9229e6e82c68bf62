#!/usr/bin/env bash
# torchvision 0.29.1 (torch 2.14.1): batched_nms is meant to give the same result whatever numbers the
# categories have. On a CPU with up to 1,000 boxes it moves the boxes of category c by c times the largest
# coordinate and then calls nms once. If the categories are large numbers (ids of images, tracks or
# people), float32 rounds the moved boxes: overlapping boxes are kept, and others are dropped although
# they overlap nothing. With more than 1,000 boxes it treats each category apart, and is right, so a test
# on many boxes does not show the difference. Consecutive numbers (torch.unique with return_inverse) and
# boxes in double precision avoid it.
#
# Output seen (Linux x86_64, Python 3.11), boxes of 20 x 50 pixels in 1900 x 1070 pixels, one category,
# compared with nms, which knows no categories:
#    500 boxes, category       1: nms keeps  478, kept wrongly  0, dropped wrongly 0
#    500 boxes, category   10000: nms keeps  478, kept wrongly  4, dropped wrongly 1
#    500 boxes, category 1000000: nms keeps  478, kept wrongly 18, dropped wrongly 3
#   1200 boxes, category 1000000: nms keeps 1114, kept wrongly  0, dropped wrongly 0
#    500 boxes, category 1000000, double precision: kept wrongly 0, dropped wrongly 0
# Exit code 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 numpy
venv/bin/python - <<'PYTHON'
import sys

import torch
from torchvision.ops import batched_nms, nms

draw = torch.Generator().manual_seed(0)


def differences(boxes, scores, category):
    """Return how many boxes nms keeps, and how many batched_nms keeps or drops unlike it."""
    expected = set(nms(boxes, scores, 0.5).tolist())
    categories = torch.full((len(boxes),), category)
    found = set(batched_nms(boxes, scores, categories, 0.5).tolist())
    return len(expected), len(found - expected), len(expected - found)


wrong = {}
for count, categories in ((500, (1, 10_000, 1_000_000)), (1200, (1_000_000,))):
    corners = torch.rand(count, 2, generator=draw) * torch.tensor([1880.0, 1020])
    boxes = torch.cat([corners, corners + torch.tensor([20.0, 50])], 1)
    scores = torch.rand(count, generator=draw)
    for category in categories:
        kept, *wrong[count, category] = differences(boxes, scores, category)
        print(
            f"{count:4} boxes, category {category:7}: nms keeps {kept:4}, "
            "kept wrongly {:2}, dropped wrongly {}".format(*wrong[count, category])
        )
    if count == 500:
        _, *wrong["double"] = differences(boxes.double(), scores.double(), categories[-1])
line = " 500 boxes, category 1000000, double precision: kept wrongly {}, dropped wrongly {}"
print(line.format(*wrong["double"]))
right = [wrong[500, 1], wrong[1200, 1_000_000], wrong["double"]]
described = all(some == [0, 0] for some in right) and all(
    min(wrong[500, category]) > 0 for category in (10_000, 1_000_000)
)
sys.exit(0 if described else 1)
PYTHON
