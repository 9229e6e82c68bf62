"""Packages that only some users need."""

import importlib
from types import ModuleType

from utils.errors import UserError


def optional(package: str, what: str, requirements: str) -> ModuleType:
    """The imported package; UserError where it cannot be. what: the option or file that needs it;
    requirements: the file that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{what}: needs the package {package.split('.')[0]} ({error}); install it with "
            f"pip install -r {requirements}"
        ) from None
