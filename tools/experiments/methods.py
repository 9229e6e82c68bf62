"""The distillation methods. This is the only place where a method is defined.

A method is written as ALONE, as one name of METHODS, or as several names joined by "+".
"""

from dataclasses import dataclass

from models.distill import known_terms
from utils.errors import UserError

ALONE = "none"  # the student without a teacher


@dataclass(frozen=True)
class Method:
    """A part of a method.

    Attributes:
        terms: for DISTILLER.TERMS.
        options: further KEY VALUE pairs of the config.
        title: for tables.
    """

    terms: tuple[str, ...]
    options: tuple[str, ...] = ()
    title: str = ""

    @property
    def name(self) -> str:
        """A name that is the same for methods with the same effect, such as "fgd" and "dfd"."""
        return "_".join(["+".join(self.terms) or ALONE, *self.options[1::2]])


METHODS = {term: Method((term,), title=term.upper()) for term in known_terms()} | {
    ALONE: Method((), title="alone"),
    "ddps": Method(("dfd", "ld", "cd"), title="DDPS"),
    "fgd": Method(("dfd",), title="FGD"),
    "dkd": Method(("ld",), title="DKD"),
    "reviewkd": Method(("reviewkd",), title="ReviewKD"),
    "hint": Method(("hint",), title="hint (FitNet)"),
    "cd_contrastive": Method(
        ("cd",), ("DISTILLER.CD.FORM", "contrastive"), title="CD, contrastive"
    ),
    "kd_standardized": Method(
        ("kd",), ("DISTILLER.KD.LOGITS", "standardized"), title="LD, standardized logits"
    ),
    "dkd_standardized": Method(
        ("ld",), ("DISTILLER.LD.LOGITS", "standardized"), title="DKD, standardized logits"
    ),
}


def parse_method(text: str) -> list[Method]:
    """Return the parts of a method such as "pkd+ld+cd".

    Raises:
        UserError: for an unknown name.
    """
    names = text.split("+")
    if unknown := [name for name in names if name not in METHODS]:
        raise UserError(
            f"--methods {text}: expected {', '.join(METHODS)}, or several of them joined "
            f"by +; found {unknown[0]}"
        )
    if ALONE in names and len(names) > 1:
        raise UserError(f"--methods {text}: expected {ALONE} without other names")
    return [METHODS[name] for name in names]


def title_of(text: str) -> str:
    """Return the title of a method in tables: "pkd+ld+cd" is "PKD + LD + CD"."""
    return " + ".join(part.title for part in parse_method(text))
