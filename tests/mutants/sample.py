"""Mutants of the packages: made by cosmic-ray, drawn by a seed, each run against its own tests."""

from __future__ import annotations

import ast
import random
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec

from tests.paths import ROOT

PACKAGES = ("engines", "export", "kernels", "runtime", "server")
# Lines that only a type checker or a reader looks at.
_NO_BEHAVIOR = ("TYPE_CHECKING", "TypeVar", "@overload")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """mutants.toml. tests: by folder or module, the test files that concern it."""

    timeout_s: float
    preload: list[str]
    tests: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Settings:
        return cls(**tomllib.loads((ROOT / "tests" / "mutants" / "mutants.toml").read_text()))

    def tests_of(self, module: Path) -> list[str]:
        """The module's own test file first, then those of the longest name that fits."""
        own = Path("tests") / module.with_name(f"test_{module.name}")
        names = [name for name in self.tests if f"{module}/".startswith(f"{name}/")]
        others = self.tests[max(names, key=len)]
        found = [str(own)] if (ROOT / own).is_file() else []
        return found + [each for each in others if (ROOT / each).exists()]


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One changed place. line: from 1. before, after: that line's text."""

    module: Path
    line: int
    operator: str
    before: str
    after: str
    code: str

    @property
    def package(self) -> str:
        return self.module.parts[0]


def modules(names: Iterable[str]) -> list[Path]:
    """Modules of the packages or folders, or the modules named, relative to the repository."""
    found: list[Path] = []
    for name in names:
        path = ROOT / name
        found += [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))
    return [each.relative_to(ROOT) for each in found if each.name != "__init__.py"]


def sampled(names: Iterable[str], count: int, seed: int) -> list[Mutant]:
    """So many mutants, each of another place where there are enough places; drawn by the seed."""
    with use_db(":memory:", WorkDB.Mode.create) as database:
        init(modules(names), database, {})
        specs = [item.mutations[0] for item in database.work_items]
    specs.sort(key=lambda each: (str(each.module_path), each.operator_name, each.occurrence))
    random.Random(seed).shuffle(specs)
    # One operator has dozens of ways to change a "+": first one mutant of each place.
    places: dict[tuple[object, ...], int] = {}
    turn = {}
    for spec in specs:
        place = (spec.module_path, spec.start_pos, spec.end_pos)
        turn[id(spec)] = places[place] = places.get(place, 0) + 1
    specs.sort(key=lambda each: turn[id(each)])
    mutants: list[Mutant] = []
    for spec in specs:
        if len(mutants) == count:
            break
        mutants += _mutants(spec)
    return mutants


def _mutants(spec: MutationSpec) -> Iterator[Mutant]:
    """The mutant, unless it changes only what is said to the reader."""
    text = (ROOT / spec.module_path).read_text()
    (line, column), (end, end_column) = spec.start_pos, spec.end_pos
    if _is_type(text, (line, column), (end, end_column)):
        return
    operator = get_operator(spec.operator_name)(**spec.operator_args)
    code = mutate_code(text, operator, spec.occurrence)
    before = text.splitlines()[line - 1]
    if code is None or any(each in before for each in _NO_BEHAVIOR):
        return
    try:
        ast.parse(code)
    except SyntaxError:
        return  # such as another operator for the "*" between parameters
    after = code.splitlines()[line - 1]
    yield Mutant(
        module=spec.module_path, line=line, operator=spec.operator_name.removeprefix("core/"),
        before=before.strip(), after=after.strip(), code=code,
    )  # fmt: skip


def _is_type(text: str, start: tuple[int, int], end: tuple[int, int]) -> bool:
    """Whether a place lies in an annotation, which is never evaluated."""
    for node in ast.walk(ast.parse(text)):
        notes = [getattr(node, name, None) for name in ("annotation", "returns")]
        for note in notes:
            if note is None:
                continue
            first = (note.lineno, note.col_offset)
            last = (note.end_lineno or 0, note.end_col_offset or 0)
            if first <= start and end <= last:
                return True
    return False
