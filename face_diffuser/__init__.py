"""Draw a scene with given people in it: the public names of Face-Diffuser's runtime.

from face_diffuser import FaceDiffuser, Request

with FaceDiffuser.open("bundle") as face_diffuser:
    result = face_diffuser.generate(
        Request(prompt="a man <|image|> reading in a park", references=["him.jpg"], seed=7)
    )
result.images[0].save("park.png")
"""

from runtime import (
    BundleCorruptError,
    BundleError,
    BundleNotFoundError,
    BundleSchemaError,
    CancelledError,
    CancelToken,
    ConstantOutputError,
    ContractError,
    CudaError,
    DeviceMemoryError,
    FaceDiffuser,
    FaceDiffuserError,
    Fusion,
    GuidanceRule,
    HostPrecision,
    Identity,
    NonFiniteError,
    OutputType,
    PlanMismatchError,
    Preset,
    PromptError,
    Provider,
    ProviderUnavailableError,
    Quantization,
    ReferenceImageError,
    Request,
    RequestError,
    Result,
    Saliency,
    SaliencySteps,
    Scheduler,
    Stage,
    StepInfo,
    StepSaliency,
    grid,
    share_threads,
)

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

__version__ = "0.1.0"
