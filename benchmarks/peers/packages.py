"""The packages of the extra `peers`, which nothing but a comparison with them needs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from engines import commands
from engines.errors import NotInstalledError


def peers_package(name: str) -> Any:
    """A module of the extra `peers`; raises NotInstalledError."""
    try:
        return import_module(name)
    except ImportError as error:
        raise NotInstalledError(
            f"{name} is not installed; type", fix=commands.installed("peers")
        ) from error
