"""Distillation terms, found by name: each is one file with a pure loss and a `Term` module.

`Term(student_channels=, teacher_channels=, **options)` takes the options of DISTILLER.<NAME> other
than WEIGHT; `Term.forward(student: ForwardOutputs, teacher: ForwardOutputs)` returns a
scalar that the caller weights. A term's parameters are trained and saved beside the student.
"""

import pkgutil
from collections.abc import Sequence
from importlib import import_module

from torch import nn

from utils.errors import UserError

FPN_LEVELS = ("0", "1", "2", "3")  # without "pool", which is "3" at every second place


def known_terms() -> list[str]:
    """The names that DISTILLER.TERMS may hold: the files beside this one."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def check_terms(names: Sequence[str]) -> None:
    """UserError naming the first of DISTILLER.TERMS that there is not."""
    for name in names:
        if name not in known_terms():
            raise UserError(
                f"DISTILLER.TERMS: expected names out of {', '.join(known_terms())}, found {name}"
            )


def make_term(name: str, student_channels: int, teacher_channels: int, options: dict) -> nn.Module:
    """The term of `models/distill/<name>.py`.

    Args:
        name: as in DISTILLER.TERMS.
        student_channels, teacher_channels: of the FPN maps.
        options: keyword arguments of the term, by lower-cased config key.
    """
    module = import_module(f"{__name__}.{name}")
    return module.Term(
        student_channels=student_channels, teacher_channels=teacher_channels, **options
    )


def align_channels(student_channels: int, teacher_channels: int) -> nn.Module:
    """1×1 convolution from the student's to the teacher's channels; nothing where they agree."""
    if student_channels == teacher_channels:
        return nn.Identity()
    return nn.Conv2d(student_channels, teacher_channels, kernel_size=1)


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> str:
    """`value`, if it is one of `choices`; else a UserError that names the config key."""
    if value not in choices:
        raise UserError(f"{key}: expected {' or '.join(choices)}, found {value}")
    return value
