"""Plans of a bundle for the TensorRT double, as a build would leave them, for small pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx

from engines.bundle.files import file_record
from engines.bundle.folder import Bundle
from engines.bundle.manifest import MANIFEST_NAME
from engines.bundle.plan_record import (
    PLANS_FOLDER,
    BuildProofs,
    BuiltOn,
    BuiltPlan,
    LibraryName,
    NetworkPrecision,
    PlanOptions,
    PlanParity,
    PlanRecord,
    PlanSpec,
)
from engines.contract import Component
from engines.plans.profiles import Profile, shape_ranges
from tests.doubles.tensorrt_names import packed

VERSION = "11.4.0.106"
# Of a native size of 512 px: 64 to 128 px.
SMALL = Profile(
    name="small", images=(1, 1, 2), size=(1 / 8, 1 / 8, 1 / 4), decoder="small", help="for tests"
)


def add_plans(
    bundle: Path,
    architecture: int = 90,
    version: str = VERSION,
    library: LibraryName = LibraryName.TENSORRT,
) -> None:
    """Write a plan of every component and name it in the manifest.

    Those of TensorRT for RTX are for all cards, and were executed on none.
    """
    opened = Bundle.open(bundle)
    (bundle / PLANS_FOLDER).mkdir(exist_ok=True)
    plans = [_added(opened, component, architecture, version, library) for component in Component]
    manifest = replace(opened.manifest, plans=[*opened.manifest.plans, *plans])
    (bundle / MANIFEST_NAME).write_text(manifest.to_json())


def _added(
    bundle: Bundle, component: Component, architecture: int, version: str, library: LibraryName
) -> PlanRecord:
    record = bundle.component(component)
    spec = PlanSpec(
        component=component,
        profile=SMALL.name,
        library=library,
        version=version,
        architectures=() if library is LibraryName.TENSORRT_RTX else (architecture,),
        onnx_digest=record.onnx_digest(),
        shapes=shape_ranges(component, SMALL, bundle.manifest.dimensions),
        options=PlanOptions(),
    )
    header = {
        "version": version, "architecture": architecture, "file": Path(record.onnx).name,
        "profiles": spec.shapes, "detailed": True, "aux_streams": 0, "level": 3,
    }  # fmt: skip
    model = onnx.load(bundle.path / record.onnx)
    path = bundle.path / spec.path
    path.write_bytes(packed(header, model.SerializeToString()))
    return PlanRecord(
        spec=spec,
        built=BuiltPlan(
            file=file_record(path),
            optimization_level=3,
            build_s=1.0,
            device_memory_nbytes=1 << 20,
            weights_nbytes=None,
            proofs=BuildProofs(
                network=NetworkPrecision(tensors=1, single=0, sinusoids=0),
                layers=None,
                attention=None,
            ),
            parity=None
            if library is LibraryName.TENSORRT_RTX
            else PlanParity(relative_l2=0.0, bound=1.0, cases=1, gpu="Double", driver="unknown"),
        ),
        built_on=BuiltOn(
            host="Double of a host", gpu="Double of a GPU", driver="unknown", cuda="13.0"
        ),
    )
