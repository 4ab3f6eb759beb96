"""A user's own object, named `package.module:object`: found and fingerprinted without running it.

Planning must not execute a user's module (it may import TensorFlow, or start something), so identity
comes from reading its source.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def fingerprint(factory: str) -> dict[str, Any]:
    """What identifies the object: `{"version": n, "source": "declared …"}` or `{"source": sha256}`.

    A class attribute or, for a function, a module-level constant `VERSION = <integer>` is taken at its
    word; otherwise the object's own source text counts, so that editing it changes every id it is in.
    Raises ValueError, saying what was looked for, when module or object cannot be found.
    """
    if not _NAME.fullmatch(factory):
        raise ValueError(f'found "{factory}"; "package.module:object" is allowed')
    module, _, name = factory.partition(":")
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f'cannot find the module "{module}": {error}') from None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise ValueError(f'cannot find the Python module "{module}" from here')
    source = Path(spec.origin).read_text(encoding="utf-8")
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"{spec.origin}, line {error.lineno}: {error.msg}") from None
    node = _defined(tree.body, name)
    if node is None:
        defined = sorted(n for n in _names(tree.body) if not n.startswith("_"))
        raise ValueError(f'"{module}" defines no "{name}" at its top level; it defines: {", ".join(defined)}')
    scope = node.body if isinstance(node, ast.ClassDef) else tree.body
    version = _defined(scope, "VERSION")
    if isinstance(version, ast.Assign | ast.AnnAssign) and isinstance(version.value, ast.Constant):
        value = version.value.value
        if isinstance(value, int) and not isinstance(value, bool):
            return {"version": value, "source": f"declared by {name}"}
    text = ast.get_source_segment(source, node) or ""
    return {"source": hashlib.sha256(text.encode()).hexdigest()}


def _targets(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _names(body: list[ast.stmt]) -> list[str]:
    return [name for node in body for name in _targets(node)]


def _defined(body: list[ast.stmt], name: str) -> ast.stmt | None:
    """The last definition of `name` in a body, as Python would have it."""
    return next((node for node in reversed(body) if name in _targets(node)), None)
