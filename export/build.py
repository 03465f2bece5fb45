"""`python -m export.build [--fp16 | --fp32]`: checkpoints to a bundle, checked and ready to run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engines.build import add_plan_flags, build_if_possible, plan_request
from engines.bundle.files import remove_partial_files, write_atomic
from engines.bundle.folder import BUILD_FOLDER, KERNELS_FOLDER, TOKENIZER_PATH
from engines.bundle.lock import build_lock
from engines.bundle.manifest import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    FileRecord,
    Manifest,
    Precision,
)
from engines.cli.command import run_command
from engines.cli.progress import Display, JsonDisplay, TerminalDisplay
from engines.contract import Component
from engines.plans.bundle_plans import PlanRequest
from engines.plans.store import published_plans, remove_unlisted_plans
from export.checkpoint.checkpoint import (
    RELEASED_MODEL,
    SHIPPED_MODEL,
    Checkpoint,
    ModelSource,
)
from export.checkpoint.model_facts import dimensions_of, noise_schedule_of, tokenizer_json
from export.checkpoint.random_weights import random_checkpoint
from export.checks.disk_space import require_disk_space
from export.checks.picture import (
    NOISE_PREVIEW,
    PREVIEW,
    PREVIEW_NAME,
    BuildError,
    draw_preview,
    pipeline_parity,
)
from export.component import (
    BuildOptions,
    build_component,
    built_component,
    file_record,
    input_digest,
    tool_versions,
)
from export.cubins.build import ARCHITECTURES, build_cubins

MODELS = {"shipped": SHIPPED_MODEL, "released": RELEASED_MODEL}

Say = Callable[[str], None]


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(prog="python -m export.build", description=__doc__)
    precision = flags.add_mutually_exclusive_group()
    for each in Precision:
        precision.add_argument(
            f"--{each}", dest="precision", action="store_const", const=each,
            default=BuildOptions.precision,
        )  # fmt: skip
    flags.add_argument("--opset", type=int, choices=(21, 23), default=BuildOptions.opset)
    flags.add_argument("--model", choices=MODELS, default="shipped")
    for part in ("base", "tdm", "sdm", "image-encoder"):
        flags.add_argument(
            f"--{part}", metavar="PATH_OR_HUB_ID", help=f"take the {part} from here instead"
        )
    flags.add_argument("--revision", help="revision of the hub repositories")
    flags.add_argument(
        "--random-weights", action="store_true",
        help="full Stable Diffusion 1.5 size, seeded random weights: for size and speed",
    )  # fmt: skip
    flags.add_argument(
        "--architectures", type=int, nargs="*", choices=ARCHITECTURES, default=ARCHITECTURES,
        metavar="SM", help="GPU architectures to compile kernels for (default: all of %(choices)s)",
    )  # fmt: skip
    flags.add_argument(
        "--onnx-only", action="store_true", help="build no TensorRT plans, even where one could"
    )
    add_plan_flags(flags)
    flags.add_argument("--out", type=Path, default=Path("bundle"))
    flags.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return flags


def main(arguments: list[str] | None = None) -> int:
    flags = parser()
    options = flags.parse_args(arguments)
    plans = None if options.onnx_only else plan_request(flags, options)
    return run_command(lambda: _build(options, plans), as_json=options.json)


def _build(options: argparse.Namespace, plans: PlanRequest | None) -> dict[str, Any]:
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)

    source: ModelSource
    if options.random_weights:
        source = random_checkpoint()
    else:
        parts = ("base", "tdm", "sdm", "image_encoder", "revision")
        given = {name: getattr(options, name) for name in parts if getattr(options, name)}
        source = Checkpoint.open(dataclasses.replace(MODELS[options.model], **given))
    for line in source.licenses():
        say(f"license: {line}")
    build_options = BuildOptions(precision=options.precision, opset=options.opset)
    with _locked(options.out):
        manifest = build_bundle(
            options.out,
            source,
            build_options,
            say,
            options.architectures,
            preview=NOISE_PREVIEW if options.random_weights else PREVIEW,
        )
        built = None if plans is None else build_if_possible(options.out, plans, _display(say))
    say(f"{options.out} is ready; its picture is {options.out / PREVIEW_NAME}")
    return {
        "bundle": str(options.out),
        "seconds": round(time.monotonic() - started, 1),
        "parity": {
            name: {graph: figures.relative_l2 for graph, figures in record.parity.items()}
            for name, record in manifest.components.items()
        },
        "pipeline_parity": manifest.pipeline_parity,
        "plans": [plan.name for plan in (built.manifest if built else manifest).plans],
    }


def _display(say: Say) -> Display:
    """Progress of plans; sentences look like all others of this build."""
    return TerminalDisplay(sys.stderr) if sys.stderr.isatty() else JsonDisplay(sys.stderr, say)


def build_bundle(
    bundle: Path,
    source: ModelSource,
    options: BuildOptions,
    say: Say,
    architectures: Sequence[int] = ARCHITECTURES,
    *,
    preview: Sequence[str] = PREVIEW,
) -> Manifest:
    """Build or finish a bundle; whatever an earlier build left that still fits is kept.

    architectures: GPU architectures to compile kernels for. preview: what the runtime is asked for
    in the picture that ends the build. The manifest is written last, so a bundle that opens is
    complete. Raises CheckpointError, LintError, ParityError, KernelBuildError, DiskSpaceError or
    BuildError, and leaves what is finished for the next build.
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
    missing = [component for component in Component if component not in records]
    require_disk_space(bundle, source, dimensions, options.precision, missing)
    # From here to the end the folder is an unfinished build, and opens as none.
    (bundle / MANIFEST_NAME).unlink(missing_ok=True)
    for number, component in enumerate(Component, 1):
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
    )
    plans, timing_cache = published_plans(bundle, manifest.components)
    with _candidate(bundle, manifest) as candidate:
        say("drawing in PyTorch and from the bundle, to compare")
        parity = pipeline_parity(candidate, source, manifest)
        say(f"whole pipeline within {parity['relative_l2']:.1e} (bound {parity['bound']:.0e})")
        say(f"drawing {PREVIEW_NAME}")
        draw_preview(candidate, preview)
        (candidate / PREVIEW_NAME).replace(bundle / PREVIEW_NAME)
    manifest = dataclasses.replace(
        manifest,
        pipeline_parity=parity,
        files=manifest.files | {PREVIEW_NAME: file_record(bundle / PREVIEW_NAME)},
        plans=plans,
        timing_cache=timing_cache,
    )
    _remove_unlisted(bundle, manifest)
    write_atomic(bundle / MANIFEST_NAME, manifest.to_json().encode())
    return manifest


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


