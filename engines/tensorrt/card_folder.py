"""What is kept of a bundle's plans for one GPU and driver: compiled kernels, and comparisons.

It lies beside the bundle's own files, belongs to this machine, and is no part of the bundle: what
is missing or cannot be written is made again.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engines.bundle.files import write_atomic
from engines.bundle.plan_record import PlanParity, PlanRecord
from engines.bundle.records import from_json, to_json

CARDS_FOLDER = "cards"
# NVIDIA: loading more than this may take longer than compiling.
_MOST_NBYTES = 100 << 20
# Kept kernels begin with their SHA-256, so that none are taken that were damaged since.
_DIGEST_NBYTES = 32


@dataclass(frozen=True, kw_only=True)
class ComparedPlan:
    """A comparison, and the digest of the plan that it was made with."""

    sha256: str
    parity: PlanParity


@dataclass(frozen=True)
class CardFolder:
    """Files of one bundle for one GPU and driver."""

    path: Path

    @classmethod
    def of(cls, bundle: Path, gpu: str, driver: str) -> CardFolder:
        name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{gpu} {driver}").strip("-")
        return cls(bundle / CARDS_FOLDER / name)

    def compiled(self, record: PlanRecord) -> bytes:
        """Kernels that were kept for a plan; empty where there are none."""
        try:
            content = self._kernels(record).read_bytes()
        except OSError:
            return b""
        digest, kernels = content[:_DIGEST_NBYTES], content[_DIGEST_NBYTES:]
        return kernels if digest == hashlib.sha256(kernels).digest() else b""

    def keep_compiled(self, record: PlanRecord, content: bytes) -> None:
        """Keep kernels, if they are others than are kept."""
        if content and len(content) <= _MOST_NBYTES and content != self.compiled(record):
            self._write(self._kernels(record), hashlib.sha256(content).digest() + content)

    def parity(self, record: PlanRecord) -> PlanParity | None:
        """What a plan's comparison here found, if it was this plan."""
        try:
            compared = from_json(ComparedPlan, self._comparison(record).read_bytes())
        except (OSError, ValueError):
            return None
        return compared.parity if compared.sha256 == record.built.file.sha256 else None

    def keep_parity(self, record: PlanRecord, parity: PlanParity) -> None:
        compared = ComparedPlan(sha256=record.built.file.sha256, parity=parity)
        text = to_json(compared, indent=1) + "\n"
        self._write(self._comparison(record), text.encode())

    def _kernels(self, record: PlanRecord) -> Path:
        return self.path / f"{record.spec.name}.{record.built.file.sha256[:16]}.cache"

    def _comparison(self, record: PlanRecord) -> Path:
        return self.path / f"{record.spec.name}.json"

    def _write(self, path: Path, content: bytes) -> None:
        # A bundle may lie where nothing can be written.
        with suppress(OSError):
            write_atomic(path, content)
