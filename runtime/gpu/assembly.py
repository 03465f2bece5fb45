"""How encoders and steps of a GPU backend are put together from its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from engines import commands
from engines.bundle.folder import Bundle
from engines.contract import CONTRACTS, Component, ElementType, Shape
from engines.cuda.arena import Workspaces, aligned
from engines.cuda.gpu import Gpu
from engines.cuda.launcher import KernelLibrary
from engines.cuda.streams import Streams
from engines.engine import DeviceEngine, DeviceProvider
from engines.errors import ContractError
from engines.guides import GuidanceRule
from runtime.gpu.buffers import TABLE_ROWS, GpuBuffers
from runtime.gpu.decoder import GpuDecoder
from runtime.gpu.encoder import GpuEncoder
from runtime.gpu.kernels import LatentsSize, StepKernels, sums_elements
from runtime.gpu.programs import BoundModel, Concurrency, StepPrograms, Unet, unets_by_stage
from runtime.gpu.residents import Residents, ResidentsInTurns
from runtime.gpu.steps import MARKED, MARKS, GpuSteps, MapRoom, StepMark
from runtime.trajectory import RequestKind, Trajectory

DECODER = Component.VAE_DECODER


@dataclass(frozen=True, kw_only=True)
class GpuParts:
    """What all of a backend shares. sizes: the model's fixed numbers by symbol."""

    bundle: Bundle
    gpu: Gpu
    streams: Streams
    provider: DeviceProvider
    residents: Residents
    library: KernelLibrary
    workspaces: Workspaces
    sizes: Mapping[str, int]

    def size(self, kind: RequestKind) -> LatentsSize:
        """Of a kind of request's latents; raises RequestError for impossible ones."""
        channels = self.sizes["latent_channels"]
        return LatentsSize(
            images=kind.images, height=kind.height, width=kind.width, channels=channels
        )

    def check_room(self, trajectory: Trajectory) -> None:
        """In low memory: raise DeviceMemoryError where what a stage runs cannot be held at once."""
        if not isinstance(self.residents, ResidentsInTurns):
            return
        size, rule = self.size(trajectory.kind), trajectory.kind.guidance_rule
        self.residents.check_room(
            {
                stage.value: [(each.component, self._shapes_of(each, size, rule)) for each in unets]
                for stage, unets in unets_by_stage(trajectory).items()
            }
        )

    def encoder(self, stack: ExitStack, component: Component, count: int) -> GpuEncoder:
        """An encoder for so many at once, bound and run once; closed with the stack."""
        shapes = self._shapes(component, n=count)
        with ExitStack() as own:
            # Closed in reverse: the context, then the memory that it uses.
            memory, contexts = (own.enter_context(ExitStack()) for _ in range(2))
            engine = self.residents.open(contexts, component, shapes)
            encoder = GpuEncoder.bound(
                self.gpu, memory, self.workspaces, self.streams.main, engine, component, shapes
            )
            self.residents.hold([engine])
            encoder.warm_up(self.streams.main)
            stack.push(own.pop_all())
        return encoder

    def steps(self, kind: RequestKind, concurrency: Concurrency | None, trials: int) -> GpuSteps:
        """The steps of a kind's size and rule, bound and run once.

        With what runs SDM's augmented pass by itself where the kind needs it. concurrency: None
        measures it, with so many trials; engines in turns are one after the other. Raises
        RequestError where no engine admits the size, DeviceMemoryError.
        """
        size, rule = self.size(kind), kind.guidance_rule
        unets = [each for each in Unet if each is not Unet.SDM_ALONE or kind.runs_alone]
        shapes = {each: self._shapes_of(each, size, rule) for each in unets}
        with ExitStack() as stack:
            # Closed in reverse: graphs, then contexts, then the memory that both use.
            memory, contexts, graphs = (stack.enter_context(ExitStack()) for _ in range(3))
            self.residents.capture_into(graphs)
            engines = {
                each: self.residents.open(contexts, each.component, its)
                for each, its in shapes.items()
            }
            one = self._shapes(DECODER, images=1, h=size.height, w=size.width)
            decoding = self.residents.open(contexts, DECODER, one)
            for unet, engine in engines.items():
                self._check_types(unet.component, engine)
            self._check_types(DECODER, decoding)
            buffers = GpuBuffers.allocated(
                self.gpu, memory, size,
                {each.component: shapes[each] for each in (Unet.TDM, Unet.SDM)},
                engines[Unet.TDM].dtypes, sums_elements(self.library, size),
            )  # fmt: skip
            kernels = StepKernels(
                self.library, size, buffers.of_kernels(),
                table_rows=TABLE_ROWS, steps=TABLE_ROWS - 1,
            )  # fmt: skip
            decoder = GpuDecoder.prepared(
                self.gpu, memory, decoding, one,
                buffers.tensors["engine_latents"], buffers.tensors["faults"], kernels,
            )  # fmt: skip
            self._bind(memory, engines, shapes, buffers, decoder, one)
            models = {
                each: BoundModel(
                    engine=engine,
                    prediction=buffers.of_model(each.component)["noise_prediction"].address,
                    guide=each.guide(rule),
                )
                for each, engine in engines.items()
            }
            programs = StepPrograms(self.streams, models, kernels, graphs)
            maps = MapRoom(gpu=self.gpu, layout=buffers.maps_layout)
            memory.callback(maps.close)
            marks = tuple(
                self.gpu.event(memory, "a stage's begin", timed=True) for _ in range(MARKS)
            )
            latents_nbytes = buffers.staged["latents"].nbytes
            step_marks = tuple(
                StepMark.opened(self.gpu, memory, latents_nbytes) for _ in range(MARKED)
            )
            reset = partial(buffers.fill_with_zeros, self.streams.main)
            reset()
            if not self.residents.in_turns:
                self._run_once([*engines.values(), decoding])
                programs.choose_concurrency(concurrency, reset, marks[:2], trials)
            return GpuSteps(
                streams=self.streams,
                buffers=buffers,
                programs=programs,
                decoder=decoder,
                residents=self.residents,
                maps=maps,
                marks=marks,
                step_marks=step_marks,
                stack=stack.pop_all(),
                provider=self.provider.provider,
                bundle=self.bundle.path,
            )

    def _shapes(self, component: Component, **sizes: int) -> dict[str, Shape]:
        return CONTRACTS[component].shapes({**self.sizes, **sizes})

    def _shapes_of(self, unet: Unet, size: LatentsSize, rule: GuidanceRule) -> dict[str, Shape]:
        """A U-Net's, for all images."""
        rows = len(unet.guide(rule).passes) * size.images
        area = {"h": size.height, "w": size.width}
        return self._shapes(unet.component, images=size.images, rows=rows, **area)

    def _check_types(self, component: Component, engine: DeviceEngine) -> None:
        """The kernels read and write what the engines give and take, of one element type."""
        expected = self.library.manifest.element_type
        found = {
            tensor.name: str(engine.dtypes[tensor.name])
            for tensor in CONTRACTS[component].tensors
            if tensor.element_type is ElementType.FLOAT
        }
        if set(found.values()) != {expected}:
            raise ContractError(
                f"the bundle's kernels are for {expected}, {component} has {found}; "
                "build it again with",
                fix=commands.rebuilt(self.bundle.path),
            )

    def _bind(
        self,
        memory: ExitStack,
        engines: Mapping[Unet, DeviceEngine],
        shapes: Mapping[Unet, Mapping[str, Shape]],
        buffers: GpuBuffers,
        decoder: GpuDecoder,
        one: Mapping[str, Shape],
    ) -> None:
        """TDM and SDM may run side by side and have a workspace each; the decoder runs after.

        one: the decoder's shapes.
        """
        main = self.streams.main.handle
        needs = {
            each: aligned(e.workspace_nbytes(shapes[each], main)) for each, e in engines.items()
        }
        tdm_nbytes = needs.pop(Unet.TDM)
        most = max(tdm_nbytes + max(needs.values()), decoder.engine.workspace_nbytes(one, main))
        start = self.workspaces.lease(memory, most).address
        for each, engine in engines.items():
            alone = each is Unet.SDM_ALONE
            tensors = buffers.of_sdm_alone() if alone else buffers.of_model(each.component)
            engine.bind(tensors, start if each is Unet.TDM else start + tdm_nbytes, main)
        decoder.engine.bind(decoder.tensors, start, main)

    def _run_once(self, engines: Sequence[DeviceEngine]) -> None:
        """What an engine sets up in its first run must not be left to a capture."""
        for engine in engines:
            engine.enqueue(self.streams.main.handle)
        self.streams.main.synchronize()
