"""Opening a bundle: nothing half-made, truncated or of another schema gets past here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from engines import commands
from engines.bundle.files import FileRecord, sha256_of, sha256_of_file
from engines.bundle.manifest import MANIFEST_NAME, ComponentRecord, Manifest
from engines.bundle.plan_record import PlanRecord
from engines.bundle.quantization import Quantization
from engines.contract import NOISE_PREDICTORS, Component
from engines.errors import (
    BundleCorruptError,
    BundleNotFoundError,
    ProviderUnavailableError,
    RequestError,
    did_you_mean,
)

TOKENIZER_PATH = "tokenizer/tokenizer.json"
BUILD_FOLDER = "build"
KERNELS_FOLDER = "kernels"
ONNX_FOLDER = "onnx"

# Up to this size a file is hashed when a bundle opens; larger ones by engines.verify, and before
# they are used.
CHEAP_NBYTES = 4 << 20


@dataclass(frozen=True)
class Bundle:
    """A folder with a checked manifest. quantization: which graphs of the U-Nets it speaks of."""

    path: Path
    manifest: Manifest
    quantization: Quantization | None = None

    @classmethod
    def open(cls, path: str | Path, *, plans: bool = True) -> Bundle:
        """Open a bundle and check schema, sizes of all files and digests of the small ones.

        plans: check the plans too; without them, what builds plans can fix a bundle whose plans
        are damaged. Raises BundleNotFoundError, BundleSchemaError or BundleCorruptError.
        """
        path = Path(path)
        manifest_path = path / MANIFEST_NAME
        fix = commands.rebuilt(path)
        if not path.is_dir():
            raise BundleNotFoundError(f"there is no bundle at {path}; build one", fix=fix)
        if not manifest_path.is_file():
            if (path / BUILD_FOLDER).is_dir():
                raise BundleCorruptError(
                    f"{path} holds an unfinished build; finish it with", fix=fix
                )
            raise BundleNotFoundError(
                f"{path} has no {MANIFEST_NAME}, so it is not a bundle; build one", fix=fix
            )
        text = manifest_path.read_bytes().decode("utf-8", errors="replace")
        bundle = cls(path, Manifest.from_json(text, str(path)))
        bundle._check(hash_up_to=CHEAP_NBYTES, plans=plans)
        return bundle

    def verify(self) -> int:
        """Check the digest of every file; returns how many. Raises BundleCorruptError."""
        return self._check(hash_up_to=None, plans=True)

    def verify_component(self, component: Component) -> None:
        """Check the digest of every file of one component.

        Raises BundleCorruptError, ProviderUnavailableError where the ONNX models were dropped.
        """
        self.require_models("checking them")
        for name, record in self.component(component).files.items():
            self._check_file(name, record, None, commands.rebuilt(self.path))

    def component(self, component: Component) -> ComponentRecord:
        return self.manifest.components[component].in_quantization(self.quantization)

    def quantizations(self) -> tuple[Quantization, ...]:
        """Those that every U-Net has."""
        records = [self.manifest.components[component] for component in NOISE_PREDICTORS]
        return tuple(
            each for each in Quantization if all(each in record.quantized for record in records)
        )

    def quantized(self, quantization: Quantization | str | None) -> Bundle:
        """The same bundle with its U-Nets in 8 bits; None stands for their own precision.

        Raises RequestError for an unknown word and BundleNotFoundError where it has no such graphs.
        """
        if quantization is None:
            return replace(self, quantization=None)
        try:
            wanted = Quantization(quantization)
        except ValueError as error:
            choices = ", ".join(Quantization)
            raise RequestError(
                f"quantization must be one of {choices}, got {quantization!r:.80}"
                f"{did_you_mean(quantization, Quantization)}"
            ) from error
        if wanted not in self.quantizations():
            found = ", ".join(self.quantizations()) or "none"
            raise BundleNotFoundError(
                f"{self.path} has no U-Nets in {wanted} (in 8 bits: {found}); build them with",
                fix=commands.rebuilt(self.path, f"--{wanted}"),
            )
        return replace(self, quantization=wanted)

    def model(self, name: str, what: str) -> Path:
        """Where an ONNX model of a component's record lies; raises as `require_models` does."""
        self.require_models(what)
        return self.path / name

    def require_models(self, what: str) -> None:
        """Raise ProviderUnavailableError where the ONNX models that `what` needs were dropped."""
        if self.manifest.plans_only:
            raise ProviderUnavailableError(
                f"{self.path} holds plans alone: its ONNX models were dropped (--plans-only), and "
                f"{what} needs them; export it whole with",
                fix=commands.rebuilt(self.path, without=commands.PLANS_ONLY),
            )

    def plan(self, record: PlanRecord) -> bytes:
        """A plan's bytes, checked on the way; raises BundleCorruptError."""
        path = self.path / record.spec.path
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleCorruptError(
                f"{path} cannot be read ({error.strerror}); build it again", fix=self.plans_built()
            ) from error
        if sha256_of(content) != record.built.file.sha256:
            raise BundleCorruptError(
                f"{path} is not whole or was altered; build it again", fix=self.plans_built()
            )
        return content

    def plans_built(self, *words: object) -> str:
        """What to type for plans of this bundle on this machine; words: of engines.build."""
        if self.manifest.plans_only:
            return commands.rebuilt(self.path, *words, without=commands.ONNX_ONLY)
        return commands.plans_built(self.path, *words)

    def _check(self, *, hash_up_to: int | None, plans: bool) -> int:
        of_plans = self.manifest.plan_files()
        files = self.manifest.all_files()
        for name, record in files.items():
            if name not in of_plans:
                self._check_file(name, record, hash_up_to, commands.rebuilt(self.path))
            elif plans:
                self._check_file(name, record, hash_up_to, self.plans_built())
        return len(files)

    def _check_file(self, name: str, record: FileRecord, hash_up_to: int | None, fix: str) -> None:
        path = self.path / name
        if not path.is_file():
            raise BundleCorruptError(f"{path} is missing; build it again", fix=fix)
        if (nbytes := path.stat().st_size) != record.nbytes:
            raise BundleCorruptError(
                f"{path} has {nbytes} bytes, the manifest says {record.nbytes}; build it again",
                fix=fix,
            )
        hashed = hash_up_to is None or nbytes <= hash_up_to
        if hashed and (found := sha256_of_file(path)) != record.sha256:
            raise BundleCorruptError(
                f"{path} was altered: SHA-256 {found}, the manifest says {record.sha256}; build "
                "it again",
                fix=fix,
            )
