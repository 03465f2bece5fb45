"""What is kept for the steps of one latents size and rule: set up once, used by run after run."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from engines.cuda.arena import Layout
from engines.cuda.gpu import Event, Gpu, Memory
from engines.cuda.streams import Streams
from runtime.gpu.buffers import GpuBuffers
from runtime.gpu.decoder import GpuDecoder
from runtime.gpu.programs import StepKind, StepPrograms
from runtime.gpu.residents import Residents

# Three stages, decoding, the end.
MARKS = 5

# Steps that are launched before it is waited for the one before them, and as many whose latents
# the host can read: those, and the one that is told of.
AHEAD = 1
MARKED = AHEAD + 1

_NO_MEMORY = Memory(0, 0)


@dataclass(frozen=True, kw_only=True)
class StepMark:
    """What is kept of a step that somebody hears of.

    done: when it is. latents: [images, 4, h, w] float32 after it, in pinned memory.
    """

    done: Event
    latents: Memory

    @classmethod
    def opened(cls, gpu: Gpu, stack: ExitStack, nbytes: int) -> StepMark:
        return cls(
            done=gpu.event(stack, "a step's end"), latents=gpu.pinned(stack, nbytes, "latents")
        )


@dataclass(kw_only=True, repr=False)
class MapRoom:
    """Pinned memory for the maps and masks of a run's fusion steps; larger when it was too small.

    layout: of one step's maps and mask.
    """

    gpu: Gpu
    layout: Layout
    _memory: Memory = _NO_MEMORY
    _stack: ExitStack = field(default_factory=ExitStack)

    def slots(self, count: int) -> list[Memory]:
        """Room for so many steps, the same as the last run's where it is enough."""
        nbytes = self.layout.nbytes
        if count * nbytes > self._memory.nbytes:
            self.close()
            self._memory = self.gpu.pinned(self._stack, count * nbytes, "saliency maps")
        return [Memory(self._memory.address + slot * nbytes, nbytes) for slot in range(count)]

    def close(self) -> None:
        self._memory = _NO_MEMORY
        self._stack.close()


@dataclass(kw_only=True, repr=False)
class GpuSteps:
    """Buffers, programs and decoder of one size, and the marks that a run is timed with.

    step_marks: of steps that somebody hears of, in turns.
    stack: everything of it that is opened. turn: whose run it is; each run takes the next number,
    and is over when another has it.
    """

    streams: Streams
    buffers: GpuBuffers
    programs: StepPrograms
    decoder: GpuDecoder
    residents: Residents
    maps: MapRoom
    marks: tuple[Event, ...]
    step_marks: tuple[StepMark, ...]
    stack: ExitStack
    provider: str
    bundle: Path
    turn: int = 0

    def prepare(self, kinds: Iterable[StepKind]) -> None:
        """Capture these kinds of steps; where engines take turns, that waits for theirs."""
        if not self.residents.in_turns:
            for each in kinds:
                self.programs.step(each)

    def next_turn(self) -> int:
        """End the run before, which may have been left in the middle, and number the next one."""
        self.streams.main.synchronize()
        self.turn += 1
        return self.turn

    def close(self) -> None:
        """Graphs, then contexts, then buffers; the GPU must be done."""
        self.turn += 1
        self.stack.close()
