"""The GPU backend: engines on device buffers, our kernels between them, one graph a step."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

from engines import commands
from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.bundle.kernel_manifest import FILE_NAME
from engines.contract import ENCODER_ROWS, Component
from engines.cuda.arena import Workspaces
from engines.cuda.driver import CudaError, Driver
from engines.cuda.gpu import Gpu, retained_gpu
from engines.cuda.launcher import KernelLibrary, opened_library
from engines.cuda.streams import Streams
from engines.engine import Array
from engines.errors import DeviceMemoryError, ProviderUnavailableError
from engines.guides import GuidanceRule
from engines.providers import OpenProvider
from runtime.gpu.assembly import GpuParts
from runtime.gpu.encoder import GpuEncoder
from runtime.gpu.kernels import LatentsSize
from runtime.gpu.programs import Concurrency, StepKind, StepPrograms
from runtime.gpu.residents import Residents, ResidentsInTurns
from runtime.gpu.run import GpuRun
from runtime.gpu.steps import GpuSteps
from runtime.outputs import check_output
from runtime.trajectory import RequestKind, Trajectory

T = TypeVar("T")
MAX_SIZES = 4
TRIALS = 10


class GpuBackend:
    """Everything of one bundle on one GPU.

    The latest MAX_SIZES sizes and rules stay set up; where memory is short, older ones are given
    up. concurrency: how the fusion stage runs its models; None measures it for each size and rule,
    with so many trials. low_memory: only the engines that compute next are on the GPU, one after
    the other in one activation memory, and one size stays set up.
    """

    # Steps of one size share their device buffers.
    nests = False

    def __init__(
        self,
        bundle: Bundle,
        driver: Driver,
        open_provider: OpenProvider,
        *,
        concurrency: Concurrency | None = None,
        trials: int = TRIALS,
        low_memory: bool = False,
    ) -> None:
        """Open the GPU, the kernels and the provider; engines are opened when they are needed.

        Raises ProviderUnavailableError where the bundle has no kernels or plans for this GPU.
        """
        self._concurrency, self._trials = concurrency, trials
        self._max_sizes = 1 if low_memory else MAX_SIZES
        self._encoders: dict[tuple[Component, int], GpuEncoder] = {}
        # By size, rule, and whether SDM's augmented pass runs by itself.
        self._sizes: OrderedDict[tuple[LatentsSize, GuidanceRule, bool], GpuSteps] = OrderedDict()
        with ExitStack() as retained:
            gpu = retained.enter_context(retained_gpu(driver))
            with gpu.current(), ExitStack() as stack:
                # Closed in reverse: engines' weights, kernels, events and streams.
                streams = Streams.opened(gpu, stack)
                library = stack.enter_context(_opened_kernels(bundle, gpu))
                provider = open_provider(bundle, gpu, streams.main)
                stack.callback(provider.close)
                residents = (
                    ResidentsInTurns(gpu, provider, streams.main)
                    if low_memory
                    else Residents(provider)
                )
                stack.callback(residents.close)
                self._parts = GpuParts(
                    bundle=bundle,
                    gpu=gpu,
                    streams=streams,
                    provider=provider,
                    residents=residents,
                    library=library,
                    workspaces=Workspaces(gpu),
                    sizes=bundle.manifest.dimensions.sizes(),
                )
                self._stack = stack.pop_all()
            self._retained = retained.pop_all()

    @property
    def provider(self) -> str:
        return str(self._parts.provider.provider)

    @property
    def host_settings(self) -> None:
        """None: what it computes in is its engines'."""

    @property
    def gpu(self) -> Gpu:
        return self._parts.gpu

    def active(self) -> AbstractContextManager[None]:
        """The calling thread uses this GPU, and has back what it used before when this ends."""
        return self.gpu.current()

    def programs(self, kind: RequestKind) -> StepPrograms:
        """The steps of a kind of request: how their fusion stage runs, and what was measured."""
        with self.active():
            return self._steps(kind).programs

    def run(
        self, component: Component, inputs: Mapping[str, Array], output_shape: tuple[int, ...]
    ) -> Array:
        encoder = self._encoder(component, output_shape[0])
        self._parts.residents.hold([encoder.engine])
        output = encoder.run(self._parts.streams.main, inputs)
        check_output(component, output, self.provider, "", self._parts.bundle.path)
        return output

    def warm_up(self, kind: RequestKind) -> None:
        """Bind, run and capture all that requests of a kind need.

        Raises RequestError where no engine admits the size, DeviceMemoryError.
        """
        with self.active():
            self._with_room(kind, lambda steps: steps.prepare(StepKind.all_of(kind)))
            for component, count in ENCODER_ROWS.items():
                self._encoder(component, count)

    def stepper(self, trajectory: Trajectory) -> GpuRun:
        """Raises DeviceMemoryError where maps, or in low memory a stage's U-Nets, find no room."""

        def run(steps: GpuSteps) -> GpuRun:
            # Once more: now that engines were open, they have told what they take to run.
            self._parts.check_room(trajectory)
            return GpuRun(steps, trajectory)

        self._parts.check_room(trajectory)
        return self._with_room(trajectory.kind, run)

    def close(self) -> None:
        """Wait for the GPU; then steps, encoders, weights, kernels, streams, in this order.

        All of it is given back, whatever fails. A fault of work under way is raised unless an error
        is on its way already, whose consequence it is.
        """
        on_its_way = sys.exc_info()[1] is not None
        with ExitStack() as closing:
            closing.enter_context(self._retained)
            closing.enter_context(self.gpu.current())
            closing.enter_context(self._stack)
            closing.callback(self._encoders.clear)
            for steps in self._sizes.values():
                closing.callback(steps.close)
            self._sizes.clear()
            try:
                self._parts.streams.main.synchronize()
            except CudaError:
                if not on_its_way:
                    raise

    def _encoder(self, component: Component, count: int) -> GpuEncoder:
        key = (component, count)
        if key not in self._encoders:
            self._encoders[key] = self._parts.encoder(self._stack, component, count)
        return self._encoders[key]

    def _steps(self, kind: RequestKind) -> GpuSteps:
        key = (self._parts.size(kind), kind.guidance_rule, kind.runs_alone)
        while key not in self._sizes:
            if len(self._sizes) == self._max_sizes:
                self._give_up_oldest()
            try:
                self._sizes[key] = self._parts.steps(kind, self._concurrency, self._trials)
            except DeviceMemoryError:
                if not self._sizes:
                    raise
                self._give_up_oldest()
        self._sizes.move_to_end(key)
        return self._sizes[key]

    def _with_room(self, kind: RequestKind, use: Callable[[GpuSteps], T]) -> T:
        """Use the steps of a kind; where memory is short, older ones are given up for it."""
        while True:
            try:
                return use(self._steps(kind))
            except DeviceMemoryError:
                # The one that is in use is the newest.
                if len(self._sizes) < 2:
                    raise
                self._give_up_oldest()

    def _give_up_oldest(self) -> None:
        self._parts.streams.main.synchronize()
        self._sizes.popitem(last=False)[1].close()


@contextmanager
def _opened_kernels(bundle: Bundle, gpu: Gpu) -> Iterator[KernelLibrary]:
    """The bundle's kernels; one that was built without any is not damaged, but not for a GPU."""
    folder = bundle.path / KERNELS_FOLDER
    if not (folder / FILE_NAME).is_file():
        raise ProviderUnavailableError(
            f"{bundle.path} has no GPU kernels; build them, on Linux, with",
            fix=commands.rebuilt(bundle.path),
        )
    with opened_library(folder, gpu.architecture, gpu.driver) as library:
        yield library
