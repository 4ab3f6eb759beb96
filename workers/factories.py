"""A user's own object, named `package.module:object`: where it is defined, what identifies it, its import.

Planning must not execute a user's module (it may import TensorFlow, or start something), so it reads the
source. Workers import what planning has read, or say that they cannot. For both a module lies in the first of
the `places` that has it: beside the grid, then where the command runs; else wherever Python finds it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")

Identity = dict[str, Any]
"""`{"version": n, "source": "declared by …"}` or `{"source": sha256}`."""


@dataclass(frozen=True, slots=True)
class Factory:
    """Where an object of a user's is defined."""

    file: Path
    name: str


def find(factory: str, places: Sequence[str]) -> Factory:
    """Find the file that defines `package.module:object`; nothing is executed.

    Raises ValueError, saying what was looked for and where, when there is no such module, or when one in the
    places has the name of another that Python knows: to import either would be wrong for somebody.
    """
    if not _NAME.fullmatch(factory):
        raise ValueError(f'found "{factory}"; "package.module:object" is allowed')
    module, _, name = factory.partition(":")
    top, *below = module.split(".")
    importlib.invalidate_caches()  # a file may have been written a moment ago
    in_places = PathFinder.find_spec(top, list(places))
    own, other = _file(_below(in_places, below)), _elsewhere(top, in_places, places)
    if own and other:
        taken_by = other.origin or next(iter(other.submodule_search_locations or ()))
        raise ValueError(
            f'the module "{module}" in {own} has a name that is taken, by {taken_by}: rename yours'
        )
    file = own or _file(_below(other, below))
    if file is None:
        looked = " or ".join(places)
        raise ValueError(f'cannot find the Python module "{module}": not in {looked}, and not installed')
    return Factory(file, name)


def identity(factory: Factory) -> Identity:
    """What identifies the object.

    A class attribute or, for a function, a module-level constant `VERSION = <integer>` is taken at its
    word; otherwise the object's own source text counts, so that editing it changes every id it is in.
    Raises ValueError when the module does not define it.
    """
    source = factory.file.read_text(encoding="utf-8")
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"{factory.file}, line {error.lineno}: {error.msg}") from None
    name, node = factory.name, _defined(tree.body, factory.name)
    if node is None:
        defined = sorted(n for n in _names(tree.body) if not n.startswith("_"))
        raise ValueError(
            f'{factory.file} defines no "{name}" at its top level; it defines: {", ".join(defined)}'
        )
    scope = node.body if isinstance(node, ast.ClassDef) else tree.body
    version = _defined(scope, "VERSION")
    if isinstance(version, ast.Assign | ast.AnnAssign) and isinstance(version.value, ast.Constant):
        value = version.value.value
        if isinstance(value, int) and not isinstance(value, bool):
            return {"version": value, "source": f"declared by {name}"}
    text = ast.get_source_segment(source, node) or ""
    return {"source": hashlib.sha256(text.encode()).hexdigest()}


def needed(named: Iterable[str], places: Sequence[str], *, but: Iterable[str] = ()) -> dict[str, list[Path]]:
    """By place, the modules and packages there that objects of the user's come from, with all that these
    import of what lies there: a file or a folder each. What is imported by other means than by `import` is
    not seen, and names in `but` are left out.

    Raises ValueError as `find` does.
    """
    waiting = [factory.partition(":")[0].partition(".")[0] for factory in named if find(factory, places)]
    every: dict[str, list[Path]] = {}
    seen = {*waiting, *but}
    while waiting:
        top = waiting.pop()
        spec = PathFinder.find_spec(top, list(places))
        if spec is None or _elsewhere(top, spec, places):  # it is installed, and no business of ours
            continue
        for source in [spec.origin] if spec.origin else spec.submodule_search_locations or []:
            root = Path(source).parent if Path(source).name == "__init__.py" else Path(source)
            place = next(place for place in places if root.parent.samefile(place))
            every.setdefault(place, []).append(root)
            for file in [root] if root.is_file() else root.rglob("*.py"):
                new = _imported(file) - seen
                seen |= new
                waiting.extend(new)
    return every


# -- in a worker ------------------------------------------------------------------------------------------


