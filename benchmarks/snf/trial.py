"""Device buffers of one size, filled with made-up predictions, and the launches over them."""

from __future__ import annotations

import torch

from engines.bundle.manifest import NoiseSchedule
from engines.cuda.launcher import KernelLibrary, Launch
from engines.guides import SDM_GUIDES, TDM_GUIDE, GuidanceRule
from runtime.gpu.kernels import LatentsSize, Model, StepBuffers, StepKernels
from runtime.method.saliency import Fusion
from runtime.method.schedule import HISTORY_SLOTS, coefficient_table, device_table
from runtime.method.solvers import Scheduler

SCALE = 5.0
STEPS = 50
RULE = GuidanceRule.RELEASED
GUIDES = (TDM_GUIDE, SDM_GUIDES[RULE])


class KernelTrial:
    """One step's tensors on a device, "cuda" unless tested; every output starts as NaN."""

    def __init__(self, library: KernelLibrary, size: LatentsSize, device: str = "cuda") -> None:
        generator = torch.Generator(device).manual_seed(0)
        shape = (size.images, size.channels, size.height, size.width)
        maps = (size.images, size.height, size.width)
        nan = float("nan")

        def noise(rows: int) -> torch.Tensor:
            return torch.randn((rows, *shape[1:]), generator=generator, device=device)

        self.tdm = noise(2 * size.images).half()
        self.sdm = noise(len(GUIDES[1].passes) * size.images).half()
        self.initial_latents = noise(size.images)
        self.latents = self.initial_latents.clone()
        self.engine_latents = torch.full(shape, nan, device=device, dtype=torch.float16)
        self.history = torch.full((HISTORY_SLOTS, *shape), nan, device=device)
        self.delta = torch.full(shape, nan, device=device)
        self.tdm_saliency = torch.full(maps, nan, device=device)
        self.sdm_saliency = torch.full(maps, nan, device=device)
        self.mask = torch.full(maps, 255, device=device, dtype=torch.uint8)
        self.clock = torch.zeros(2, device=device, dtype=torch.int32)
        self.timestep = torch.full((size.images,), nan, device=device)
        self.faults = torch.zeros(4, device=device, dtype=torch.int32)
        table = coefficient_table(Scheduler.DDIM, NoiseSchedule(), STEPS, SCALE)
        self.table = torch.from_numpy(device_table(table)).to(device)
        pixel_shape = (size.images, 3, 8 * size.height, 8 * size.width)
        self.decoded = torch.randn(pixel_shape, generator=generator, device=device).half()
        self.picture = torch.zeros(
            (size.images, *pixel_shape[2:], 3), device=device, dtype=torch.uint8
        )
        self.sums = torch.full((size.images, 4, size.height), nan, device=device)
        self.size = size
        self.device = device
        self.kernels = StepKernels(
            library, size, self._buffers(), table_rows=len(self.table), steps=STEPS
        )

    def fusion(self, *, keep_saliency: bool = False) -> tuple[Launch, ...]:
        predictions = (self.tdm.data_ptr(), self.sdm.data_ptr())
        return self.kernels.fusion(
            predictions, GUIDES, Fusion.SALIENCY, keep_saliency=keep_saliency
        )

    def guided(self) -> tuple[Launch, ...]:
        return self.kernels.guided(self.tdm.data_ptr(), TDM_GUIDE, Model.TDM)

    def pixels(self) -> tuple[Launch, ...]:
        return self.kernels.pixels(self.decoded.data_ptr(), self.picture.data_ptr())

    def enqueue(self, launches: tuple[Launch, ...]) -> None:
        """Put launches on PyTorch's current stream."""
        stream = torch.cuda.current_stream().cuda_stream if self.device == "cuda" else 0
        for launch in launches:
            launch.enqueue(stream)

    def outputs(self, launches: tuple[Launch, ...]) -> dict[str, torch.Tensor]:
        """Run one first step; copies of everything it wrote."""
        self.latents.copy_(self.initial_latents)
        self.clock.zero_()
        self.enqueue(launches)
        return self.copies()

    def copies(self) -> dict[str, torch.Tensor]:
        names = (
            "latents",
            "engine_latents",
            "tdm_saliency",
            "sdm_saliency",
            "mask",
            "clock",
            "timestep",
            "faults",
        )
        if self.device == "cuda":
            torch.cuda.synchronize()
        return {name: getattr(self, name).clone() for name in (*names, "picture")}

    def _buffers(self) -> StepBuffers:
        return StepBuffers(
            **{name: getattr(self, name).data_ptr() for name in StepBuffers.__dataclass_fields__}
        )
