"""Face-Diffuser's embedded runtime: draw people of given photos from a bundle, without PyTorch."""

from engines.bundle.quantization import Quantization
from engines.cuda.driver import CudaError
from engines.engine import HostPrecision, Provider
from engines.errors import (
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    BundleSchemaError,
    CancelledError,
    ConstantOutputError,
    ContractError,
    DeviceMemoryError,
    FaceDiffuserError,
    NonFiniteError,
    PlanMismatchError,
    PromptError,
    ProviderUnavailableError,
    ReferenceImageError,
    RequestError,
)
from engines.guides import GuidanceRule
from engines.onnxruntime.pool import share_threads
from runtime.face_diffuser import FaceDiffuser
from runtime.inputs.identity import Identity
from runtime.method.saliency import Fusion, Saliency
from runtime.method.schedule import Stage
from runtime.method.solvers import Scheduler
from runtime.pictures.grid import grid
from runtime.presets import Preset
from runtime.request import OutputType, Request
from runtime.result import Result, SaliencySteps, StepInfo, StepSaliency
from runtime.turns import CancelToken

__all__ = [
    "BundleCorruptError",
    "BundleError",
    "BundleNotFoundError",
    "BundleSchemaError",
    "CancelToken",
    "CancelledError",
    "ConstantOutputError",
    "ContractError",
    "CudaError",
    "DeviceMemoryError",
    "FaceDiffuser",
    "FaceDiffuserError",
    "Fusion",
    "GuidanceRule",
    "HostPrecision",
    "Identity",
    "NonFiniteError",
    "OutputType",
    "PlanMismatchError",
    "Preset",
    "PromptError",
    "Provider",
    "ProviderUnavailableError",
    "Quantization",
    "ReferenceImageError",
    "Request",
    "RequestError",
    "Result",
    "Saliency",
    "SaliencySteps",
    "Scheduler",
    "Stage",
    "StepInfo",
    "StepSaliency",
    "grid",
    "share_threads",
]
