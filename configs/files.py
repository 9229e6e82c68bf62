"""A config file and the ones under it: a YAML mapping whose `_BASE_` names another, from the
folder of the file that names it (as in detectron2). What a file says stands over its base.
"""

from pathlib import Path

import yaml

from utils.errors import UserError

BASE = "_BASE_"


def read_config(path: Path, above: tuple[Path, ...] = ()) -> dict:
    """The values of the file at `path` over those of its bases, nested, without `_BASE_`.

    above: the files that led here. Raises UserError for a missing or unreadable file, what is not
    a YAML mapping, and bases that lead in a circle.
    """
    where = "--cfg" if not above else f"{above[-1]}: {BASE}"
    if not path.is_file():
        raise UserError(f"{where} {path}: no such file")
    if path.resolve() in [one.resolve() for one in above]:
        raise UserError(f"{where} {path}: a circle of bases")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{where} {path}: not a YAML config ({reason})") from None
    if not isinstance(values, dict):
        found = type(values).__name__
        raise UserError(f"{where} {path}: not a YAML config (expected a mapping, found {found})")
    base = values.pop(BASE, None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise UserError(f"{path}: {BASE}: expected the path of a config, found {base!r}")
    return _over(read_config(path.parent / base, (*above, path)), values)


def _over(below: dict, values: dict) -> dict:
    """`values` over `below`, mapping by mapping."""
    merged = below | values
    for key in below.keys() & values.keys():
        if isinstance(below[key], dict) and isinstance(values[key], dict):
            merged[key] = _over(below[key], values[key])
    return merged
