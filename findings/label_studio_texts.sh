#!/usr/bin/env bash
# label-studio-sdk 2.1.2 (the converter of Label Studio's exports): a text that belongs to one region
# of an image (perRegion="true"), such as a person's name, is not in the COCO export at all. JSON_MIN
# and CSV contain it, but not which region it belongs to.
#
# Output seen (Linux x86_64, Python 3.11), the second box being Anna's:
#   COCO: 2 boxes, "Anna" in the file: False
#   JSON_MIN: 2 boxes, person_id: 'Anna'; the same if the first one is hers: True
# Exit code 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip install --quiet --disable-pip-version-check --target packages label-studio-sdk==2.1.2
PYTHONPATH=packages python3 - <<'PYTHON'
import json
import sys
from pathlib import Path

from label_studio_sdk.converter import Converter

SETUP = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
<Label value="person"/></RectangleLabels><TextArea name="person_id" toName="image" perRegion="true"/>
</View>"""


def region(id, x, name=None):
    place = {"x": x, "y": 10, "width": 20, "height": 40, "rotation": 0}
    about = {"id": id, "to_name": "image", "original_width": 64, "original_height": 48}
    label = place | {"rectanglelabels": ["person"]}
    box = {"type": "rectanglelabels", "from_name": "label", "value": label}
    text = {"type": "textarea", "from_name": "person_id", "value": place | {"text": [name]}}
    return [about | row for row in (box, text)[: 2 if name else 1]]


def export(form, regions):
    made = {"id": 1, "completed_by": 1, "was_cancelled": False, "created_at": "2026-01-01"}
    task = {"id": 1, "data": {"image": "a.jpg"}, "annotations": [made | {"result": regions}]}
    Path("tasks.json").write_text(json.dumps([task]))
    Converter(SETUP, ".", download_resources=False).convert("tasks.json", form, form, is_dir=False)
    return Path(form, "result.json").read_text()


second = [*region("a", 10), *region("b", 60, "Anna")]
first = [*region("a", 10, "Anna"), *region("b", 60)]
coco = export("COCO", second)
minimal, other = (json.loads(export("JSON_MIN", regions))[0] for regions in (second, first))
same = [minimal[key] == other[key] for key in ("label", "person_id")]
boxes = len(json.loads(coco)["annotations"])
print(f'COCO: {boxes} boxes, "Anna" in the file:', "Anna" in coco)
print(f"JSON_MIN: {len(minimal['label'])} boxes, person_id: {minimal['person_id']!r}; "
      f"the same if the first one is hers: {all(same)}")
sys.exit(not (boxes == 2 and "Anna" not in coco and minimal["person_id"] == "Anna" and all(same)))
PYTHON
