"""What a library says during a build: errors, layers and sizes, picked out of its messages."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TextIO

from engines.tensorrt.library import ErrorLog

_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")
_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")


@dataclass(frozen=True, kw_only=True)
class BuildLog(ErrorLog):
    """Errors as in ErrorLog, and what proofs are made of.

    file: where all but the verbose messages are written. verbose: messages from the list of layers
    on; there are some ten thousand before it that nobody reads.
    """

    file: TextIO
    messages: list[str] = field(default_factory=list)
    verbose: list[str] = field(default_factory=list)

    def hear(self, severity: str, message: str) -> None:
        self.file.write(f"{severity}: {message}\n")
        super().hear(severity, message)
        self.messages.append(message)

    def hear_verbose(self, message: str) -> None:
        if message.strip().startswith("Layers:"):
            self.verbose.clear()
        if self.verbose or message.strip().startswith("Layers:"):
            self.verbose.append(message)

    def activations_nbytes(self) -> int | None:
        """Of the optimization profile that needs most; None where it was not said."""
        return max(self._told(_ACTIVATIONS), default=None)

    def weights_nbytes(self) -> int | None:
        return max(self._told(_WEIGHTS), default=None)

    def _told(self, pattern: re.Pattern[str]) -> list[int]:
        found = (pattern.search(message) for message in self.messages)
        return [int(match.group(1)) for match in found if match is not None]
