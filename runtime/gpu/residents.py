"""Which engines lie on the GPU: all that were opened, or in low memory those that compute next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from engines.contract import Component, Shape
from engines.cuda.arena import ALIGNMENT
from engines.cuda.gpu import Gpu, Memory, Stream
from engines.engine import DeviceEngine, DeviceProvider, DeviceTensor
from engines.errors import DeviceMemoryError

Shapes = Mapping[str, Shape]

_NO_MEMORY = Memory(0, 0)


class Residents:
    """Opens a backend's engines, which stay on the GPU until they are closed."""

    in_turns = False

    def __init__(self, provider: DeviceProvider) -> None:
        self._provider = provider

    def open(self, contexts: ExitStack, component: Component, shapes: Shapes) -> DeviceEngine:
        """An engine that is closed with the stack; raises as DeviceProvider.open does."""
        engine = self._provider.open(component, shapes)
        contexts.callback(engine.close)
        return engine

    def capture_into(self, graphs: ExitStack) -> None:
        """Name what graphs of the engines are kept in, to be closed when one leaves the GPU."""

    def hold(self, engines: Sequence[DeviceEngine]) -> None:
        """These compute next: once bound, they can be enqueued and captured from here on.

        Raises what opening and binding them does, DeviceMemoryError.
        """

    def close(self) -> None:
        """Give back what the engines share, after all of them were closed."""


class ResidentsInTurns(Residents):
    """On the GPU are the engines that compute next, and no other.

    They run one after another, in one activation memory that is as large as the largest needs. An
    engine is opened for a moment when somebody asks for its types, which also tells its activation
    memory.
    """

    in_turns = True

    def __init__(self, gpu: Gpu, provider: DeviceProvider, stream: Stream) -> None:
        super().__init__(provider)
        self._gpu, self._stream = gpu, stream
        self._held: list[EngineInTurns] = []
        self._graphs, self._scratch_stack, self._scratch = ExitStack(), ExitStack(), _NO_MEMORY
        self._activations_nbytes: dict[Any, int] = {}

    def open(self, contexts: ExitStack, component: Component, shapes: Shapes) -> EngineInTurns:
        self._provider.need(component, shapes)  # refuses now what no engine admits
        engine = EngineInTurns(self, str(self._provider.provider), component, shapes)
        contexts.callback(engine.close)
        return engine

    def capture_into(self, graphs: ExitStack) -> None:
        self._graphs = graphs

    def hold(self, engines: Sequence[DeviceEngine]) -> None:
        wanted = [each for each in engines if isinstance(each, EngineInTurns)]
        if self._held == wanted and all(each.is_ready for each in wanted):
            return
        self._leave([each for each in self._held if each not in wanted])
        for each in wanted:
            self.bring(each)
        self._fit_scratch(max((each.activations_nbytes for each in wanted), default=0))
        for each in wanted:
            each.get_ready(self._scratch.address, self._stream.handle)
        self._held = wanted

    def look_at(self, engine: EngineInTurns) -> None:
        """Open an engine, alone, to be asked about itself."""
        self._leave([each for each in self._held if each is not engine])
        self.bring(engine)

    def bring(self, engine: EngineInTurns) -> None:
        """Open an engine; what was enqueued for others goes on meanwhile."""
        if engine.opened is None:
            opened = self._provider.open(engine.component, engine.shapes)
            self._held.append(engine)
            engine.come(opened, self._stream.handle)
            key = _key(engine.component, engine.shapes)
            self._activations_nbytes[key] = engine.activations_nbytes

    def gone(self, engine: EngineInTurns) -> None:
        """An engine was closed: no other may need its weights, or the activation memory."""
        self._held.remove(engine)
        self._provider.trim()
        if not self._held:
            self._drop_scratch()

    def check_room(self, together: Mapping[str, Sequence[tuple[Component, Shapes]]]) -> None:
        """Raise DeviceMemoryError where engines that must be held together cannot be.

        together: for each stage, by its name.
        """
        self._leave(self._held)
        free, total = self._gpu.free_nbytes()
        for stage, engines in together.items():
            needs = [self._provider.need(*each) for each in engines]
            weights = {need.weights: need.weights_nbytes for need in needs}
            activations = max(
                self._activations_nbytes.get(_key(*each), need.activations_nbytes or 0)
                for each, need in zip(engines, needs, strict=True)
            )
            least = sum(weights.values()) + activations
            if least > free:
                held = f"{len(weights)} U-Nets" if len(weights) > 1 else "U-Net"
                raise DeviceMemoryError(
                    f"{self._gpu.name} has {free >> 20} of {total >> 20} MiB free; the {stage} "
                    f"stage takes at least {_mib(least)} MiB: its {held} "
                    f"{_mib(sum(weights.values()))}, to run {_mib(activations)}; draw on the CPU, "
                    "or end what else uses the GPU, which is listed by",
                    fix="nvidia-smi",
                )

    def close(self) -> None:
        self._drop_scratch()

    def _leave(self, engines: Sequence[EngineInTurns]) -> None:
        if engines:
            # What they were enqueued for is done before they are closed, graphs before engines.
            self._stream.synchronize()
            self._graphs.close()
        for each in list(engines):
            each.close()

    def _fit_scratch(self, nbytes: int) -> None:
        """Make the activation memory large enough; where it moves, all that is held moves along."""
        nbytes = max(nbytes, ALIGNMENT)
        if self._held and nbytes > self._scratch.nbytes:
            self._stream.synchronize()
            self._graphs.close()
            self._drop_scratch()
            self._scratch = self._gpu.memory(self._scratch_stack, nbytes, "activation memory")

    def _drop_scratch(self) -> None:
        for each in self._held:
            each.is_ready = False
        self._scratch = _NO_MEMORY
        self._scratch_stack.close()


