"""How encoders and steps of a GPU backend are put together from its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from engines import commands
from engines.bundle.folder import Bundle
from engines.contract import CONTRACTS, NOISE_PREDICTORS, Component, ElementType, Shape
from engines.cuda.arena import Workspaces, aligned
from engines.cuda.gpu import Gpu
from engines.cuda.launcher import KernelLibrary
from engines.cuda.streams import Streams
from engines.engine import DeviceEngine, DeviceProvider
from engines.errors import ContractError
from engines.guides import SDM_ALONE, SDM_GUIDES, TDM_GUIDE, GuidanceRule, Guide
from runtime.gpu.buffers import TABLE_ROWS, GpuBuffers
from runtime.gpu.decoder import GpuDecoder
from runtime.gpu.encoder import GpuEncoder
from runtime.gpu.kernels import LatentsSize, StepKernels, sums_elements
from runtime.gpu.programs import BoundModel, Concurrency, StepPrograms
from runtime.gpu.steps import MARKED, MARKS, GpuSteps, MapRoom, StepMark

TDM, SDM, DECODER = Component.TDM_UNET, Component.SDM_UNET, Component.VAE_DECODER


@dataclass(frozen=True, kw_only=True)
class GpuParts:
    """What all of a backend shares. sizes: the model's fixed numbers by symbol."""

    bundle: Bundle
    gpu: Gpu
    streams: Streams
    provider: DeviceProvider
    library: KernelLibrary
    workspaces: Workspaces
    sizes: Mapping[str, int]

    def shapes(self, component: Component, **sizes: int) -> dict[str, Shape]:
        return CONTRACTS[component].shapes({**self.sizes, **sizes})

    def encoder(self, stack: ExitStack, component: Component, count: int) -> GpuEncoder:
        """An encoder for so many at once, bound and run once; closed with the stack."""
        shapes = self.shapes(component, n=count)
        with ExitStack() as own:
            # Closed in reverse: the context, then the memory that it uses.
            memory, contexts = (own.enter_context(ExitStack()) for _ in range(2))
            engine = self._opened(contexts, component, shapes)
            encoder = GpuEncoder.bound(
                self.gpu, memory, self.workspaces, self.streams.main, engine, component, shapes
            )
            encoder.warm_up(self.streams.main)
            stack.push(own.pop_all())
        return encoder

    def steps(
        self,
        size: LatentsSize,
        rule: GuidanceRule,
        concurrency: Concurrency | None,
        trials: int,
        *,
        runs_alone: bool,
    ) -> GpuSteps:
        """The steps of a size and rule, bound and run once.

        runs_alone: with what runs SDM's augmented pass by itself. concurrency: None measures it,
        with so many trials. Raises RequestError where no engine admits the size, DeviceMemoryError.
        """
        guides = {TDM: TDM_GUIDE, SDM: SDM_GUIDES[rule]}
        shapes = self._shapes_of(size, guides)
        with ExitStack() as stack:
            # Closed in reverse: graphs, then contexts, then the memory that both use.
            memory, contexts, graphs = (stack.enter_context(ExitStack()) for _ in range(3))
            engines = {c: self._opened(contexts, c, its) for c, its in shapes.items()}
            self._check_types(engines)
            alone_shapes = self._shapes_of(size, {SDM: SDM_ALONE})[SDM]
            alone = self._opened(contexts, SDM, alone_shapes) if runs_alone else None
            if alone is not None:
                self._check_types({SDM: alone})
            sums = sums_elements(self.library, size)
            buffers = GpuBuffers.allocated(
                self.gpu, memory, size, shapes, engines[TDM].dtypes, sums
            )
            kernels = StepKernels(
                self.library, size, buffers.of_kernels(),
                table_rows=TABLE_ROWS, steps=TABLE_ROWS - 1,
            )  # fmt: skip
            decoder = GpuDecoder.prepared(
                self.gpu, memory, engines[DECODER], shapes[DECODER],
                buffers.tensors["engine_latents"], buffers.tensors["faults"], kernels,
            )  # fmt: skip
            main = self.streams.main.handle
            sdm_needs = [engines[SDM].workspace_nbytes(shapes[SDM], main)]
            if alone is not None:
                sdm_needs.append(alone.workspace_nbytes(alone_shapes, main))
            sdm_workspace = self._bind(memory, engines, shapes, buffers, decoder, max(sdm_needs))
            if alone is not None:
                alone.bind(buffers.of_sdm_alone(), sdm_workspace, self.streams.main.handle)
            tdm, sdm = (
                BoundModel(
                    engine=engines[component],
                    prediction=buffers.of_model(component)["noise_prediction"].address,
                    guide=guide,
                )
                for component, guide in guides.items()
            )
            sdm_alone = None if alone is None else replace(sdm, engine=alone, guide=SDM_ALONE)
            programs = StepPrograms(self.streams, tdm, sdm, sdm_alone, kernels, graphs)
            maps = MapRoom(gpu=self.gpu, layout=buffers.maps_layout)
            memory.callback(maps.close)
            marks = tuple(
                self.gpu.event(memory, "a stage's begin", timed=True) for _ in range(MARKS)
            )
            latents_nbytes = buffers.staged["latents"].nbytes
            step_marks = tuple(
                StepMark.opened(self.gpu, memory, latents_nbytes) for _ in range(MARKED)
            )
            self._run_once([*engines.values(), *([] if alone is None else [alone])], buffers)
            reset = partial(buffers.fill_with_zeros, self.streams.main)
            programs.choose_concurrency(concurrency, reset, marks[:2], trials)
            return GpuSteps(
                streams=self.streams,
                buffers=buffers,
                programs=programs,
                decoder=decoder,
                maps=maps,
                marks=marks,
                step_marks=step_marks,
                stack=stack.pop_all(),
                provider=self.provider.provider,
                bundle=self.bundle.path,
            )

    def _opened(
        self, contexts: ExitStack, component: Component, shapes: Mapping[str, Shape]
    ) -> DeviceEngine:
        engine = self.provider.open(component, shapes)
        contexts.callback(engine.close)
        return engine

    def _shapes_of(
        self, size: LatentsSize, guides: Mapping[Component, Guide]
    ) -> dict[Component, dict[str, Shape]]:
        """Both U-Nets for all images, the decoder for one."""
        area = {"h": size.height, "w": size.width}
        shapes = {
            component: self.shapes(
                component, images=size.images, rows=len(guide.passes) * size.images, **area
            )
            for component, guide in guides.items()
        }
        return shapes | {DECODER: self.shapes(DECODER, images=1, **area)}

    def _check_types(self, engines: Mapping[Component, DeviceEngine]) -> None:
        """The kernels read and write what the engines give and take, of one element type."""
        expected = self.library.manifest.element_type
        for component, engine in engines.items():
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
        engines: Mapping[Component, DeviceEngine],
        shapes: Mapping[Component, Mapping[str, Shape]],
        buffers: GpuBuffers,
        decoder: GpuDecoder,
        sdm_nbytes: int,
    ) -> int:
        """TDM and SDM may run side by side and have a workspace each; the decoder runs after.

        sdm_nbytes: of SDM's workspace, whose address is returned.
        """
        main = self.streams.main.handle
        needs = {c: aligned(e.workspace_nbytes(shapes[c], main)) for c, e in engines.items()}
        needs[SDM] = aligned(sdm_nbytes)
        start = self.workspaces.lease(memory, max(needs[TDM] + needs[SDM], needs[DECODER])).address
        workspaces = {TDM: start, SDM: start + needs[TDM], DECODER: start}
        tensors = {c: buffers.of_model(c) for c in NOISE_PREDICTORS} | {DECODER: decoder.tensors}
        for component, engine in engines.items():
            engine.bind(tensors[component], workspaces[component], self.streams.main.handle)
        return workspaces[SDM]

    def _run_once(self, engines: Sequence[DeviceEngine], buffers: GpuBuffers) -> None:
        """What an engine sets up in its first run must not be left to a capture."""
        buffers.fill_with_zeros(self.streams.main)
        for engine in engines:
            engine.enqueue(self.streams.main.handle)
        self.streams.main.synchronize()
