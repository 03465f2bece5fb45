"""The launcher and its grids, against a driver that records; no GPU, no torch, no triton."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engines.bundle.kernel_manifest import FILE_NAME, KernelManifest, cubin_path
from engines.cuda.driver import CudaError
from engines.cuda.launcher import KernelLibrary, Launch, opened_library
from engines.errors import (
    BundleCorruptError,
    BundleNotFoundError,
    BundleSchemaError,
    ContractError,
    ProviderUnavailableError,
    RequestError,
)
from engines.guides import SDM_ALONE, SDM_GUIDES, TDM_GUIDE, GuidanceRule
from kernels import table
from runtime.gpu.kernels import LatentsSize, Model, StepBuffers, StepKernels, sums_elements
from runtime.method.guidance import SubjectGuidance
from runtime.method.saliency import Fusion
from tests.kernels.recorder import CONSTANTS, Recorder, written_library

BUFFERS = StepBuffers(
    latents=0x1000,
    engine_latents=0x2000,
    history=0x3000,
    delta=0x3800,
    table=0x4000,
    clock=0x5000,
    timestep=0x5100,
    faults=0x5200,
    tdm_saliency=0x6000,
    sdm_saliency=0x7000,
    sums=0x8000,
    mask=0x9000,
)
TDM, SDM = 0xA000, 0xB000
GUIDES = (TDM_GUIDE, SDM_GUIDES[GuidanceRule.PAPER])
PIXELS = {"decoded": TDM, "picture": SDM, "faults": BUFFERS.faults}
STREAM = 77


@pytest.fixture
def driver(tmp_path: Path) -> Recorder:
    return written_library(tmp_path)


@pytest.fixture
def library(tmp_path: Path, driver: Recorder) -> Iterator[KernelLibrary]:
    with opened_library(tmp_path, 90, driver) as library:
        yield library


def kernels(library: KernelLibrary, images: int, height: int, width: int) -> StepKernels:
    size = LatentsSize(images=images, height=height, width=width)
    return StepKernels(library, size, BUFFERS, table_rows=52, steps=51)


def enqueued(driver: Recorder, launches: tuple[Launch, ...]) -> list[tuple[str, tuple[int, ...]]]:
    """Entry and grid of each launch, as the driver got them."""
    for launch in launches:
        launch.enqueue(STREAM)
    return [(entry, geometry[:2]) for entry, geometry, _ in driver.launches]


def test_a_guided_step_is_one_launch(library: KernelLibrary, driver: Recorder) -> None:
    launches = kernels(library, 2, 64, 72).guided(TDM, TDM_GUIDE, Model.TDM)
    assert enqueued(driver, launches) == [("guided_step", (18, 2))]
    _, geometry, values = driver.launches[0]
    assert geometry == (18, 2, 1, 128, 1, 1, 1024, STREAM)
    elements = 4 * 64 * 72
    buffers = [0x1000, 0x2000, 0x3000, 0x3800, 0x4000, 0x5000, 0x5100, 0x5200]
    assert values == [TDM, *buffers, Model.TDM, 0, 0, 1, 0, elements, 0, 0]


@pytest.mark.parametrize(
    ("guidance", "expected"),
    [
        (SubjectGuidance.KEPT, table.DELTA_KEPT.value),
        (SubjectGuidance.CACHED, table.DELTA_ADDED.value),
        (SubjectGuidance.OFF, 0),
    ],
)
def test_what_guidance_adds_is_kept_or_added_as_the_kernel_reads_it(
    library: KernelLibrary, driver: Recorder, guidance: SubjectGuidance, expected: int
) -> None:
    made = kernels(library, 1, 64, 64).guided(SDM, SDM_ALONE, Model.SDM, guidance)
    enqueued(driver, made)
    assert driver.launches[0][2][-4] == expected


@pytest.mark.parametrize(
    ("height", "width", "tiles", "blocks"),
    [(64, 64, 16, 16), (64, 96, 16, 24), (96, 64, 24, 24), (8, 256, 2, 8), (512, 64, 128, 128)],
)
def test_fusion_of_any_size_is_two_launches(
    library: KernelLibrary, driver: Recorder, height: int, width: int, tiles: int, blocks: int
) -> None:
    launches = kernels(library, 2, height, width).fusion(
        (TDM, SDM), GUIDES, Fusion.SALIENCY, keep_saliency=True
    )
    assert enqueued(driver, launches) == [
        ("fusion_saliency", (tiles, 2)),
        ("fusion_blend", (blocks, 2)),
    ]
    saliency, blend = (values for _, _, values in driver.launches)
    assert saliency[7:] == [0, 1, 1, 2, height, width, height * width, 0, 0]
    assert blend[13:] == [0, 0, 1, 0, 1, 2, height * width, tiles, 1, 0, 0]


def test_addition_is_one_launch_of_any_size(library: KernelLibrary, driver: Recorder) -> None:
    launches = kernels(library, 1, 64, 96).fusion((TDM, SDM), GUIDES, Fusion.ADDITION)
    assert enqueued(driver, launches) == [("fusion_blend", (24, 1))]
    assert driver.launches[0][2][-4:] == [0, 0, 0, 0]


def test_pixels_are_one_launch(library: KernelLibrary, driver: Recorder) -> None:
    launches = kernels(library, 2, 64, 64).pixels(TDM, SDM)
    assert enqueued(driver, launches) == [("pixels", (192, 2))]
    assert driver.launches[0][2] == [TDM, SDM, BUFFERS.faults, 512 * 512, 0, 0]


def test_a_launch_is_replayed_from_the_same_memory(
    library: KernelLibrary, driver: Recorder
) -> None:
    (launch,) = kernels(library, 1, 64, 64).guided(TDM, TDM_GUIDE, Model.TDM)
    launch.enqueue(STREAM)
    launch.enqueue(STREAM)
    assert driver.launches[0] == driver.launches[1]


def test_every_kernel_is_unloaded(tmp_path: Path, driver: Recorder) -> None:
    with opened_library(tmp_path, 90, driver):
        pass
    assert len(driver.unloaded) == len(CONSTANTS)


def test_the_workspace_is_four_sums_a_tile(library: KernelLibrary) -> None:
    assert sums_elements(library, LatentsSize(images=2, height=64, width=96)) == 2 * 4 * 16


def test_a_misaligned_address_names_kernel_and_argument(library: KernelLibrary) -> None:
    with pytest.raises(
        ContractError, match=r"guided_step: prediction is 0xa008, .* multiple of 16"
    ):
        kernels(library, 1, 64, 64).guided(TDM + 8, TDM_GUIDE, Model.TDM)


def test_a_null_address_is_refused(library: KernelLibrary) -> None:
    with pytest.raises(ContractError, match="guided_step: prediction is 0x0"):
        kernels(library, 1, 64, 64).guided(0, TDM_GUIDE, Model.TDM)


def test_arguments_must_be_complete(library: KernelLibrary) -> None:
    with pytest.raises(ContractError, match=r"kernel pixels takes .*found \['decoded'\]"):
        library["pixels"].prepare((1, 1), {"decoded": TDM})


def test_a_promise_about_numbers_is_kept(library: KernelLibrary) -> None:
    with pytest.raises(ContractError, match="plane is 100, expected a multiple of 16"):
        library["pixels"].prepare((1, 1), PIXELS | {"plane": 100})
    with pytest.raises(ContractError, match="int32"):
        library["pixels"].prepare((1, 1), PIXELS | {"plane": 2**31})


@pytest.mark.parametrize("grid", [(0, 1), (1, 65536)])
def test_an_impossible_grid_is_refused(library: KernelLibrary, grid: tuple[int, int]) -> None:
    with pytest.raises(ContractError, match="pixels cannot be launched"):
        library["pixels"].prepare(grid, PIXELS | {"plane": 64})


@pytest.mark.parametrize(
    ("images", "height", "width", "message"),
    [
        (0, 64, 64, "1 to 16 images"),
        (17, 64, 64, "1 to 16 images"),
        (1, 60, 64, "480 x 512 px"),
        (1, 64, 0, "512 x 0 px"),
        (16, 1024, 1024, "32 bits"),
    ],
)
def test_impossible_sizes_are_refused(images: int, height: int, width: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        LatentsSize(images=images, height=height, width=width)


def test_too_wide_and_too_high_name_the_kernel(library: KernelLibrary) -> None:
    arguments = ((TDM, SDM), GUIDES, Fusion.SALIENCY)
    with pytest.raises(RequestError, match=r"fusion_saliency_w256 .*2048 px, found 2112 px"):
        kernels(library, 1, 64, 264).fusion(*arguments)
    with pytest.raises(RequestError, match="fusion_blend fuses up to 128 tiles"):
        kernels(library, 1, 520, 64).fusion(*arguments)


def test_a_table_shorter_than_the_steps_is_refused(library: KernelLibrary) -> None:
    size = LatentsSize(images=1, height=64, width=64)
    with pytest.raises(ContractError, match="51 rows for 51 steps"):
        StepKernels(library, size, BUFFERS, table_rows=51, steps=51)


def test_latents_of_other_channels_are_refused(library: KernelLibrary) -> None:
    size = LatentsSize(images=1, height=64, width=64, channels=16)
    with pytest.raises(ContractError, match="16 channels"):
        StepKernels(library, size, BUFFERS, table_rows=52, steps=51)


def test_an_architecture_without_cubins_names_the_rebuild(tmp_path: Path, driver: Recorder) -> None:
    expected = r"sm_89, .*for sm_90; .*python -m export\.build"
    with (
        pytest.raises(ProviderUnavailableError, match=expected),
        opened_library(tmp_path, 89, driver),
    ):
        pass


def test_an_altered_cubin_is_refused(tmp_path: Path, driver: Recorder) -> None:
    cubin_path(tmp_path, "pixels", 90).write_bytes(b"other")
    with (
        pytest.raises(BundleCorruptError, match=r"pixels\.sm_90\.cubin does not match"),
        opened_library(tmp_path, 90, driver),
    ):
        pass


def test_a_missing_cubin_is_refused(tmp_path: Path, driver: Recorder) -> None:
    cubin_path(tmp_path, "pixels", 90).unlink()
    with (
        pytest.raises(BundleCorruptError, match=r"pixels\.sm_90\.cubin is missing"),
        opened_library(tmp_path, 90, driver),
    ):
        pass


def test_a_module_with_other_parameters_is_refused(tmp_path: Path, driver: Recorder) -> None:
    sizes = {**driver.parameter_nbytes, b"pixels": [8, 8, 4, 4, 8, 8]}
    other = replace(driver, parameter_nbytes=sizes)
    with (
        pytest.raises(BundleCorruptError, match="kernel pixels takes parameters"),
        opened_library(tmp_path, 90, other),
    ):
        pass
    assert other.unloaded


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", BundleCorruptError),
        ("[]", BundleCorruptError),
        ('{"schema_version": 3}', BundleCorruptError),
        ('{"schema_version": 2}', BundleSchemaError),
        ('{"schema_version": 99}', BundleSchemaError),
    ],
)
def test_a_damaged_json_is_refused(tmp_path: Path, text: str, error: type[Exception]) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(error, match=r"python -m export\.build"):
        KernelManifest.read(tmp_path)


def test_an_argument_of_an_unknown_type_is_refused(tmp_path: Path, driver: Recorder) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(path.read_text().replace('"int32"', '"float32"'))
    with pytest.raises(BundleCorruptError, match="float32"):
        KernelManifest.read(tmp_path)


def test_no_json_names_the_build(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError, match=r"python -m export\.build"):
        KernelManifest.read(tmp_path)


def test_a_failing_launch_is_an_error(library: KernelLibrary, driver: Recorder) -> None:
    (launch,) = kernels(library, 1, 64, 64).guided(TDM, TDM_GUIDE, Model.TDM)
    driver.launch_status = 700
    with pytest.raises(CudaError, match="700"):
        launch.enqueue(STREAM)


def test_the_launcher_imports_neither_torch_nor_triton() -> None:
    code = (
        "import sys, runtime.gpu.kernels; "
        "sys.exit(bool({'torch', 'triton', 'kernels', 'cuda'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
