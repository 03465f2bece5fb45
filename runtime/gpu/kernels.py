"""Which kernels a step launches, on which grids and with which arguments."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

from engines import commands
from engines.contract import LATENT_PX, SIZE_MULTIPLE_PX
from engines.cuda.launcher import KernelLibrary, Launch, LoadedKernel
from engines.errors import ContractError, RequestError
from engines.guides import Guide
from runtime.method.guidance import SubjectGuidance
from runtime.method.saliency import Fusion

MAX_IMAGES = 16

# Rows of a saliency tile that only feed its neighbors' stencils: two above, two below.
_HALO_ROWS = 4
# kernels.table's DELTA_KEPT and DELTA_ADDED.
_DELTA_USES = {SubjectGuidance.KEPT: 1, SubjectGuidance.CACHED: 2}
_SALIENCY_KERNELS = ("fusion_saliency_w64", "fusion_saliency_w128", "fusion_saliency_w256")


@dataclass(frozen=True, kw_only=True)
class LatentsSize:
    """[images, channels, height, width] of the latents; raises RequestError for impossible ones."""

    images: int
    height: int
    width: int
    channels: int = 4

    def __post_init__(self) -> None:
        multiple = SIZE_MULTIPLE_PX // LATENT_PX
        if not 1 <= self.images <= MAX_IMAGES:
            raise RequestError(f"expected 1 to {MAX_IMAGES} images a call, found {self.images}")
        if (
            min(self.height, self.width) < multiple
            or self.height % multiple
            or self.width % multiple
        ):
            raise RequestError(
                f"expected a height and width of whole {SIZE_MULTIPLE_PX} px, found "
                f"{self.height * LATENT_PX} x {self.width * LATENT_PX} px"
            )
        if 3 * self.images * self.plane * LATENT_PX**2 >= 2**31:
            raise RequestError(
                f"the kernels count in 32 bits, which {self.images} pictures of "
                f"{self.height * LATENT_PX} x {self.width * LATENT_PX} px pass; ask for less"
            )

    @property
    def plane(self) -> int:
        """Latent pixels of one image."""
        return self.height * self.width

    @property
    def image_elements(self) -> int:
        return self.channels * self.plane


class Model(IntEnum):
    """Whose numbers a kernel looks at, and where it records one that is not finite."""

    TDM = 0
    SDM = 1
    DECODER = 2


@dataclass(frozen=True, kw_only=True)
class StepBuffers:
    """Device addresses of a step's buffers, aligned to 16 bytes.

    Shapes and types are those in the kernels' signatures. The saliency maps and the mask are
    [images, h, w] float32 and uint8; the maps also carry the first launch's work to the second.
    sums: sums_elements(...) float32. Before the first step, the two int32 of the clock and the four
    of faults are zeros, and timestep, a float32 for each image, is the first step's.
    """

    latents: int
    engine_latents: int
    history: int
    delta: int
    table: int
    clock: int
    timestep: int
    faults: int
    tdm_saliency: int
    sdm_saliency: int
    sums: int
    mask: int


class StepKernels:
    """Prepares the launches of a trajectory of one size."""

    def __init__(
        self,
        library: KernelLibrary,
        size: LatentsSize,
        buffers: StepBuffers,
        *,
        table_rows: int,
        steps: int,
    ) -> None:
        """Raises ContractError for a table without a row more than steps, or other channels."""
        if table_rows <= steps:
            raise ContractError(
                f"the kernels' table has {table_rows} rows for {steps} steps and must have one "
                "more; pass runtime.method.schedule.device_table"
            )
        constants = (kernel.kernel.constants for kernel in library.kernels.values())
        if {each.get("CHANNELS", size.channels) for each in constants} - {size.channels}:
            raise ContractError(
                f"the bundle's kernels are for other latents than {size.channels} channels; "
                "build it again with",
                fix=commands.rebuilt(library.bundle),
            )
        self.library = library
        self.size = size
        self.buffers = buffers

    def guided(
        self,
        prediction: int,
        guide: Guide,
        model: Model,
        guidance: SubjectGuidance = SubjectGuidance.FULL,
    ) -> tuple[Launch, ...]:
        """The one launch that ends a step of the scene (TDM) or subject (SDM) stage.

        guidance: whether what guidance adds is kept, or what was kept is added.
        """
        kernel = self.library["guided_step"]
        arguments = {
            "prediction": prediction,
            "model": model,
            "start": guide.start,
            "base": guide.base,
            "target": guide.target,
            "delta": self.buffers.delta,
            "delta_use": _DELTA_USES.get(guidance, 0),
            "image_elements": self.size.image_elements,
            **self._step_buffers(),
        }
        grid = (_blocks(self.size.image_elements, kernel), self.size.images)
        return (kernel.prepare(grid, arguments),)

    def fusion(
        self,
        predictions: tuple[int, int],
        guides: tuple[Guide, Guide],
        fusion: Fusion,
        *,
        keep_saliency: bool = False,
    ) -> tuple[Launch, ...]:
        """The two launches that end a step of the fusion stage; addition, without maps, takes one.

        predictions, guides: TDM's, then SDM's. keep_saliency: write the mask and both saliency
        maps.
        """
        arguments = _models(predictions, guides) | {"keep_saliency": int(keep_saliency)}
        if fusion is Fusion.ADDITION:
            return (self._blend(arguments, tiles=0),)
        saliency = _saliency_kernel(self.library, self.size)
        tiles = _tiles(self.size.height, saliency)
        return (self._saliency(saliency, arguments, tiles), self._blend(arguments, tiles=tiles))

    def pixels(
        self, decoded: int, picture: int, *, images: int | None = None, faults: int | None = None
    ) -> tuple[Launch, ...]:
        """The one launch from the VAE's [images, 3, 8h, 8w] to [images, 8h, 8w, 3] uint8.

        images: how many are decoded at once, by default all of the trajectory. faults: the address
        of their own four, by default the steps'.
        """
        kernel = self.library["pixels"]
        plane = self.size.plane * LATENT_PX**2
        grid = (_blocks(3 * plane, kernel), images or self.size.images)
        own = self.buffers.faults if faults is None else faults
        addresses = {"decoded": decoded, "picture": picture, "faults": own}
        arguments = {**addresses, "plane": plane}
        return (kernel.prepare(grid, arguments),)

    def _saliency(self, kernel: LoadedKernel, models: dict[str, int], tiles: int) -> Launch:
        buffers = self.buffers
        taken = (
            "tdm_prediction",
            "sdm_prediction",
            "tdm_base",
            "tdm_target",
            "sdm_base",
            "sdm_target",
        )
        arguments = {name: models[name] for name in taken} | {
            "tdm_map": buffers.tdm_saliency,
            "sdm_map": buffers.sdm_saliency,
            "sums": buffers.sums,
            "table": buffers.table,
            "clock": buffers.clock,
            "height": self.size.height,
            "width": self.size.width,
            "plane": self.size.plane,
        }
        return kernel.prepare((tiles, self.size.images), arguments)

    def _blend(self, models: dict[str, int], *, tiles: int) -> Launch:
        kernel, buffers = self.library["fusion_blend"], self.buffers
        most = kernel.kernel.constants["TILES"]
        if tiles > most:
            raise RequestError(
                f"kernel {kernel.name} fuses up to {most} tiles, a height of "
                f"{self.size.height * LATENT_PX} px has {tiles}; ask for a smaller height"
            )
        arguments = (
            models
            | self._step_buffers()
            | {
                "tdm_map": buffers.tdm_saliency,
                "sdm_map": buffers.sdm_saliency,
                "sums": buffers.sums,
                "mask": buffers.mask,
                "plane": self.size.plane,
                "tiles": tiles,
            }
        )
        return kernel.prepare((_blocks(self.size.plane, kernel), self.size.images), arguments)

    def _step_buffers(self) -> dict[str, int]:
        names = ("latents", "engine_latents", "history", "table", "clock", "timestep", "faults")
        return {name: getattr(self.buffers, name) for name in names}


def sums_elements(library: KernelLibrary, size: LatentsSize) -> int:
    """How many float32 the workspace `sums` holds; raises RequestError for too wide latents."""
    return size.images * 4 * _tiles(size.height, _saliency_kernel(library, size))


def _saliency_kernel(library: KernelLibrary, size: LatentsSize) -> LoadedKernel:
    """The kernel with the narrowest rows that hold the latents'."""
    for name in _SALIENCY_KERNELS:
        kernel = library[name]
        if kernel.kernel.constants["COLUMNS"] >= size.width:
            return kernel
    raise RequestError(
        f"kernel {kernel.name} takes a width of up to "
        f"{kernel.kernel.constants['COLUMNS'] * LATENT_PX} px, found "
        f"{size.width * LATENT_PX} px; ask for a smaller width"
    )


def _models(predictions: tuple[int, int], guides: tuple[Guide, Guide]) -> dict[str, int]:
    """Arguments of both models' predictions and of the passes by role."""
    arguments: dict[str, int] = {}
    for model, prediction, guide in zip(("tdm", "sdm"), predictions, guides, strict=True):
        roles = {f.name: getattr(guide, f.name) for f in fields(guide) if f.name != "passes"}
        arguments |= {f"{model}_{role}": index for role, index in roles.items()}
        arguments[f"{model}_prediction"] = prediction
    return arguments


def _blocks(count: int, kernel: LoadedKernel) -> int:
    return -(-count // kernel.kernel.constants["BLOCK"])


def _tiles(height: int, saliency: LoadedKernel) -> int:
    return -(-height // (saliency.kernel.constants["ROWS"] - _HALO_ROWS))
