"""A config file and the ones under it: a YAML mapping whose `_BASE_` names another, from the
folder of the file that names it (as in detectron2). What a file says stands over its base.
"""

from pathlib import Path
from typing import Any

import yaml

from utils.errors import UserError
from utils.files import read_text
from utils.names import at_home, shown

BASE = "_BASE_"
DEEPEST, MOST = 20, 10_000  # levels and values of a config


def read_config(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[Path, dict]]:
    """The values of the file at `path`, nested and without `_BASE_`, after those of its bases.

    above: the files that led here. Raises UserError for a missing or unreadable file, what is not
    a YAML mapping, and bases that lead in a circle.
    """
    where = "--cfg" if not above else f"{above[-1]}: {BASE}"
    values = parse(read_text(path, where), f"{where} {path}: ")
    if path.resolve() in [one.resolve() for one in above]:
        raise UserError(f"{where} {path}: a circle of bases")
    base = values.pop(BASE, None)
    if base is None:
        return [(path, values)]
    if not isinstance(base, str):
        raise UserError(f"{path}: {BASE}: expected the path of a config, found {shown(base)}")
    below = path.parent / at_home(base)
    return [*read_config(below, (*above, path)), (path, values)]


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice: YAML's own takes the last and says nothing."""

    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"line {node.start_mark.line + 1}: {shown(twice)} is given twice")
        return super().construct_mapping(node, deep)


def parse(text: str, where: str) -> dict[Any, Any]:
    """The mapping that a YAML text is. where: what the line of a UserError starts with."""
    try:
        values = yaml.load(text, _Loader)
        _check_size(values)
    except Exception as error:  # YAML's own, and those of the numbers, dates and depths in it
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where}not a YAML config ({reason[:200]})") from None
    if not isinstance(values, dict):
        raise UserError(
            f"{where}not a YAML config (expected KEY: value lines, found {shown(values)})"
        )
    return values


def _check_size(values: Any) -> None:
    """ValueError for what no config is, and what aliases can make of a few lines."""
    todo, seen = [(values, 0)], 0
    while todo:
        value, depth = todo.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST:
            raise ValueError("nested too deep, too long, or within itself")
        inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        if isinstance(inner, list | tuple | set):
            todo += [(one, depth + 1) for one in inner]
