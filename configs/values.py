"""Config values from YAML files and command lines; each has the type of its default."""

import ast
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from yacs.config import CfgNode

from configs.ranges import flatten
from utils.errors import UserError
from utils.names import at_home, shown

PATHS = (  # "~" is expanded, NUL is rejected
    "OUTPUT_DIR",
    "INPUT.DATA_ROOT",
    "BACKBONE.WEIGHTS",
    "MODEL.WEIGHTS",
    "DISTILLER.TEACHER_CKPT",
    "DISTILLER.CACHE_FILE",
    "EVAL_QUERY_FILE",
)
FOLDERS = ("OUTPUT_DIR", "INPUT.DATA_ROOT")  # an empty text would mean the current folder
# A Python literal, or else a YAML value: `true`, `[dfd, ld]`, plain words.
READERS = (ast.literal_eval, yaml.safe_load)
GALLERIES = "EVAL_GALLERY_SIZE"  # a number, a name, or a list of them
TEACHERS = "DISTILLER.REID_TEACHER"  # a path or timm:NAME, or a list of them


def merge(
    cfg: CfgNode, values: Mapping, where: str, unknown: bool = False, above: str = ""
) -> None:
    """Replace values of `cfg` by nested `values`.

    Args:
        where: the beginning of error messages.
        unknown: whether unknown keys, of other versions, are ignored.
        above: the prefix of the keys.

    Raises:
        UserError: naming the first key that is unknown or whose value has another type.
    """
    for name, value in values.items():
        key = above + (name if isinstance(name, str) and name.isidentifier() else shown(name))
        if not isinstance(name, str) or name not in cfg:
            if not unknown:
                raise UserError(f"{where}{no_such_key(key, name, cfg, above)}")
        elif not isinstance(cfg[name], CfgNode):
            cfg[name] = fitted(key, cfg[name], value, where)
        elif isinstance(value, Mapping):
            merge(cfg[name], value, where, unknown, f"{key}.")
        else:
            raise UserError(f"{where}{key}: expected keys under it, found {shown(value)}")


def no_such_key(key: str, name: object, cfg: CfgNode, above: str = "") -> str:
    if isinstance(name, bool):
        return f"{key}: no such key (YAML reads NO, off, yes ... as {name}: put it in quotes)"
    close = difflib.get_close_matches(key, [f"{above}{known}" for known in flatten(cfg)], 1)
    return f"no such key: {key}" + (f" (did you mean {close[0]}?)" if close else "")


def put(cfg: CfgNode, key: str, value: Any, where: str) -> None:
    """Replace the value of `key`, "A.B.C".

    Raises:
        UserError: if the key is unknown or the value has another type.
    """
    values = flatten(cfg)
    if key not in values:
        if any(known.startswith(f"{key}.") for known in values):
            said = f"{key}: expected one of the keys under it"
        else:
            said = no_such_key(key if key.isprintable() else shown(key), key, cfg)
        raise UserError(f"{where}{said}")
    node, *names = [cfg, *key.split(".")]
    for name in names[:-1]:
        node = node[name]
    node[names[-1]] = fitted(key, values[key], value, where)


def override(cfg: CfgNode, key: str, text: str) -> None:
    """Replace the value of `key`, "A.B.C", by a value given as text on a command line.

    Raises:
        UserError: if the key is unknown or the value has another type.
    """
    is_text = isinstance(flatten(cfg).get(key), str) and key not in (GALLERIES, TEACHERS)
    value = read_value(text, [ast.literal_eval] if is_text else READERS)
    if is_text and not isinstance(value, str):
        value = text  # the name of a folder may be 2024
    put(cfg, key, value, "override ")


def read_value(text: str, readers: Sequence[Callable[[str], Any]]) -> Any:
    """Return the value of the first reader that accepts the text, or else the text itself."""
    for read in readers:
        try:
            return read(text)
        except Exception:  # parsers raise many types for a text of another form
            continue
    return text


def fitted(key: str, default: Any, value: Any, where: str) -> Any:
    """Convert `value` to the type of the default.

    Raises:
        UserError: if it has another type.
    """
    kind = type(default)
    if isinstance(value, tuple):
        value = list(value)
    if key == GALLERIES:
        items = value if isinstance(value, list) else [value]
        if items and all(isinstance(i, int | str) and not isinstance(i, bool) for i in items):
            return value
        expected = "a size (a number or a name) or a list of them, as [50, 100]"
    elif key == TEACHERS:
        items = value if isinstance(value, list) else [value]
        if all(isinstance(item, str) and "\0" not in item for item in items):
            found = [at_home(item) for item in items]
            return found if isinstance(value, list) else found[0]
        expected = "a path or timm:NAME, or a list of them"
    elif kind is float:
        if (number := _number(value)) is not None:
            return number
        expected = "a number"
    elif type(value) is kind:
        if key not in PATHS:
            return value
        if "\0" in value:
            expected = "a path, without NUL characters"
        elif value or key not in FOLDERS:
            return at_home(value)
        else:
            expected = "a path"
    elif kind is list:
        expected = f'a list, written as "[{shown(value)}]"'
    else:
        expected = {bool: "True or False", int: "a whole number", str: "text (in quotes)"}[kind]
    raise UserError(f"{where}{key}: expected {expected}, found {shown(value)}")


def _number(value: Any) -> float | None:
    """Convert integers, floats and texts such as 1e-3 (which YAML reads as text) to a float. Return
    None for anything else."""
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return None
    return None
