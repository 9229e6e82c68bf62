"""Distillation terms by name. Each term is one file with a pure loss function and a `Term` module.

`Term(student_channels=, teacher_channels=, levels=, **options)` takes the options of
DISTILLER.<NAME> except WEIGHT and those of the cache; ld and kd also take `cached`, and cd takes
`lengths`, which models.build derives from the config. `Term.forward(student: ForwardOutputs,
teacher: ForwardOutputs)` returns a scalar, which the caller weights. `Term.mean_over` is a key of
TrainingOutput.counts, over which the loss is a mean, or BATCH for a `BatchTerm`. `Term.reads` names
the teacher's output that a term uses: "features" (the default), "class_logits" or "embeddings"; the
latter two may come from a cache. The parameters of a term are trained and saved with the student.
"""

import pkgutil
from collections.abc import Sequence
from importlib import import_module

from torch import Tensor, nn

from models.outputs import BATCH, ForwardOutputs
from utils.errors import UserError

FPN_LEVELS = ("0", "1", "2", "3")  # without "pool", which subsamples "3"


class BatchTerm(nn.Module):
    """A term that relates people to each other, or uses statistics over the batch.

    Its loss is not a mean over the losses of parts of a batch. It is a function of rows: tensors
    whose first dimension counts people, proposals or parts, and whose rows may be in any order. The
    caller concatenates the rows of all parts and ranks.
    """

    mean_over = BATCH

    def rows(self, student: ForwardOutputs, teacher: ForwardOutputs) -> tuple[Tensor, ...]:
        """Return the rows of one part."""
        raise NotImplementedError

    def loss(self, rows: tuple[Tensor, ...], teacher: ForwardOutputs) -> Tensor:
        """Return the loss of the rows of the whole batch.

        Args:
            teacher: the teacher's pass over any part, for its tables.
        """
        raise NotImplementedError

    def forward(self, student: ForwardOutputs, teacher: ForwardOutputs) -> Tensor:
        """Return the loss of a batch that consists of one part."""
        return self.loss(self.rows(student, teacher), teacher)


def known_terms() -> list[str]:
    """Return the names that DISTILLER.TERMS may contain: those of the other files of this
    folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def check_terms(names: Sequence[str]) -> None:
    """Check the names of DISTILLER.TERMS.

    Raises:
        UserError: if a term does not exist.
    """
    for name in names:
        if name not in known_terms():
            raise UserError(
                f"DISTILLER.TERMS: expected names out of {', '.join(known_terms())}, found {name}"
            )


def reads_of(names: Sequence[str]) -> set[str]:
    """Return which teacher outputs the terms with these names read; see the module's docstring.

    Raises:
        UserError: if a term does not exist.
    """
    check_terms(names)
    terms = [import_module(f"{__name__}.{name}").Term for name in names]
    return {getattr(term, "reads", "features") for term in terms}


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
    """Return a 1×1 convolution from the student's to the teacher's channels; the identity if both
    are equal."""
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
