"""A contestant that takes no time to speak of; imports little, as its process starts often."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.worker import Answer, Message
from engines.errors import ProviderUnavailableError


def echoing(*, factor: float, fails: bool = False, **_: Any) -> Answer:
    """Answers that it took `factor` milliseconds, and what it was told to say."""
    if fails:
        raise ProviderUnavailableError("not on this machine")

    def answer(message: Message) -> dict[str, Any]:
        print("libraries print")
        return {"ms": factor, "gpu_nbytes": None, "said": message.get("say")}

    return answer
