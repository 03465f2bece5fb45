"""What requests bring: JSON bodies as pydantic models, and from them the runtime's Request.

A string of a client never becomes a path here: people come as ids of identities, photos as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from runtime import Fusion, GuidanceRule, Identity, OutputType, Preset, Request, Scheduler
from server.tenants import Priority

Share = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[int, Field(ge=64, le=4096, multiple_of=64)]
MAX_PEOPLE = 8

# Of the fields below, those that are Request's own.
DRAWN = (
    "prompt", "negative_prompt", "preset", "num_inference_steps", "guidance_scale", "num_images",
    "height", "width", "scheduler", "alpha", "beta", "guidance_rule", "guidance_every",
    "guidance_until", "fusion", "saliency",
)  # fmt: skip


class DrawingBody(BaseModel):
    """What is drawn; the fields are Request's, with its defaults."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: str = Field(
        min_length=1, max_length=10_000,
        description="with <|image|> after the word for each person",
    )  # fmt: skip
    negative_prompt: str = Field(default=Request.negative_prompt, max_length=10_000)
    preset: Preset = Field(
        default=Request.preset,
        description="decides, where they are null, num_inference_steps, scheduler and guidance_*",
    )
    num_inference_steps: int | None = Field(default=None, ge=1, le=999)
    guidance_scale: float = Field(default=Request.guidance_scale, gt=1, le=20)
    seed: int | None = Field(
        default=None, ge=0, le=2**32 - 1,
        description="of the first image; null draws one at admission, which the answer tells",
    )  # fmt: skip
    num_images: int = Field(default=Request.num_images, ge=1, le=16)
    height: Size | None = Field(default=None, description="px; null takes the model's own")
    width: Size | None = Field(default=None, description="px; null takes the model's own")
    scheduler: Scheduler | None = None
    alpha: Share = Request.alpha
    beta: Share = Request.beta
    guidance_rule: GuidanceRule | None = None
    guidance_every: int | None = Field(default=None, ge=1, le=8)
    guidance_until: Share | None = None
    fusion: Fusion = Request.fusion
    saliency: bool = Field(
        default=False, description="also give the fusion steps' saliency maps and masks"
    )
    timeout_s: float | None = Field(
        default=None, gt=0, le=86_400, description="at most the server's own"
    )
    priority: Priority | None = Field(default=None, description="null takes normal, or less")

    def request(self, references: Sequence[Identity | bytes], seed: int) -> Request:
        """Raises RequestError."""
        words: dict[str, Any] = {name: getattr(self, name) for name in DRAWN}
        return Request(references=references, seed=seed, output_type=OutputType.PIL, **words)


class PictureBody(DrawingBody):
    """A picture of identities, and how it is answered."""

    identities: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        min_length=1, max_length=MAX_PEOPLE,
        description="one for each <|image|>, in the prompt's order",
    )  # fmt: skip
    response: Literal["b64_json", "png"] = Field(
        default="b64_json", description="JSON, or the one picture's file itself"
    )
    stream: bool = Field(default=False, description="answer with server-sent events")
    preview: bool = Field(default=False, description="events tell how the picture comes")
    wait: bool = Field(
        default=True,
        description="false: answer 202 at once, and draw on when the client hangs up",
    )


class GenerationBody(DrawingBody):
    """OpenAI's body of images/generations, with the people that it needs here."""

    # OpenAI's clients send fields of services other than this one.
    model_config = ConfigDict(
        extra="ignore", allow_inf_nan=False,
        # Not so for the parser: whoever leaves people out is told why they are needed.
        json_schema_extra={"required": ["prompt", "identities"]},
    )  # fmt: skip

    identities: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default_factory=list, max_length=MAX_PEOPLE, json_schema_extra={"minItems": 1}
    )
    model: str | None = None
    n: int | None = Field(default=None, ge=1, le=16)
    size: str | None = Field(default=None, max_length=16)
    response_format: Literal["b64_json", "url"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    stream: bool | None = None
    partial_images: int | None = Field(default=None, ge=0, le=3)
