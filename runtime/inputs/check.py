"""What a bundle's words and numbers say of a request, without anything that computes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from engines.bundle.folder import TOKENIZER_PATH, Bundle
from engines.bundle.manifest import NoiseSchedule
from engines.errors import RequestError
from runtime.inputs.prompt import PromptTokens, TextTokens, Tokenizer
from runtime.preparation import planned_grid
from runtime.request import Request


@dataclass(frozen=True, kw_only=True)
class RequestCheck:
    """native_px: height and width of a picture whose request does not say."""

    native_px: int
    tokenizer: Tokenizer
    noise_schedule: NoiseSchedule

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        manifest = bundle.manifest
        tokenizer = Tokenizer.open(bundle.path / TOKENIZER_PATH, manifest.dimensions.tokens)
        return cls(
            native_px=manifest.dimensions.native_px,
            tokenizer=tokenizer,
            noise_schedule=manifest.noise_schedule,
        )

    @classmethod
    def open(cls, bundle: str | Path) -> Self:
        """Of a bundle that is opened elsewhere. Raises the BundleError family."""
        return cls.of(Bundle.open(bundle))

    def check(self, request: Any) -> None:
        """Raise RequestError for what `generate` would refuse of words and numbers."""
        if not isinstance(request, Request):
            raise RequestError(
                f"expected a Request, got {type(request).__name__}; "
                "write Request(prompt=..., references=[...])"
            )
        planned_grid(request, self.noise_schedule)
        people = len(request.references)
        self.tokenizer.check(request.prompt, people, request.negative_prompt)

    def tokens(self, request: Request) -> tuple[PromptTokens, TextTokens]:
        """The prompt's and the negative prompt's. Raises PromptError."""
        return (
            self.tokenizer.prompt_tokens(request.prompt, len(request.references)),
            self.tokenizer.text_tokens(request.negative_prompt),
        )