def _say_of(say: Say, title: str, text: str) -> None:
    say(f"{title}: {text}")


@contextlib.contextmanager
def _candidate(bundle: Path, manifest: Manifest) -> Iterator[Path]:
    """A folder that opens as the bundle would, to check it before its manifest is published."""
    folder = bundle / BUILD_FOLDER / "candidate"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        for name in ("onnx", "tokenizer", KERNELS_FOLDER):
            (folder / name).symlink_to((bundle / name).resolve(), target_is_directory=True)
        (folder / MANIFEST_NAME).write_text(manifest.to_json())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unlisted(bundle: Path, manifest: Manifest) -> None:
    """Remove graphs and plans of an earlier build that this bundle does not list."""
    remove_unlisted_plans(bundle, manifest)
    listed = {bundle / name for name in manifest.all_files()}
    for path in (bundle / "onnx").iterdir():
        if path not in listed:
            path.unlink()


@contextlib.contextmanager
def _locked(bundle: Path) -> Iterator[None]:
    """Keep two builds out of one folder; the lock goes with the process, however it ends."""
    folder = bundle / BUILD_FOLDER
    if bundle.exists() and not bundle.is_dir():
        raise BuildError(f"{bundle} is a file; name a folder with --out")
    if bundle.is_dir() and any(bundle.iterdir()) and not folder.is_dir():
        raise BuildError(f"{bundle} is not empty and no bundle; name another folder with --out")
    with build_lock(bundle):
        yield


if __name__ == "__main__":
    sys.exit(main())
