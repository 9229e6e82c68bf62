"""Imports point downwards only, as CONTRIBUTING.md says."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "utils": set(),
    "configs": {"utils"},
    "datasets": {"utils", "configs"},
    "models": {"utils", "configs"},
    "engine": {"utils", "configs", "datasets", "models"},
    "tools": {"utils", "configs", "datasets", "models", "engine"},
}


def imported(path: Path) -> set[str]:
    """Return the top-level packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", BELOW)
def test_imports_point_downwards(package):
    ours = {*BELOW, "tests", "train_base", "train_ddps", "demo"}
    files = sorted((ROOT / package).rglob("*.py"))
    above = {str(path.relative_to(ROOT)): imported(path) & ours for path in files}
    allowed = BELOW[package] | {package}
    assert files and {name: used for name, used in above.items() if used - allowed} == {}
