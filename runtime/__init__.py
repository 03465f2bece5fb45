"""Face-Diffuser's embedded runtime: draw people of given photos from a bundle, without PyTorch."""

from engines.cuda import CudaError
from engines.errors import (
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    BundleSchemaError,
    CancelledError,
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
from engines.provider import Provider
from runtime.face_diffuser import FaceDiffuser
from runtime.guidance import GuidanceRule
from runtime.identity import Identity
from runtime.request import OutputType, Request
from runtime.result import Result, StepInfo, StepSaliency
from runtime.saliency import Fusion, Saliency
from runtime.schedule import Scheduler, Stage

__all__ = [
    "BundleCorruptError",
    "BundleError",
    "BundleNotFoundError",
    "BundleSchemaError",
    "CancelledError",
    "ContractError",
    "CudaError",
    "DeviceMemoryError",
    "FaceDiffuser",
    "FaceDiffuserError",
    "Fusion",
    "GuidanceRule",
    "Identity",
    "NonFiniteError",
    "OutputType",
    "PlanMismatchError",
    "PromptError",
    "Provider",
    "ProviderUnavailableError",
    "ReferenceImageError",
    "Request",
    "RequestError",
    "Result",
    "Saliency",
    "Scheduler",
    "Stage",
    "StepInfo",
    "StepSaliency",
]
