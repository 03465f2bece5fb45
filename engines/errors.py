"""The errors a caller can act on: each says what was expected, what was found, what to type."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Number


def shown(value: object) -> str:
    """A wrong value as messages show it: a number or a word, cut short.

    Of anything else its kind alone: it may be somebody's photo or embedding.
    """
    if value is None or isinstance(value, Number | str):
        return f"{value!r:.80}"
    return type(value).__name__


class FaceDiffuserError(Exception):
    """Base of every error this toolkit raises on purpose.

    reason: what was expected and what was found. fix: the command to type against it, or None.
    str() is both: "reason: fix", so a reason with a fix ends in words that introduce a command.
    """

    def __init__(self, reason: str, *, fix: str | None = None) -> None:
        super().__init__(reason if fix is None else f"{reason}: {fix}")
        self.reason = reason
        self.fix = fix


class BundleError(FaceDiffuserError):
    """A bundle is missing, incomplete, damaged or of another schema."""


class BundleNotFoundError(BundleError):
    """There is no bundle at the path."""


class BundleCorruptError(BundleError):
    """A file of the bundle is missing, truncated or altered, or the build was interrupted."""


class BundleSchemaError(BundleError):
    """The manifest was written by another, incompatible version of this toolkit."""


class PlanMismatchError(BundleError):
    """The bundle has no TensorRT plan that this machine can run; says how to build one."""


class BuildError(FaceDiffuserError):
    """A bundle's build cannot go on."""


class PlanBuildError(FaceDiffuserError):
    """A plan could not be built; names the component, the reason and the build log."""


class PlanMemoryError(PlanBuildError):
    """The memory of the GPU or the host was not enough to build."""


class PlanUnsupportedError(PlanBuildError):
    """The library has no kernel for something that the model has."""


class PlanRefusedError(PlanBuildError):
    """A plan was built and is not published: it drifts, is not finite or not in half precision."""


class ProviderUnavailableError(FaceDiffuserError):
    """A backend was asked for that this machine cannot run."""


class NotInstalledError(ProviderUnavailableError):
    """A package that a provider needs is not installed."""


class DriverTooOldError(ProviderUnavailableError):
    """The NVIDIA driver is for an older CUDA than what is to run on it."""


class DeviceMemoryError(FaceDiffuserError):
    """The GPU has not enough memory left; says how much is free and how much is needed."""


class ContractError(FaceDiffuserError):
    """An engine's tensors are not what the contract says."""


class NonFiniteError(FaceDiffuserError):
    """An engine produced NaN or infinity; names the engine, the step and the timestep."""


class ConstantOutputError(FaceDiffuserError):
    """An engine gave the same numbers everywhere, as one does that computes nothing."""


class RequestError(FaceDiffuserError, ValueError):
    """A request cannot be drawn as it was asked for."""


class PromptError(RequestError):
    """The prompt's <|image|> markers do not fit the references or the token window."""


class ReferenceImageError(RequestError):
    """A reference image or identity cannot be used."""


class CancelledError(FaceDiffuserError):
    """The caller's on_step gave a falsy answer, or its cancel token was set."""


def did_you_mean(word: object, choices: Iterable[str]) -> str:
    """The end of a message about a word that is none of the choices: "" or the one it resembles.

    A choice resembles a word by its letters, or by having the word as a part: cuda is in
    onnxruntime-cuda.
    """
    text = str(word).strip().lower().replace("_", "-")
    names = {choice.lower(): choice for choice in choices}
    parts = [choice for name, choice in names.items() if text and text in name.split("-")]
    if text in names:
        parts = [names[text]]
    near = [names[name] for name in get_close_matches(text[:80], names, n=1, cutoff=0.6)]
    # A word that is part of several chooses none of them.
    found = parts or near
    return f'; did you mean "{found[0]}"?' if len(found) == 1 else ""
