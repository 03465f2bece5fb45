"""The GPU backend: engines on device buffers, our kernels between them, one graph a step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from engines import commands
from engines.bundle.folder import KERNELS_FOLDER, Bundle
from engines.bundle.kernel_manifest import FILE_NAME
from engines.contract import ENCODER_ROWS, Component
from engines.cuda.arena import Workspaces
from engines.cuda.driver import Driver
from engines.cuda.gpu import Gpu, opened_gpu
from engines.cuda.launcher import KernelLibrary, opened_library
from engines.cuda.streams import Streams
from engines.engine import Array
from engines.errors import DeviceMemoryError, ProviderUnavailableError
from engines.guides import GuidanceRule
from engines.providers import OpenProvider
from runtime.gpu.assembly import GpuParts
from runtime.gpu.encoder import GpuEncoder
from runtime.gpu.kernels import LatentsSize
from runtime.gpu.programs import Concurrency, StepPrograms
from runtime.gpu.run import GpuRun
from runtime.gpu.steps import GpuSteps
from runtime.outputs import check_output
from runtime.trajectory import RequestKind, Trajectory

MAX_SIZES = 4
TRIALS = 10


class GpuBackend:
    """Everything of one bundle on one GPU.

    The latest MAX_SIZES sizes and rules stay set up; where memory is short, older ones are given
    up. concurrency: how the fusion stage runs its models; None measures it for each size and rule,
    with so many trials.
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
    ) -> None:
        """Open the GPU, the kernels and the provider; engines are opened when they are needed.

        Raises ProviderUnavailableError where the bundle has no kernels or plans for this GPU.
        """
        self._concurrency, self._trials = concurrency, trials
        self._encoders: dict[tuple[Component, int], GpuEncoder] = {}
        # By size, rule, and whether SDM's augmented pass runs by itself.
        self._sizes: OrderedDict[tuple[LatentsSize, GuidanceRule, bool], GpuSteps] = OrderedDict()
        with ExitStack() as stack:
            # Closed in reverse: engines' weights, kernels, events and streams, the GPU.
            gpu = stack.enter_context(opened_gpu(driver))
            streams = Streams.opened(gpu, stack)
            library = stack.enter_context(_opened_kernels(bundle, gpu))
            provider = open_provider(bundle, gpu, streams.main)
            stack.callback(provider.close)
            self._parts = GpuParts(
                bundle=bundle,
                gpu=gpu,
                streams=streams,
                provider=provider,
                library=library,
                workspaces=Workspaces(gpu),
                sizes=bundle.manifest.dimensions.sizes(),
            )
            self._stack = stack.pop_all()

    @property
    def provider(self) -> str:
        return str(self._parts.provider.provider)

    @property
    def host_settings(self) -> None:
        """None: what it computes in is its engines'."""

    @property
    def gpu(self) -> Gpu:
        return self._parts.gpu

    def programs(self, kind: RequestKind) -> StepPrograms:
        """The steps of a kind of request: how their fusion stage runs, and what was measured."""
        return self._steps(kind).programs

    def run(
        self, component: Component, inputs: Mapping[str, Array], output_shape: tuple[int, ...]
    ) -> Array:
        self.gpu.make_current()
        output = self._encoder(component, output_shape[0]).run(self._parts.streams.main, inputs)
        check_output(component, output, self.provider, "", self._parts.bundle.path)
        return output

    def warm_up(self, kind: RequestKind) -> None:
        """Bind, run and capture all that requests of a kind need.

        Raises RequestError where no engine admits the size, DeviceMemoryError.
        """
        self.gpu.make_current()
        self._steps(kind).prepare(kind)
        for component, count in ENCODER_ROWS.items():
            self._encoder(component, count)

    def stepper(self, trajectory: Trajectory) -> GpuRun:
        self.gpu.make_current()
        return GpuRun(self._steps(trajectory.kind), trajectory)

    def close(self) -> None:
        """Wait for the GPU; then steps, encoders, weights, kernels, streams, in this order."""
        self.gpu.make_current()
        self._parts.streams.main.synchronize()
        while self._sizes:
            self._sizes.popitem()[1].close()
        self._encoders.clear()
        self._stack.close()

    def _encoder(self, component: Component, count: int) -> GpuEncoder:
        key = (component, count)
        if key not in self._encoders:
            self._encoders[key] = self._parts.encoder(self._stack, component, count)
        return self._encoders[key]

    def _steps(self, kind: RequestKind) -> GpuSteps:
        size = LatentsSize(
            images=kind.images,
            height=kind.height,
            width=kind.width,
            channels=self._parts.sizes["latent_channels"],
        )
        key = (size, kind.guidance_rule, kind.runs_alone)
        while key not in self._sizes:
            if len(self._sizes) == MAX_SIZES:
                self._give_up_oldest()
            try:
                self._sizes[key] = self._parts.steps(
                    size,
                    kind.guidance_rule,
                    self._concurrency,
                    self._trials,
                    runs_alone=kind.runs_alone,
                )
            except DeviceMemoryError:
                if not self._sizes:
                    raise
                self._give_up_oldest()
        self._sizes.move_to_end(key)
        return self._sizes[key]

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
