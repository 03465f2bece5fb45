"""The packages of the extra `export`: what to type where some are not installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from engines import commands
from engines.errors import BuildError

# By import name. What is there for some platforms alone, kernels' compiler and plans' builder, is
# not among them: a bundle without kernels and plans runs on CPUs.
PACKAGES = (
    "torch", "diffusers", "transformers", "huggingface_hub", "filelock", "onnx", "onnxscript",
    "onnxruntime", "onnx_graphsurgeon", "polygraphy", "tqdm",
)  # fmt: skip

# What merges LoRAs, asked for only where there are some.
LORA_PACKAGES = ("peft",)


class MissingPackagesError(BuildError):
    """A build needs packages that are not installed."""


def require_packages(packages: Sequence[str] = PACKAGES) -> None:
    """Import nothing, and raise MissingPackagesError unless all of them can be imported."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise MissingPackagesError(
            f"a build needs {', '.join(missing)}, not installed here; install with",
            fix=commands.installed("export"),
        )
