"""Config files: YAML mappings whose `_BASE_` is the path of another file, relative to their own
folder, as in detectron2. The values of a file replace those of its base.
"""

from pathlib import Path
from typing import Any

import yaml

from utils.errors import UserError
from utils.files import read_text
from utils.names import at_home, shown

BASE = "_BASE_"
MAX_DEPTH, MAX_VALUES = 20, 10_000  # of a config


def read_config(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[Path, dict]]:
    """Read the file at `path` and its bases.

    Args:
        above: the files whose bases led to this one.

    Returns:
        The path and the nested values, without `_BASE_`, of each file, bases first.

    Raises:
        UserError: if a file is missing, unreadable or no YAML mapping, or the bases form a circle.
    """
    where = "--cfg" if not above else f"{above[-1]}: {BASE}"
    values = parse(read_text(path, where), f"{where} {path}: ")
    if path.resolve() in [one.resolve() for one in above]:
        raise UserError(f"{where} {path}: the bases form a circle")
    base = values.pop(BASE, None)
    if base is None:
        return [(path, values)]
    if not isinstance(base, str):
        raise UserError(f"{path}: {BASE}: expected the path of a config, found {shown(base)}")
    below = path.parent / at_home(base)
    return [*read_config(below, (*above, path)), (path, values)]


class _UniqueKeyLoader(yaml.SafeLoader):
    """A YAML loader that rejects duplicate keys; YAML's own loader silently takes the last."""

    def construct_mapping(self, node, deep=False):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"line {node.start_mark.line + 1}: {shown(twice)} is given twice")
        return super().construct_mapping(node, deep)


def parse(text: str, where: str) -> dict[Any, Any]:
    """Parse a YAML text that is a mapping.

    Args:
        where: the beginning of error messages.

    Raises:
        UserError: if the text is no YAML mapping.
    """
    try:
        values = yaml.load(text, _UniqueKeyLoader)
        _check_size(values)
    except Exception as error:  # YAML's own, and those of numbers, dates and nesting
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where}not YAML ({reason[:200]})") from None
    if not isinstance(values, dict):
        raise UserError(f"{where}not YAML (expected KEY: value lines, found {shown(values)})")
    return values


def _check_size(values: Any) -> None:
    """Limit the size of a config, which aliases can expand without bound.

    Raises:
        ValueError: if it is nested too deeply or has too many values.
    """
    todo, seen = [(values, 0)], 0
    while todo:
        value, depth = todo.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_VALUES:
            raise ValueError("nested too deeply, too long, or contained in itself")
        inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        if isinstance(inner, list | tuple | set):
            todo += [(one, depth + 1) for one in inner]