class EngineInTurns:
    """A DeviceEngine that leaves the GPU and comes back, bound to the same tensors.

    opened: the engine itself, while it is on the GPU. is_ready: whether that is bound and has run.
    activations_nbytes: known once it was opened.
    """

    def __init__(
        self, residents: ResidentsInTurns, provider: str, component: Component, shapes: Shapes
    ) -> None:
        self.provider, self.component, self.shapes = provider, component, shapes
        self.opened: DeviceEngine | None = None
        self.is_ready = False
        self.activations_nbytes = 0
        self._residents = residents
        self._dtypes: Mapping[str, np.dtype[Any]] = {}
        self._tensors: Mapping[str, DeviceTensor] = {}

    @property
    def capturable(self) -> bool:
        return self.opened is not None and self.opened.capturable

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        if not self._dtypes:
            self._residents.look_at(self)
        return self._dtypes

    def admits(self, shapes: Shapes) -> bool:
        return dict(shapes) == dict(self.shapes)

    def workspace_nbytes(self, shapes: Shapes, stream: int) -> int:
        """None of its own: all that are in turns share one."""
        return 0

    def bind(self, tensors: Mapping[str, DeviceTensor], workspace: int, stream: int) -> None:
        """Say where its tensors lie whenever it is held."""
        self._tensors, self.is_ready = dict(tensors), False

    def enqueue(self, stream: int) -> None:
        assert self.opened is not None, f"{self.component} is not held"
        self.opened.enqueue(stream)

    def close(self) -> None:
        if self.opened is not None:
            opened, self.opened, self.is_ready = self.opened, None, False
            opened.close()
            self._residents.gone(self)

    def come(self, opened: DeviceEngine, stream: int) -> None:
        """Take the engine, and learn what only an open one tells."""
        self.opened, self._dtypes = opened, dict(opened.dtypes)
        self.activations_nbytes = opened.workspace_nbytes(self.shapes, stream)

    def get_ready(self, workspace: int, stream: int) -> None:
        """Bind, and run once: what a first run sets up must not be left to a capture."""
        assert self.opened is not None
        if not self.is_ready:
            self.opened.bind(self._tensors, workspace, stream)
            self.opened.enqueue(stream)
            self.is_ready = True


def _key(component: Component, shapes: Shapes) -> tuple[Any, ...]:
    return component, *sorted(shapes.items())


def _mib(nbytes: int) -> int:
    return -(-nbytes // 2**20)
