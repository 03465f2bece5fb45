"""The bundle's manifest: what the bundle holds, where it came from and how exact it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt

from engines import commands
from engines.bundle.files import FileRecord
from engines.bundle.plan_record import PlanRecord
from engines.bundle.records import Count, Range, from_json, to_json
from engines.contract import Component
from engines.errors import BundleCorruptError, BundleSchemaError

SCHEMA_VERSION = 3
MANIFEST_NAME = "manifest.json"


class Precision(StrEnum):
    """Element type the graphs are exported in; CPUs compute in float32 either way."""

    FP16 = "fp16"
    FP32 = "fp32"


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """The noise levels a model was trained on (a diffusers scheduler_config.json)."""

    num_train_timesteps: Count = 1000
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

    tokens: Count
    text_width: Count
    subject_width: Count
    latent_channels: Count
    image_px: Count
    native_px: Count
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
class Parity:
    """How far an ONNX graph is from its torch module, worst over the gate's inputs.

    relative_l2: |onnx - torch| / |torch|, torch in float32 with the checkpoint's own weights.
    """

    relative_l2: Annotated[float, Range(0)]
    bound: Annotated[float, Range(0)]
    cases: Count


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

    def __post_init__(self) -> None:
        if missing := sorted(set(Component) - set(self.components)):
            raise ValueError(f"components missing: {', '.join(missing)}")

    def all_files(self) -> dict[str, FileRecord]:
        """Every file of the bundle but the manifest itself, by its path inside the bundle."""
        files = dict(self.files)
        for component in self.components.values():
            files.update(component.files)
        return files | self.plan_files()

    def plan_files(self) -> dict[str, FileRecord]:
        """The files that engines.build makes on the machine that runs them."""
        return {plan.spec.path: plan.built.file for plan in self.plans} | self.timing_cache

    def to_json(self) -> str:
        return to_json(self, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, bundle: str) -> Manifest:
        """Parse the manifest of a bundle; bundle: its path, for messages.

        Raises BundleSchemaError for another schema version and BundleCorruptError for anything else
        that is not a manifest.
        """
        fix = commands.rebuilt(bundle)
        try:
            version = json.loads(text)["schema_version"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BundleCorruptError(
                f"{bundle}/{MANIFEST_NAME} is not a manifest ({error!r}); build it again", fix=fix
            ) from error
        if version != SCHEMA_VERSION:
            raise BundleSchemaError(
                f"{bundle} has manifest schema {version}, this toolkit reads {SCHEMA_VERSION}; "
                "install the matching toolkit or build the bundle again",
                fix=fix,
            )
        try:
            return from_json(cls, text)
        except ValueError as error:
            raise BundleCorruptError(
                f"{bundle}/{MANIFEST_NAME} is incomplete or altered ({error}); build it again",
                fix=fix,
            ) from error
