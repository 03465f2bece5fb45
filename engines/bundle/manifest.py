"""The bundle's manifest: what the bundle holds, where it came from and how exact it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from engines.bundle.plan_record import PlanRecord, plan_record
from engines.contract import Component
from engines.errors import BundleCorruptError, BundleSchemaError

SCHEMA_VERSION = 2
MANIFEST_NAME = "manifest.json"

REBUILD = "python -m export.build --out {bundle}"
REBUILD_PLANS = "python -m engines.build {bundle}"


class Precision(StrEnum):
    """Element type the graphs are exported in; CPUs compute in float32 either way."""

    FP16 = "fp16"
    FP32 = "fp32"


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """The noise levels a model was trained on (a diffusers scheduler_config.json)."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: Literal["scaled_linear", "linear"] = "scaled_linear"
    steps_offset: int = 1
    set_alpha_to_one: bool = False

    def alphas_cumprod(self) -> npt.NDArray[np.float64]:
        """Share of the picture's variance left at each timestep, [num_train_timesteps] float64."""
        if self.beta_schedule == "scaled_linear":
            ends = self.beta_start**0.5, self.beta_end**0.5
            betas = np.linspace(*ends, self.num_train_timesteps) ** 2
        else:
            betas = np.linspace(self.beta_start, self.beta_end, self.num_train_timesteps)
        return np.cumprod(1 - betas)


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """The fixed numbers behind the contract's symbols, read from the model's own configuration.

    native_px: height and width of the pictures the U-Nets were trained on. image_mean, image_std:
    what reference pixels are normalized with.
    """

    tokens: int
    text_width: int
    subject_width: int
    latent_channels: int
    image_px: int
    native_px: int
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]

    def sizes(self) -> dict[str, int]:
        """What the contract's fixed symbols stand for."""
        return {
            "tokens": self.tokens,
            "text_width": self.text_width,
            "subject_width": self.subject_width,
            "latent_channels": self.latent_channels,
            "image_px": self.image_px,
        }


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Size and digest of one file of the bundle."""

    nbytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an ONNX graph is from its torch module, worst over the gate's inputs.

    relative_l2: |onnx - torch| / |torch|, torch in float32 with the checkpoint's own weights.
    """

    relative_l2: float
    bound: float
    cases: int


@dataclass(frozen=True, kw_only=True)
class Fp32Island:
    """A part of a half-precision graph kept in float32, with the measurement that says why."""

    module: str
    error_in_half: float
    error_with_island: float


@dataclass(frozen=True, kw_only=True)
class ComponentRecord:
    """One exported component.

    input_digest: of everything the export depended on; a build redoes it only if that differs.
    onnx: the graph as exported (what TensorRT builds from). cpu_onnx: the same graph computing in
    float32 from the same weights file. parity: by graph, "onnx" and "cpu_onnx".
    """

    input_digest: str
    onnx: str
    cpu_onnx: str
    files: dict[str, FileRecord]
    parity: dict[str, Parity]
    fp32_islands: list[Fp32Island] = field(default_factory=list)

    def onnx_digest(self) -> str:
        """Digest of what a plan is built from."""
        digests = [(name, file.sha256) for name, file in sorted(self._onnx_files().items())]
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def onnx_nbytes(self) -> int:
        """Size of what a plan is built from: nearly all of it weights."""
        return sum(file.nbytes for file in self._onnx_files().values())

    def _onnx_files(self) -> dict[str, FileRecord]:
        """The exported graph and its weights file."""
        weights = self.onnx.removesuffix(".onnx") + ".data"
        return {name: self.files[name] for name in (self.onnx, weights) if name in self.files}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a runtime must know before it opens the first engine.

    plans: TensorRT plans for any number of GPUs. timing_cache: of the GPU that built last.
    """

    schema_version: int
    precision: Precision
    opset: int
    dimensions: Dimensions
    noise_schedule: NoiseSchedule
    components: dict[Component, ComponentRecord]
    files: dict[str, FileRecord]
    pipeline_parity: dict[str, float]
    sources: dict[str, str]
    tools: dict[str, str]
    licenses: list[str]
    plans: list[PlanRecord] = field(default_factory=list)
    timing_cache: dict[str, FileRecord] = field(default_factory=dict)

    def all_files(self) -> dict[str, FileRecord]:
        """Every file of the bundle but the manifest itself, by its path inside the bundle."""
        files = dict(self.files)
        for component in self.components.values():
            files.update(component.files)
        return files | self.plan_files()

    def plan_files(self) -> dict[str, FileRecord]:
        """The files that engines.build makes on the machine that runs them."""
        plans = {p.path: FileRecord(nbytes=p.nbytes, sha256=p.sha256) for p in self.plans}
        return plans | self.timing_cache

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        """Parse a manifest.

        Raises BundleSchemaError for another schema version and BundleCorruptError for anything else
        that is not a manifest; `where` is the bundle's path for the message.
        """
        rebuild = REBUILD.format(bundle=where)
        try:
            document = json.loads(text)
            version = document["schema_version"]
        except (ValueError, TypeError, KeyError) as error:
            raise BundleCorruptError(
                f"{where}/{MANIFEST_NAME} is not a manifest ({error!r}); build it again: {rebuild}"
            ) from error
        if version != SCHEMA_VERSION:
            raise BundleSchemaError(
                f"{where} has manifest schema {version}, this toolkit reads {SCHEMA_VERSION}; "
                f"install the matching toolkit or build the bundle again: {rebuild}"
            )
        try:
            return _manifest(document)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise BundleCorruptError(
                f"{where}/{MANIFEST_NAME} is incomplete or altered ({error!r}); "
                f"build it again: {rebuild}"
            ) from error


def component_record(document: dict[str, Any]) -> ComponentRecord:
    """A ComponentRecord from its JSON form."""
    return ComponentRecord(
        input_digest=document["input_digest"],
        onnx=document["onnx"],
        cpu_onnx=document["cpu_onnx"],
        files=_files(document["files"]),
        parity={graph: Parity(**figures) for graph, figures in document["parity"].items()},
        fp32_islands=[Fp32Island(**island) for island in document["fp32_islands"]],
    )


def dimensions_from(document: dict[str, Any]) -> Dimensions:
    """Dimensions from their JSON form."""
    tuples = {name: tuple(document[name]) for name in ("image_mean", "image_std")}
    return Dimensions(**(document | tuples))


def _manifest(document: dict[str, Any]) -> Manifest:
    components = {Component(k): component_record(v) for k, v in document["components"].items()}
    if missing := set(Component) - set(components):
        raise ValueError(f"components missing: {', '.join(sorted(missing))}")
    changed = {
        "precision": Precision(document["precision"]),
        "dimensions": dimensions_from(document["dimensions"]),
        "noise_schedule": NoiseSchedule(**document["noise_schedule"]),
        "components": components,
        "files": _files(document["files"]),
        "plans": [plan_record(plan) for plan in document["plans"]],
        "timing_cache": _files(document["timing_cache"]),
    }
    return Manifest(**(document | changed))


def _files(document: dict[str, Any]) -> dict[str, FileRecord]:
    return {name: FileRecord(**record) for name, record in document.items()}
