"""Packages that an import did not find: which are to be installed, and which are a defect."""

from __future__ import annotations

_OURS = {"benchmarks", "engines", "export", "kernels", "mini", "runtime", "server"}


def missing_package(error: ImportError) -> str | None:
    """The package that is not installed; None where it is a module of this toolkit's own."""
    package = (error.name or "").partition(".")[0]
    return None if package in _OURS else package
