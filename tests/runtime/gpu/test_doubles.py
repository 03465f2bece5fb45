"""What the doubles are for: each defect is planted here, and noticed as on a GPU, or sooner."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.contract import Component
from engines.cuda import arena
from engines.cuda.driver import CudaError
from engines.cuda.gpu import Gpu
from engines.engine import DeviceTensor
from runtime import StepInfo
from runtime.gpu.assembly import GpuParts
from runtime.gpu.backend import GpuBackend
from runtime.gpu.programs import Concurrency
from runtime.gpu.run import GpuRun
from runtime.gpu.steps import GpuSteps
from runtime.trajectory import Trajectory
from tests.doubles.cuda_driver import CudaDriver, Misuse, cuda_driver
from tests.doubles.host_engine import HostEngine
from tests.runtime.gpu.double import OnCuda, on_cuda, with_kernels
from tests.runtime.gpu.drawing import small


@pytest.fixture(scope="module")
def bundle(golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_kernels(golden_bundle, tmp_path_factory.mktemp("doubles"))


@pytest.fixture
def driver(bundle: Path) -> CudaDriver:
    return cuda_driver(bundle / "kernels")


@pytest.mark.parametrize("concurrency", Concurrency)
def test_a_capture_without_a_first_run(
    concurrency: Concurrency, bundle: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GpuParts, "_run_once", lambda *_: None)
    with (
        on_cuda(bundle, driver=driver, concurrency=concurrency) as cuda,
        pytest.raises(CudaError, match=r"cuStreamEndCapture of a step .* 901"),
    ):
        cuda.face_diffuser.generate(small())


@pytest.mark.parametrize("concurrency", Concurrency)
def test_a_scratch_that_two_models_share_is_noticed_where_they_run_side_by_side(
    concurrency: Concurrency, bundle: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind, of_tdm = HostEngine.bind, []

    def shared(
        engine: HostEngine, tensors: dict[str, DeviceTensor], workspace: int, stream: int
    ) -> None:
        if engine.component is Component.TDM_UNET:
            of_tdm.append(workspace)
        if engine.component is Component.SDM_UNET:
            workspace = of_tdm[-1]
        bind(engine, tensors, workspace, stream)

    monkeypatch.setattr(HostEngine, "bind", shared)
    if concurrency is Concurrency.SERIAL:
        with on_cuda(bundle, driver=driver, concurrency=concurrency) as cuda:
            cuda.face_diffuser.generate(small())
        return
    with (
        pytest.raises(Misuse, match="something else used the workspace of"),
        on_cuda(bundle, driver=driver, concurrency=concurrency) as cuda,
    ):
        cuda.face_diffuser.generate(small())


def test_a_thread_without_a_current_context(
    bundle: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[BaseException] = []

    def elsewhere(cuda: OnCuda) -> None:
        try:
            cuda.face_diffuser.generate(small())
        except (CudaError, Misuse) as error:
            found.append(error)

    with on_cuda(bundle, driver=driver) as cuda:
        with monkeypatch.context() as planted:
            planted.setattr(GpuBackend, "active", lambda _: nullcontext())
            thread = threading.Thread(target=elsewhere, args=(cuda,))
            thread.start()
            thread.join()
        (error,) = found
        assert "201" in str(error)
        cuda.face_diffuser.generate(small())


def test_a_gpu_that_is_never_made_current(
    bundle: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gpu, "current", lambda _: nullcontext())
    with pytest.raises(CudaError, match="201"), on_cuda(bundle, driver=driver):
        pass
    driver.cuCtxSetCurrent("of an application")
    theirs = pytest.raises(Misuse, match="in the context of somebody else")
    with theirs, on_cuda(bundle, driver=driver):
        pass


def test_a_workspace_that_is_given_back_while_another_uses_it(
    bundle: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def freed(workspaces: arena.Workspaces, block: Any) -> None:
        if block in workspaces._blocks:
            workspaces._blocks.remove(block)
            block.stack.close()

    monkeypatch.setattr(arena.Workspaces, "_release", freed)
    noticed = pytest.raises(Misuse, match="runs on memory that was given back")
    with noticed, on_cuda(bundle, driver=driver) as cuda:
        # Two rules share a block; the older is given up.
        cuda.face_diffuser.warm_up(height=64, width=64)
        cuda.face_diffuser.warm_up(height=64, width=64, guidance_rule="released")
        with cuda.backend.active():
            cuda.backend._give_up_oldest()
        cuda.face_diffuser.generate(small(guidance_rule="released"))


def test_inputs_that_are_written_while_their_upload_is_under_way(
    bundle: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = GpuRun.__init__

    def staging_late(run: GpuRun, steps: GpuSteps, trajectory: Trajectory) -> None:
        begin(run, steps, trajectory)
        steps.buffers.staged["timestep"][...] = 7

    monkeypatch.setattr(GpuRun, "__init__", staging_late)
    noticed = pytest.raises(Misuse, match="pinned bytes were written while a copy still read")
    with noticed, on_cuda(bundle, driver=driver) as cuda:
        cuda.face_diffuser.generate(small())


def test_results_that_are_read_before_they_have_come(
    bundle: Path, driver: CudaDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: dict[bool, list[Any]] = {False: [], True: []}
    with on_cuda(bundle, driver=driver) as cuda:
        for planted, kept in steps.items():
            if planted:
                monkeypatch.setattr("engines.cuda.gpu.Event.done", lambda _: True)

            def keep(info: StepInfo, kept: list[Any] = kept) -> None:
                kept.append(info.latents)

            cuda.face_diffuser.generate(small(), on_step=keep)
    assert all(np.isfinite(latents).all() for latents in steps[False])
    assert not any(np.isfinite(latents).all() for latents in steps[True][:2])