class _OwnModules:
    """The first of Python's finders, for what lies in the places and has no name that is known elsewhere.

    Not by `sys.path`: first on it, a place would shadow installed packages and ours; last, it would go behind
    another place that Ray, PYTHONPATH or `python -m` have put there.
    """

    def __init__(self) -> None:
        self.places: tuple[str, ...] = ()
        self.found: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, list(self.places)) if path is None else None
        if spec is None or _elsewhere(name, spec, self.places):
            return None
        self.found.add(name)
        return spec


_OWN = _OwnModules()
_loaded: dict[str, tuple[Any, Identity]] = {}  # by factory: the object, and what identified it when imported


def look_in(places: Sequence[str]) -> None:
    """Make what lies in the places importable in this process, the first place first.

    What was imported for another grid, from other places, is forgotten.
    """
    _OWN.places = tuple(places)
    if _OWN not in sys.meta_path:
        sys.meta_path.insert(0, _OWN)
    importlib.invalidate_caches()
    for name in list(_OWN.found):
        _forget_if_elsewhere(name)


def load(factory: str, *, version: int | None = None, source: str | None = None) -> Any:
    """Import a user's object; with `source`, the one that planning has identified by `source` and `version`.

    Raises ImportError when another comes of it, a module of that name on this machine or an edited one, and
    ImportError or AttributeError when it cannot be found.
    """
    module, _, name = factory.partition(":")
    _forget_if_elsewhere(module.partition(".")[0])
    planned = {"source": source} if version is None else {"version": version, "source": source}
    if source and factory in _loaded:
        loaded, before = _loaded[factory]
        if before == planned:
            return loaded  # a file that has been edited since changes nothing in this process
        sys.modules.pop(module, None)
    imported = importlib.import_module(module)
    loaded = getattr(imported, name)
    file = getattr(imported, "__file__", None) or ""
    if source and file.endswith(".py"):
        try:
            found = identity(Factory(Path(file), name))
        except ValueError as error:
            raise ImportError(str(error)) from None
        if found != planned:
            raise ImportError(
                f'{file} does not hold the "{factory}" that was planned with: it has been edited since, or '
                "is another of that name; the same command plans anew"
            )
        _loaded[factory] = loaded, found
    return loaded


# -- modules and syntax trees -----------------------------------------------------------------------------


def _below(spec: ModuleSpec | None, parts: Sequence[str]) -> ModuleSpec | None:
    """The module of that path below a package, none of which is imported."""
    for part in parts:
        if spec is None:
            return None
        spec = PathFinder.find_spec(part, list(spec.submodule_search_locations or ()))
    return spec


def _file(spec: ModuleSpec | None) -> Path | None:
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _elsewhere(top: str, own: ModuleSpec | None, places: Sequence[str]) -> ModuleSpec | None:
    """What Python finds outside of the places under a top-level name, whatever has been imported already.

    As for Python itself, a module or package (`own`) goes before a folder that is none.
    """
    for finder in sys.meta_path:
        if finder is not _OWN and (spec := finder.find_spec(top, None)):
            outdone = own is not None and own.origin and not spec.origin
            return None if outdone or _lies_in(spec, places) else spec
    return None


def _lies_in(spec: ModuleSpec, places: Iterable[str]) -> bool:
    if spec.submodule_search_locations is not None:
        folders = {os.path.realpath(Path(folder).parent) for folder in spec.submodule_search_locations}
    elif spec.has_location and spec.origin:
        folders = {os.path.realpath(Path(spec.origin).parent)}
    else:  # it is built in
        return False
    return folders <= {os.path.realpath(place) for place in places}


def _forget_if_elsewhere(top: str) -> None:
    """Have a module of a user's imported anew where what is loaded came from another place."""
    spec, loaded = _OWN.find_spec(top), sys.modules.get(top)
    if loaded is None or _sources(spec) in ([], _sources(getattr(loaded, "__spec__", None))):
        return
    for module in [one for one in sys.modules if one == top or one.startswith(f"{top}.")]:
        del sys.modules[module]
    for factory in [one for one in _loaded if re.match(rf"{top}[.:]", one)]:
        del _loaded[factory]


def _sources(spec: ModuleSpec | None) -> list[str]:
    """The file of a module; the folders of a package without one."""
    if spec is None:
        return []
    paths = [spec.origin] if spec.origin else spec.submodule_search_locations or []
    return [os.path.realpath(path) for path in paths]


def _imported(file: Path) -> set[str]:
    """The top-level names that a file imports, wherever in it; none of one that cannot be read as Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return set()
    names = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in [*names, *(node.module or "" for node in froms)]}


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
