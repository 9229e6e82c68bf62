#!/usr/bin/env bash
# Datumaro 1.13.12: in CVAT's XML for video a track ends with a box that is outside="1", which shows
# nobody. Exported as MOT, this box is like any other (flag 1, visibility 1), so that people have boxes
# after they have left; as COCO it is an annotation with attributes.outside, and the ids of
# annotations, which should be unique, repeat. In MOT, corners count from 0, MOTChallenge's from 1.
#
# Output seen (Linux x86_64, Python 3.11):
#   MOT, frame 3: 3,1,5.0,6.0,10.0,20.0,1,1,1.0
#   COCO: 4 boxes, of which 1 outside; ids [1, 2, 3, 1]
# Exit code 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip install --quiet --disable-pip-version-check --target packages datumaro==1.13.12
PYTHONPATH=packages python3 - <<'PYTHON'
import json
import sys
from pathlib import Path

import datumaro
import numpy as np
from PIL import Image


def box(frame, outside):
    corners = 'xtl="5" ytl="6" xbr="15" ybr="26"'
    return f'<box frame="{frame}" outside="{outside}" occluded="0" keyframe="1" {corners}/>'


Path("cvat/images").mkdir(parents=True)
for frame in range(4):
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(f"cvat/images/frame_{frame:06d}.png")
Path("cvat/annotations.xml").write_text(
    "<annotations><version>1.1</version><meta><task><size>4</size><mode>interpolation</mode>"
    "<start_frame>0</start_frame><stop_frame>3</stop_frame><labels><label><name>person</name></label>"
    "</labels><original_size><width>64</width><height>48</height></original_size></task></meta>"
    f'<track id="0" label="person">{box(0, 0)}{box(1, 0)}{box(2, 1)}</track>'
    f'<track id="1" label="person">{box(3, 0)}</track></annotations>'
)
dataset = datumaro.Dataset.import_from("cvat", "cvat")
dataset.export("mot", "mot_seq_gt", save_media=True)
dataset.export("coco", "coco_instances", save_media=True)
lines = Path("mot/gt/gt.txt").read_text().split()
coco = json.loads(next(Path("coco/annotations").glob("*.json")).read_text())["annotations"]
outside = [row for row in coco if row["attributes"]["outside"]]
ids = [row["id"] for row in coco]
print("MOT, frame 3:", *(line for line in lines if line.startswith("3,")))
print(f"COCO: {len(coco)} boxes, of which {len(outside)} outside; ids {ids}")
left = [line for line in lines if line.startswith("3,1,5.0,6.0,10.0,20.0,1,1,1")]
sys.exit(not (left and len(outside) == 1 and len(set(ids)) < len(ids)))
PYTHON
