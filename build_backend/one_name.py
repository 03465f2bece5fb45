"""Moves packages below one import name: which imports change, and the proof that none was missed.

In the repository the packages import each other by their plain names, `from engines.x import y`. In
a wheel those names would land beside an application's own `runtime` and another project's
`kernels`, so there the same line reads `from face_diffuser.engines.x import y`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

# Functions whose first argument is a module's name in words, here or in a child process.
_TAKES_MODULE_NAME = {"import_module", "find_spec", "module_command", "run_module", "Child"}


class LayoutError(Exception):
    """A source names a package in a way that cannot be moved below another name."""


@dataclass(frozen=True, kw_only=True)
class OneName:
    """name: the import name of the wheel. parts: the packages that lie below it there."""

    name: str
    parts: tuple[str, ...]

    def moved(self, source: str, path: str) -> str:
        """A module's source with all imports of the parts, and the commands in its text, moved.

        path: how errors call it. Raises LayoutError where a plain name is left.
        """
        lines = source.splitlines(keepends=True)
        # From the last to the first, so that an insertion moves no place that is still to come.
        for row, column in sorted(self._places(ast.parse(source), path), reverse=True):
            before, after = lines[row][:column], lines[row][column:]
            lines[row] = f"{before}{self.name}.{after}"
        # What docstrings and messages tell to type; no code reads like this.
        command = re.compile(rf"\bpython -m (?=({'|'.join(self.parts)})\b)")
        moved = command.sub(f"python -m {self.name}.", "".join(lines))
        self._check(ast.parse(moved), path)
        return moved

    def _places(self, tree: ast.Module, path: str) -> Iterator[tuple[int, int]]:
        """Line and column, both from 0, of each module name to be moved."""
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and self._is_part(node.module, node.level):
                # ruff's format puts one space between `from` and the name.
                yield node.lineno - 1, node.col_offset + len("from ")
            elif isinstance(node, ast.Import):
                for alias in filter(lambda alias: self._is_part(alias.name), node.names):
                    if alias.asname is None:
                        raise LayoutError(
                            f"{path}:{node.lineno}: `import {alias.name}` would import another "
                            f"name in a wheel; write `from {alias.name} import ...`"
                        )
                    yield alias.lineno - 1, alias.col_offset

    def _check(self, tree: ast.Module, path: str) -> None:
        for node in ast.walk(tree):
            if left := next(filter(self._is_part, _modules_named(node)), None):
                line = getattr(node, "lineno", 0)
                raise LayoutError(
                    f"{path}:{line}: names the module {left!r}, which a wheel has below "
                    f"{self.name}; name it by import, or by __package__"
                )

    def _is_part(self, module: str | None, level: int = 0) -> bool:
        return level == 0 and (module or "").partition(".")[0] in self.parts


def _modules_named(node: ast.AST) -> Iterator[str]:
    """The modules that a node imports, or names where a module's name in words is expected."""
    match node:
        case ast.ImportFrom(module=str(module), level=0):
            yield module
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.Call(func=function, args=[ast.Constant(value=str(words)), *_]):
            called = function.attr if isinstance(function, ast.Attribute) else function
            if getattr(called, "id", called) in _TAKES_MODULE_NAME:
                yield words
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            for flag, named in pairwise(getattr(each, "value", None) for each in elements):
                if flag == "-m" and isinstance(named, str):
                    yield named
