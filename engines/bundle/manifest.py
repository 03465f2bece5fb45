"""The bundle's manifest: what the bundle holds, where it came from and how exact it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from engines import commands
from engines.bundle.files import FileRecord
from engines.bundle.plan_record import PlanRecord
from engines.bundle.quantization import Quantization, QuantizedGraph
from engines.bundle.records import Count, InsidePath, Range, document_of, read
from engines.contract import Component
from engines.errors import BundleCorruptError, BundleSchemaError

SCHEMA_VERSION = 4
MANIFEST_NAME = "manifest.json"


class Precision(StrEnum):
    """Element type the graphs are exported in; CPUs compute in float32 either way."""

    FP16 = "fp16"
    FP32 = "fp32"


# Variance that one step of the noise adds.
Beta = Annotated[float, Range(1e-9, 0.999)]
Size = Annotated[int, Range(1, 65536)]
Level = Annotated[float, Range(-1000, 1000)]
Deviation = Annotated[float, Range(1e-6, 1000)]


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """The noise levels a model was trained on (a diffusers scheduler_config.json)."""

    num_train_timesteps: Annotated[int, Range(1, 100_000)] = 1000
    beta_start: Beta = 0.00085
    beta_end: Beta = 0.012
    beta_schedule: Literal["scaled_linear", "linear"] = "scaled_linear"
    steps_offset: Annotated[int, Range(0, 1000)] = 1
    set_alpha_to_one: bool = False

    def alphas_cumprod(self) -> npt.NDArray[np.float64]:
        """Share of the picture's variance left at each timestep, [num_train_timesteps] float64.

        Read-only: every caller gets the same array.
        """
        return _alphas_cumprod(self)


@lru_cache(maxsize=8)
def _alphas_cumprod(schedule: NoiseSchedule) -> npt.NDArray[np.float64]:
    steps = schedule.num_train_timesteps
    if schedule.beta_schedule == "scaled_linear":
        betas = np.linspace(schedule.beta_start**0.5, schedule.beta_end**0.5, steps) ** 2
    else:
        betas = np.linspace(schedule.beta_start, schedule.beta_end, steps)
    alphas = np.cumprod(1 - betas)
    alphas.setflags(write=False)
    return alphas


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """The fixed numbers behind the contract's symbols, read from the model's own configuration.

    native_px: height and width of the pictures the U-Nets were trained on. image_mean, image_std:
    what reference pixels are normalized with.
    """

    tokens: Size
    text_width: Size
    subject_width: Size
    latent_channels: Size
    image_px: Size
    native_px: Size
    image_mean: tuple[Level, Level, Level]
    image_std: tuple[Deviation, Deviation, Deviation]

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
    float32 from the same weights file. parity: by graph, "onnx" and "cpu_onnx". quantized: the same
    component in 8 bits, beside it.
    """

    input_digest: str
    onnx: InsidePath
    cpu_onnx: InsidePath
    files: dict[InsidePath, FileRecord]
    parity: dict[str, Parity]
    fp32_islands: list[Fp32Island] = field(default_factory=list)
    quantized: dict[Quantization, QuantizedGraph] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for graph in (self.onnx, self.cpu_onnx):
            if graph not in self.files:
                raise ValueError(f"{graph} is not among the component's files")

    def in_quantization(self, quantization: Quantization | None) -> ComponentRecord:
        """This component with its 8-bit graphs in place of its own; itself where it has none."""
        graph = None if quantization is None else self.quantized.get(quantization)
        if graph is None:
            return self
        return replace(self, onnx=graph.onnx, cpu_onnx=graph.cpu_onnx, files=graph.files)

    def all_files(self) -> dict[str, FileRecord]:
        """Files of all its graphs."""
        files: dict[str, FileRecord] = dict(self.files)
        for graph in self.quantized.values():
            files.update(graph.files)
        return files

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
class LatentPreview:
    """The linear map from a pixel of the latents to a color in [0, 1], fitted to the decoder.

    weights: red, green and blue of each channel. mean_error: of a color from the decoder's, which
    is averaged over 8 px; on latents that the map was not fitted to.
    """

    weights: tuple[tuple[Level, Level, Level], ...]
    bias: tuple[Level, Level, Level]
    mean_error: Annotated[float, Range(0)]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a runtime must know before it opens the first engine.

    latent_preview: None in bundles of builds that fitted none. plans: TensorRT plans for any number
    of GPUs. timing_cache: of the GPU that built last. plans_only: the components' files were
    dropped; their records still say what plans are of.
    """

    schema_version: int
    precision: Precision
    opset: int
    dimensions: Dimensions
    noise_schedule: NoiseSchedule
    components: dict[Component, ComponentRecord]
    files: dict[InsidePath, FileRecord]
    pipeline_parity: dict[str, float]
    sources: dict[str, str]
    tools: dict[str, str]
    licenses: list[str]
    latent_preview: LatentPreview | None = None
    plans: list[PlanRecord] = field(default_factory=list)
    timing_cache: dict[InsidePath, FileRecord] = field(default_factory=dict)
    plans_only: bool = False

    def __post_init__(self) -> None:
        if missing := sorted(set(Component) - set(self.components)):
            raise ValueError(f"components missing: {', '.join(missing)}")
        for component, record in self.components.items():
            # A graph is named after its component, or after one with the same weights.
            name = PurePosixPath(record.onnx).stem
            if name not in set(Component) or self.components[Component(name)] != record:
                raise ValueError(f"{record.onnx} is not the graph of {component}")

        if self.latent_preview is not None:
            rows, channels = len(self.latent_preview.weights), self.dimensions.latent_channels
            if rows != channels:
                raise ValueError(f"latent_preview has {rows} channels, the latents {channels}")

    def all_files(self) -> dict[str, FileRecord]:
        """Every file of the bundle but the manifest itself, by its path inside the bundle."""
        models = {} if self.plans_only else self.model_files()
        return self.files | models | self.plan_files()

    def model_files(self) -> dict[str, FileRecord]:
        """The ONNX models with their weights, whether they are still there or not."""
        files: dict[str, FileRecord] = {}
        for component in self.components.values():
            files.update(component.all_files())
        return files

    def plan_files(self) -> dict[str, FileRecord]:
        """The files that engines.build makes on the machine that runs them."""
        return {plan.spec.path: plan.built.file for plan in self.plans} | self.timing_cache

    def digest(self) -> str:
        """What names this bundle: SHA-256 of everything the manifest says, so of all its files."""
        return _digest(self._document())

    def to_json(self) -> str:
        document = self._document()
        return json.dumps(document | {"digest": _digest(document)}, indent=1) + "\n"

    def _document(self) -> dict[str, Any]:
        """A bundle without a preview map says nothing of one, as builds before it did."""
        document: dict[str, Any] = document_of(self)
        if self.latent_preview is None:
            del document["latent_preview"]
        return document

    @classmethod
    def from_json(cls, text: str, bundle: str) -> Manifest:
        """Parse the manifest of a bundle; bundle: its path, for messages.

        Raises BundleSchemaError for another schema version and BundleCorruptError for anything else
        that is not a manifest, or not the one that was written.
        """
        fix = commands.rebuilt(bundle)
        try:
            document = json.loads(text)
            version = document["schema_version"]
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
            told = document.pop("digest", None)
            manifest = read(cls, document)
            if told != _digest(document):
                raise ValueError("its text is not the one that its digest was made of")
        except (ValueError, RecursionError, OverflowError) as error:
            raise BundleCorruptError(
                f"{bundle}/{MANIFEST_NAME} is incomplete or altered ({error}); build it again",
                fix=fix,
            ) from error
        return manifest


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
