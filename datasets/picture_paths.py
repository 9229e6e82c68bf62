"""The paths of the images of an annotation file, which tools write in different ways."""

import os
from urllib.parse import unquote

INSIDE = ("", "images", "{split}", "images/{split}", "data")  # folders of pictures


def spellings(name: str) -> list[str]:
    """Return a name as it is, with Windows' backslashes replaced by slashes, and with "%20"
    decoded."""
    forward = name.replace("\\", "/")
    return list(dict.fromkeys([name, forward, unquote(forward, errors="surrogateescape")]))


def picture_paths(names: list[str], root: str, split: str) -> list[str]:
    """Return the path of each picture.

    A picture is expected in that folder of INSIDE that contains most of the pictures, and otherwise
    in the first folder that contains it. A picture that no folder contains gets a path in `root`.
    """
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
