"""Building a bundle: component by component, then kernels, then the checks of the whole."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from engines.bundle.candidate import Draw, candidate
from engines.bundle.files import FileRecord, file_record, remove_partial_files, write_atomic
from engines.bundle.folder import BUILD_FOLDER, KERNELS_FOLDER, TOKENIZER_PATH
from engines.bundle.lock import build_lock
from engines.bundle.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    ComponentRecord,
    LatentPreview,
    Manifest,
    Precision,
)
from engines.bundle.quantization import Quantization
from engines.bundle.swap import can_swap, folder_beside, seed, swap
from engines.contract import Component
from engines.errors import BuildError
from engines.plans.store import published_plans, remove_unlisted_plans
from export.card import CARD_NAME, model_card
from export.checkpoint.model_facts import dimensions_of, noise_schedule_of, tokenizer_json
from export.checks.disk_space import (
    require_disk_space,
    require_room_for_copies,
    told_size,
    weights_nbytes,
)
from export.checks.picture import PREVIEW, PREVIEW_NAME, draw_preview, pipeline_parity
from export.component import (
    build_component,
    built_component,
    input_digest,
    tool_versions,
)
from export.cubins.build import ARCHITECTURES, build_cubins
from export.latent_preview import fitted_preview
from export.options import BuildOptions
from export.quantization.build import quantized_components, unfinished
from export.quantization.pictures import Calibration
from export.source import ModelSource

Say = Callable[[str], None]


def build_bundle(
    bundle: Path,
    source: ModelSource,
    options: BuildOptions,
    say: Say,
    architectures: Sequence[int] = ARCHITECTURES,
    *,
    draw: Draw,
    preview: Sequence[str] = PREVIEW,
    profiles: Sequence[str] | None = None,
    quantizations: Sequence[Quantization] = (),
    calibration: Calibration | None = None,
) -> Manifest:
    """Build or finish a bundle; whatever an earlier build left that still fits is kept.

    architectures: GPU architectures to compile kernels for. draw: the drawing command. preview:
    what it is asked for in the picture that ends the build. profiles: of plans that are to follow,
    for the size that is told before anything is written. quantizations: which U-Nets in 8 bits the
    bundle has beside its own. calibration: what their scales are taken from. The manifest is
    written last, so a bundle that opens is complete. Raises CheckpointError, LintError,
    ParityError, KernelBuildError, DiskSpaceError or BuildError, and leaves what is finished for the
    next build.
    """
    records = export_components(
        bundle, source, options, say, profiles=profiles, quantizations=quantizations
    )
    dimensions = dimensions_of(source)
    records = quantized_components(
        bundle, source, dimensions, records, quantizations, calibration or Calibration(), say
    )
    kernels = _kernel_files(bundle, options.precision, architectures, say)
    write_atomic(bundle / TOKENIZER_PATH, tokenizer_json(source).encode())
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        precision=options.precision,
        opset=options.opset,
        dimensions=dimensions,
        noise_schedule=noise_schedule_of(source),
        components={component: records[component] for component in Component},
        files=kernels | {TOKENIZER_PATH: file_record(bundle / TOKENIZER_PATH)},
        pipeline_parity={},
        sources=source.source_digests(),
        tools=tool_versions() | {"python": platform.python_version()},
        licenses=source.licenses(),
        latent_preview=_latent_preview(source, say),
    )
    plans, timing_cache = published_plans(bundle, manifest.components)
    with candidate(bundle, manifest) as folder:
        say("drawing in PyTorch and from the bundle, to compare")
        parity = pipeline_parity(draw, folder, source, manifest)
        say(f"whole pipeline within {parity['relative_l2']:.1e} (bound {parity['bound']:.0e})")
        say(f"drawing {PREVIEW_NAME}")
        draw_preview(draw, folder, preview)
        (folder / PREVIEW_NAME).replace(bundle / PREVIEW_NAME)
    manifest = dataclasses.replace(manifest, pipeline_parity=parity)
    write_atomic(bundle / CARD_NAME, model_card(manifest).encode())
    told = {name: file_record(bundle / name) for name in (PREVIEW_NAME, CARD_NAME)}
    manifest = dataclasses.replace(
        manifest,
        files=manifest.files | told,
        plans=plans,
        timing_cache=timing_cache,
    )
    _remove_unlisted(bundle, manifest)
    write_atomic(bundle / MANIFEST_NAME, manifest.to_json().encode())
    return manifest


def export_components(
    bundle: Path,
    source: ModelSource,
    options: BuildOptions,
    say: Say,
    *,
    only: Sequence[Component] = tuple(Component),
    profiles: Sequence[str] | None = None,
    quantizations: Sequence[Quantization] = (),
) -> dict[Component, ComponentRecord]:
    """The first part of a build: each component exported and checked, or kept as it is.

    only: these alone; the others stay for a later build. Raises as build_bundle does.
    """
    bundle.mkdir(parents=True, exist_ok=True)
    remove_partial_files(bundle)
    dimensions = dimensions_of(source)
    digests = {component: input_digest(component, source, options) for component in Component}
    records = {
        component: record
        for component, digest in digests.items()
        if (record := built_component(bundle, component, digest)) is not None
    }
    missing = [component for component in only if component not in records]
    weights = weights_nbytes(source, dimensions, options.precision)
    say(told_size(weights, dimensions, profiles, len(quantizations)))
    require_disk_space(bundle, weights, missing, unfinished(bundle, quantizations))
    # From here to the end the folder is an unfinished build, and opens as none.
    (bundle / MANIFEST_NAME).unlink(missing_ok=True)
    for number, component in enumerate(Component, 1):
        if component not in only:
            continue
        title = f"[{number}/{len(Component)}] {component}"
        if component in records:
            say(f"{title}: unchanged, kept")
            continue
        twin = next((records[c] for c in records if digests[c] == digests[component]), None)
        if twin is not None:
            say(f"{title}: same weights as before, shared")
            records[component] = twin
            continue
        records[component] = build_component(
            bundle,
            component,
            source,
            dimensions,
            options,
            partial(_say_of, say, title),
        )
        for graph, figures in records[component].parity.items():
            say(f"{title}: {graph} within {figures.relative_l2:.1e} (bound {figures.bound:.0e})")
    return records


def _kernel_files(
    bundle: Path, precision: Precision, architectures: Sequence[int], say: Say
) -> dict[str, FileRecord]:
    """Compile the GPU kernels where Triton is installed; a bundle without them runs on CPUs."""
    folder = bundle / KERNELS_FOLDER
    folder.mkdir(exist_ok=True)
    if find_spec("triton") is None:
        say("triton is not installed, so this bundle has no GPU kernels")
    elif architectures:
        build_cubins(folder, precision=precision, architectures=architectures, progress=say)
    return {f"{KERNELS_FOLDER}/{path.name}": file_record(path) for path in sorted(folder.iterdir())}


def _latent_preview(source: ModelSource, say: Say) -> LatentPreview:
    preview = fitted_preview(source)
    say(f"previews of latents: a linear map, {preview.mean_error:.3f} from the decoder on average")
    return preview


def _say_of(say: Say, title: str, text: str) -> None:
    say(f"{title}: {text}")


def _remove_unlisted(bundle: Path, manifest: Manifest) -> None:
    """Remove graphs and plans of an earlier build that this bundle does not list."""
    remove_unlisted_plans(bundle, manifest)
    listed = {bundle / name for name in manifest.all_files()}
    for path in (bundle / "onnx").iterdir():
        if path not in listed:
            path.unlink()


@contextlib.contextmanager
def locked_folder(bundle: Path) -> Iterator[None]:
    """Keep two builds out of one folder; the lock goes with the process, however it ends."""
    folder = bundle / BUILD_FOLDER
    if bundle.exists() and not bundle.is_dir():
        raise BuildError(f"{bundle} is a file; name a folder with --out")
    if bundle.is_dir() and any(bundle.iterdir()) and not folder.is_dir():
        raise BuildError(f"{bundle} is not empty and no bundle; name another folder with --out")
    with build_lock(bundle):
        yield


@dataclass(frozen=True, kw_only=True)
class BuildingPlace:
    """folder: where a build writes; bundle: where what it finished belongs."""

    folder: Path
    bundle: Path

    def publish(self) -> None:
        """Put the finished folder in the bundle's place. The lock moves with it and stays held."""
        if self.folder != self.bundle:
            swap(self.bundle, self.folder)


@contextlib.contextmanager
def building_place(bundle: Path) -> Iterator[BuildingPlace]:
    """Lock a bundle, and yield where to build it: in its own folder, or beside one that works.

    What was there works until `publish`, and where the build is stopped, as before; the same build
    goes on where it stopped. No other build of the bundle begins before the block ends, so that
    plans may be built in it after `publish`.
    """
    with locked_folder(bundle):
        if not (bundle / MANIFEST_NAME).is_file() or not can_swap(bundle):
            yield BuildingPlace(folder=bundle, bundle=bundle)
            return
        beside = folder_beside(bundle)
        require_room_for_copies(bundle, beside)
        seed(bundle, beside)
        with build_lock(beside):
            yield BuildingPlace(folder=beside, bundle=bundle)
