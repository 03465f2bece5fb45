"""Face-Diffuser's embedded runtime: draw people of given photos from a bundle, without PyTorch."""

from engines.errors import (
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    BundleSchemaError,
    CancelledError,
    ContractError,
    FaceDiffuserError,
    NonFiniteError,
    PromptError,
    ProviderUnavailableError,
    ReferenceImageError,
    RequestError,
)
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
    "FaceDiffuser",
    "FaceDiffuserError",
    "Fusion",
    "GuidanceRule",
    "Identity",
    "NonFiniteError",
    "OutputType",
    "PromptError",
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
