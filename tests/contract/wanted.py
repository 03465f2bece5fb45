"""What our source wants of TensorRT, read from the source itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.contract.bindings import Surface
from tests.paths import ROOT

PROTOCOLS = ROOT / "engines" / "tensorrt" / "vendor.py"
RTX_PROTOCOLS = ROOT / "engines" / "tensorrt" / "vendor_rtx.py"
MODULE = ROOT / "engines" / "tensorrt" / "library.py"


@dataclass(frozen=True)
class Want:
    """A class, a member of it, the names of its arguments, and whether it answers with a bool."""

    owner: str
    member: str = ""
    arguments: tuple[str, ...] = ()
    is_bool: bool = False


def wanted() -> set[Want]:
    """Everything: the Protocols' members, the module's names, every `trt.X.Y` in the source."""
    classes = _classes(PROTOCOLS)
    wants = {want for name, body in classes.items() for want in _members(name, body)}
    for statement in _classes(MODULE)["TensorRt"].body:
        if isinstance(statement, ast.FunctionDef) and statement.name != "__version__":
            wants.add(Want(statement.name))
            if not _is_property(statement):
                wants.add(Want(statement.name, "__init__", _arguments(statement)))
    for path in sources():
        wants |= set(_chains(ast.parse(path.read_text())))
    return wants


def wanted_of_rtx() -> set[Want]:
    """What TensorRT for RTX must have: all of the above, and what stands under its own names."""
    wants = wanted()
    for name, body in _classes(RTX_PROTOCOLS).items():
        # What both libraries have goes under the name of the class that it adds to.
        owner = ast.unparse(body.bases[0]).removeprefix("vendor.")
        wants |= set(_members(name if owner == "Protocol" else owner, body))
    for path in sources():
        wants |= set(_chains(ast.parse(path.read_text()), "rtx"))
    return wants


def sources() -> list[Path]:
    """The files that may speak to TensorRT."""
    return [path for folder in ("engines", "runtime") for path in (ROOT / folder).rglob("*.py")]


def importing() -> set[str]:
    """The files that import the module tensorrt."""
    names = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            direct = isinstance(node, ast.Import) and any(a.name == "tensorrt" for a in node.names)
            named = isinstance(node, ast.ImportFrom) and node.module == "tensorrt"
            called = (
                isinstance(node, ast.Call)
                and any(ast.unparse(a) in ("'tensorrt'", "library.module") for a in node.args)
                and ast.unparse(node.func) in ("import_module", "__import__")
            )
            if direct or named or called:
                names.add(str(path.relative_to(ROOT)))
    return names


def unseen_answers() -> list[str]:
    """Calls whose bool nobody looks at, as file:line; by the names of the Protocols' methods."""
    names = {want.member for want in wanted() if want.is_bool}
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr in names
    ]


def missing(wants: set[Want], surface: Surface) -> list[str]:
    """What of the wants a version of TensorRT does not have, in words."""
    return sorted(filter(None, (_missing(want, surface) for want in wants)))


def _missing(want: Want, surface: Surface) -> str:
    if want.owner not in surface:
        return f"{want.owner} is gone"
    if not want.member:
        return ""
    members = surface[want.owner]
    if want.member not in members:
        return f"{want.owner}.{want.member} is gone"
    signature = members[want.member]
    for argument in want.arguments:
        if not re.search(rf"\b{argument}: ", signature):
            return f"{want.owner}.{want.member} has no argument {argument}: {signature[:200]}"
    if want.is_bool and "-> bool" not in signature:
        return f"{want.owner}.{want.member} does not answer a bool: {signature[:200]}"
    return ""


def _classes(path: Path) -> dict[str, ast.ClassDef]:
    tree = ast.parse(path.read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _members(owner: str, body: ast.ClassDef) -> Iterator[Want]:
    yield Want(owner)
    for statement in body.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield Want(owner, name)
            case ast.FunctionDef() if _is_property(statement):
                yield Want(owner, statement.name)
            case ast.FunctionDef():
                is_bool = statement.returns is not None and ast.unparse(statement.returns) == "bool"
                yield Want(owner, statement.name, _arguments(statement), is_bool)


def _is_property(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator) == "property" for decorator in function.decorator_list)


def _arguments(function: ast.FunctionDef) -> tuple[str, ...]:
    given = [*function.args.args, *function.args.kwonlyargs]
    return tuple(argument.arg for argument in given if argument.arg != "self")


def _chains(tree: ast.AST, module: str = "trt") -> Iterator[Want]:
    """`trt.X` and `trt.X.Y`, whatever object `trt` is an attribute of."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        match = re.search(rf"\b_?{module}\.([A-Z]\w+)(?:\.(\w+))?$", ast.unparse(node))
        if match:
            yield Want(match.group(1), match.group(2) or "")
