"""What was measured, kept by processor and versions; it belongs to the machine, not the bundle.

It lies beside the bundle's own files, or in the user's cache where nothing can be written there,
and can say no more than which of this toolkit's settings to take: what is damaged, or was measured
with something else, is measured again.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engines.bundle.files import FileRefusedError, write_atomic
from engines.bundle.folder import Bundle
from engines.bundle.quantization import Quantization
from engines.bundle.records import Sha256, from_json, to_json
from engines.contract import Component
from engines.engine import HostPrecision, Provider
from engines.system.cache import user_cache
from engines.system.processor import processor_name
from engines.threads import processors
from engines.tune.settings import CallTime

PROCESSORS_FOLDER = "processors"
_PACKAGES = ("onnxruntime", "openvino")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a measurement is of. model: digest of the U-Net that was called."""

    processor: str
    processors: int
    versions: dict[str, str]
    model: Sha256
    quantization: Quantization | None

    @classmethod
    def of(cls, bundle: Bundle) -> Conditions:
        """Those of this machine and this bundle."""
        return cls(
            processor=processor_name() or "unknown",
            processors=processors(),
            versions=_versions(),
            model=bundle.component(Component.SDM_UNET).onnx_digest(),
            quantization=bundle.quantization,
        )

    def file_name(self) -> str:
        """Of the record; two conditions never share one."""
        known = re.sub(r"[^A-Za-z0-9.]+", "-", self.processor).strip("-")
        digest = hashlib.sha256(to_json(self).encode()).hexdigest()
        return f"{known[:60]}.{digest[:16]}.json"


@dataclass(frozen=True, kw_only=True)
class TuneRecord:
    """Calls that were measured under the same conditions."""

    conditions: Conditions
    calls: tuple[CallTime, ...]

    def fastest(
        self,
        provider: Provider | None = None,
        precision: HostPrecision | None = None,
        threads: int | None = None,
    ) -> CallTime | None:
        """None where nothing that fits was measured."""
        fitting = [
            each
            for each in self.calls
            if provider in (None, each.settings.provider)
            and precision in (None, each.settings.precision)
            and threads in (None, each.settings.threads)
        ]
        return min(fitting, key=lambda each: each.call_s, default=None)


def kept(bundle: Bundle) -> TuneRecord | None:
    """What was measured before under today's conditions."""
    folders = [folder for folder in _folders(bundle) if folder.is_dir()]
    if not folders:
        return None
    conditions = Conditions.of(bundle)
    for folder in folders:
        try:
            record = from_json(TuneRecord, (folder / conditions.file_name()).read_bytes())
        except (OSError, ValueError):
            continue
        if record.conditions == conditions and record.calls:
            return record
    return None


def keep(bundle: Bundle, record: TuneRecord) -> Path | None:
    """Write it where it is looked for; None where nothing can be written."""
    content = (to_json(record, indent=1) + "\n").encode()
    for folder in _folders(bundle):
        path = folder / record.conditions.file_name()
        with suppress(OSError, FileRefusedError):
            write_atomic(path, content)
            return path
    return None


def _folders(bundle: Bundle) -> tuple[Path, Path]:
    return bundle.path / PROCESSORS_FOLDER, user_cache() / PROCESSORS_FOLDER


def _versions() -> dict[str, str]:
    # On use: it takes a tenth of importing the runtime.
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
