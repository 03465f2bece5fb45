"""What all sides of a comparison share: work, inputs, and a folder for exports and answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness.options import SourceName
from benchmarks.harness.worker import Worker
from benchmarks.harness.workload import SEED, prompt, references
from benchmarks.peers.genai_export import exporting_for_genai
from benchmarks.peers.hybrid import quantizing
from benchmarks.peers.plain_export import exporting
from benchmarks.peers.registry import Peer
from benchmarks.peers.work import PEOPLE, Arrays, Exported, TimedRun, Work, save_arrays
from engines.bundle.manifest import Dimensions, NoiseSchedule
from engines.contract import LATENT_PX
from export.checks.torch_pipeline import TorchPipeline, TorchRequest
from runtime.method.schedule import coefficient_table
from runtime.method.solvers import Scheduler


@dataclass(frozen=True, kw_only=True)
class Setup:
    """bundle: None where none takes part."""

    work: Work
    bundle: Path | None
    source: SourceName
    dimensions: Dimensions
    noise_schedule: NoiseSchedule
    threads: int
    folder: Path

    @property
    def _inputs(self) -> Path:
        return self.folder / "inputs.npz"

    @property
    def _genai(self) -> Path:
        return self.folder / "genai"

    def prepare(self) -> None:
        """Write the inputs that every worker reads."""
        save_arrays(self._inputs, self._drawn_inputs())

    def started(self, peer: Peer) -> Worker[TimedRun]:
        """A peer's process with what it wants; exports are made for the first who wants them.

        Raises WorkerError and ProviderUnavailableError.
        """
        self._make(peer)
        wanted: dict[str, dict[str, object]] = {
            "source": {"source": self.source},
            "bundle": {"source": self.source, "bundle": self.bundle},
            "folder": {"folder": self.folder},
            "hybrid": {"folder": self.folder},
            "genai": {"folder": self._genai},
        }
        common = {"work": self.work, "inputs": self._inputs, "threads": self.threads}
        arguments = {**common, **wanted[peer.wants], **peer.arguments}
        return Worker(peer.function, TimedRun, arguments, threads=self.threads)

    def _make(self, peer: Peer) -> None:
        """What a peer opens, for the first who wants it."""
        source, folder = self.source, self.folder
        shared = {"work": self.work, "inputs": self._inputs, "folder": folder}
        if peer.wants in ("folder", "hybrid"):
            self._make_once("*.plain.onnx", exporting, source=source, **shared)
        if peer.wants == "hybrid":
            self._make_once("*.hybrid.xml", quantizing, **shared)
        if peer.wants == "genai":
            index = "genai/model_index.json"
            self._make_once(index, exporting_for_genai, source=source, folder=self._genai)

    def _make_once(
        self, last: str, making: Callable[..., Callable[[], Exported]], **wanted: object
    ) -> None:
        """Let a worker make what peers open, unless an earlier peer's is there.

        In a process of its own, so that its memory goes with it. last: a file that it writes last,
        or a pattern of such.
        """
        if not any(self.folder.glob(last)):
            with Worker(making, Exported, wanted) as worker:
                worker.ask()

    def _drawn_inputs(self) -> Arrays:
        """Latents, the prompt embeds of every pass, and the scheduler's table."""
        work, dimensions = self.work, self.dimensions
        side = work.size_px // LATENT_PX
        shape = (work.images, dimensions.latent_channels, side, side)
        latents = np.random.RandomState(SEED).standard_normal(shape).astype(np.float32)
        request = TorchRequest(
            prompt=prompt(PEOPLE),
            references=references(PEOPLE),
            latents=torch.from_numpy(latents),
            num_inference_steps=work.steps,
            guidance_scale=work.guidance_scale,
            start_merge_step=work.start_merge_step,
            final_step=work.final_step,
        )
        pipeline = TorchPipeline(self.source.opened(), dimensions, rounded_to_half=False)
        null, text, augmented = (each[0].numpy() for each in pipeline.prompt_embeds(request))
        table = coefficient_table(
            Scheduler.DDIM, self.noise_schedule, work.steps, work.guidance_scale
        )
        return {
            "latents": latents, "null": null, "text": text, "augmented": augmented, "table": table,
        }  # fmt: skip
