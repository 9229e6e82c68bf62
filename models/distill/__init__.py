"""Distillation terms by name. Each term is one file with a pure loss function and a `Term` module.

`Term(student_channels=, teacher_channels=, levels=, **options)` takes the options of
DISTILLER.<NAME> except WEIGHT. `Term.forward(student: ForwardOutputs, teacher: ForwardOutputs)`
returns a scalar, which the caller weights. `Term.mean_over` is what the loss is a mean over, a key
of TrainingOutput.counts. The parameters of a term are trained and saved with the student.
"""

import pkgutil
from collections.abc import Sequence
from importlib import import_module

from torch import nn

from utils.errors import UserError

FPN_LEVELS = ("0", "1", "2", "3")  # without "pool", which subsamples "3"


def known_terms() -> list[str]:
    """The names that DISTILLER.TERMS may contain: those of the other files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def check_terms(names: Sequence[str], key: str = "DISTILLER.TERMS") -> None:
    """Check the names of terms in the config value of `key`.

    Raises:
        UserError: if a term does not exist.
    """
    for name in names:
        if name not in known_terms():
            raise UserError(
                f"{key}: expected names out of {', '.join(known_terms())}, found {name}"
            )


def make_term(
    name: str,
    student_channels: int,
    teacher_channels: int,
    options: dict,
    levels: Sequence[str] = FPN_LEVELS,
) -> nn.Module:
    """Build the term of `models/distill/<name>.py`.

    Args:
        name: as in DISTILLER.TERMS.
        student_channels: of the student's maps.
        teacher_channels: of the teacher's maps.
        options: keyword arguments of the term, by lower-case config key.
        levels: the maps that both networks have, shallow to deep. Maps of equal stride have equal
            names; the only map of the C4 form is "2", as the FPN level of stride 16.
    """
    module = import_module(f"{__name__}.{name}")
    return module.Term(
        student_channels=student_channels,
        teacher_channels=teacher_channels,
        levels=levels,
        **options,
    )


def align_channels(student_channels: int, teacher_channels: int) -> nn.Module:
    """A 1×1 convolution from the student's to the teacher's channels; the identity if both are
    equal."""
    if student_channels == teacher_channels:
        return nn.Identity()
    return nn.Conv2d(student_channels, teacher_channels, kernel_size=1)


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> str:
    """Return `value` after checking it.

    Raises:
        UserError: if it is not one of `choices`; the message names the config key.
    """
    if value not in choices:
        raise UserError(f"{key}: expected {' or '.join(choices)}, found {value}")
    return value
