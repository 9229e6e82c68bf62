"""Import of packages that not all users need."""

import importlib
from types import ModuleType

from utils.errors import UserError


def optional(package: str, what: str, requirements: str) -> ModuleType:
    """Import a package and return it.

    Args:
        package: its name, as in an import statement.
        what: the option or file that needs it.
        requirements: the file that lists it.

    Raises:
        UserError: if it cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{what}: needs the package {package.split('.')[0]} ({error}); install it with "
            f"pip install -r {requirements}"
        ) from None
