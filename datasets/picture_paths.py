"""The paths of the images of an annotation file, in the spellings of different tools."""

import os
from urllib.parse import unquote

INSIDE = ("", "images", "{split}", "images/{split}", "data")  # folders of pictures


def spellings(name: str) -> list[str]:
    """Return a name as it stands, with Windows' backslashes as slashes, and with its %20
    decoded."""
    forward = name.replace("\\", "/")
    return list(dict.fromkeys([name, forward, unquote(forward)]))


def picture_paths(names: list[str], root: str, split: str) -> list[str]:
    """Return the path of each picture: in the folder of INSIDE where most of them lie, else in the
    first one where it lies. Those of pictures that are nowhere are in `root`."""
    folders = [
        os.path.normpath(os.path.join(root, inside.format(split=split))) for inside in INSIDE
    ]
    found: dict[str, list[str | None]] = {}
    for folder in dict.fromkeys(folders):
        found[folder] = [_inside(folder, name) for name in names]
        if None not in found[folder]:
            break
    order = sorted(found.values(), key=lambda paths: paths.count(None))
    return [
        next((path for path in places if path), os.path.join(root, name))
        for name, *places in zip(names, *order)
    ]


def _inside(folder: str, name: str) -> str | None:
    if not os.path.isdir(folder):
        return None
    paths = (os.path.join(folder, spelling) for spelling in spellings(name))
    return next((path for path in paths if os.path.exists(path)), None)
