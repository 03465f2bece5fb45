"""What benchmarks are told: frozen dataclasses that their flags take names and defaults from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.harness.backends import CPU, PROVIDERS, TORCH

if TYPE_CHECKING:
    # Not at run time: a process that is measured must hold no torch that its user would not load.
    from export.source import ModelSource

ModelName = Literal["shipped", "released", "random"]


# What flags are about, as --help lists them.
_REFERENCE, _MEASURED, _OWN = "the reference", "what is measured", "of this benchmark"


def flag(about: str, *, quick: Any = None, group: str | None = _OWN, **said: Any) -> dict[str, Any]:
    """A field's metadata: what its flag says. quick: its default in a quick run.

    group: what --help lists it among. said: what else argparse must know of it, such as choices and
    metavar.
    """
    if quick is not None and not isinstance(quick, tuple):
        told = about if "(default: " in about else f"{about} (default: %(default)s)"
        about = f"{told.removesuffix(')')}, quick {quick})"
    return {"help": about, "quick": quick, "group": group, **said}


def quick_defaults(options: type[Any]) -> dict[str, Any]:
    """By field, the defaults that a quick run has instead."""
    quick = {each.name: each.metadata["quick"] for each in fields(options)}
    return {name: default for name, default in quick.items() if default is not None}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every benchmark is told."""

    quick: bool = field(default=False, metadata=flag("fewer cases; recorded as quick", group=None))
    json: bool = field(default=False, metadata=flag("print the record as JSON", group=None))
    results: Path | None = field(
        default=None,
        metadata=flag("folder of the records (default: benchmarks/results)", group=None),
    )


def _part(name: str) -> dict[str, Any]:
    about = f"take the {name} from here (default: the model's)"
    return flag(about, group=_REFERENCE, metavar="PATH_OR_HUB_ID")


@dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """Which checkpoint is the reference, as for export.build; by default the bundle tells."""

    model: ModelName | None = field(
        default=None,
        metadata=flag("what the bundle was built from (default: what it says)", group=_REFERENCE),
    )
    base: str | None = field(default=None, metadata=_part("base"))
    tdm: str | None = field(default=None, metadata=_part("tdm"))
    sdm: str | None = field(default=None, metadata=_part("sdm"))
    image_encoder: str | None = field(default=None, metadata=_part("image encoder"))

    def source(self) -> SourceName | None:
        """The checkpoint that is named; None where none is."""
        parts = {
            "base": self.base, "tdm": self.tdm, "sdm": self.sdm,
            "image_encoder": self.image_encoder,
        }  # fmt: skip
        named = {part: place for part, place in parts.items() if place}
        if self.model is None and not named:
            return None
        return SourceName(model=self.model or "shipped", parts=named)


@dataclass(frozen=True, kw_only=True)
class BundleOptions(SourceOptions):
    """Which bundle is measured, and on how many processor cores."""

    bundle: Path = field(default=Path("bundle"), metadata=flag("the bundle", group=_MEASURED))
    threads: int | None = field(
        default=None, metadata=flag("processor cores to use (default: all)", group=_MEASURED)
    )


@dataclass(frozen=True, kw_only=True)
class ProviderOptions(BundleOptions):
    """Which of the runtime's providers runs the bundle."""

    provider: str = field(
        default=CPU,
        metadata=flag(
            "what runs the bundle",
            group=_MEASURED,
            choices=[name for name in PROVIDERS if name != TORCH],
        ),
    )


@dataclass(frozen=True, kw_only=True)
class SourceName:
    """How a checkpoint is named on the command line, and to a worker process."""

    model: ModelName = "shipped"
    parts: Mapping[str, str] = field(default_factory=dict)

    def opened(self) -> ModelSource:
        """Raises CheckpointError."""
        from benchmarks.harness.model_source import opened_source  # imports torch

        return opened_source(self)
