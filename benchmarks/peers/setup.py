"""What all sides of a comparison share: work, inputs, and a folder for exports and answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness.options import SourceName
from benchmarks.harness.worker import Worker
from benchmarks.harness.workload import SEED, prompt, references
from benchmarks.peers.genai_export import exporting_for_genai
from benchmarks.peers.hybrid import Quantized, quantizing
from benchmarks.peers.plain_export import Exported, exporting
from benchmarks.peers.registry import Peer
from benchmarks.peers.work import PEOPLE, Arrays, TimedRun, Work, save_arrays
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
        if peer.wants in ("folder", "hybrid"):
            self._export_once()
        if peer.wants == "hybrid":
            self._quantize_once()
        if peer.wants == "genai":
            self._export_for_genai_once()
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

    def _export_once(self) -> None:
        """In a process of its own, so that the exporter's memory goes with it."""
        if not any(self.folder.glob("*.onnx")):
            arguments = {
                "work": self.work, "inputs": self._inputs, "source": self.source,
                "folder": self.folder,
            }  # fmt: skip
            with Worker(exporting, Exported, arguments) as worker:
                worker.ask()

    def _quantize_once(self) -> None:
        """Likewise of the plain exports."""
        if not any(self.folder.glob("*.xml")):
            arguments = {"work": self.work, "inputs": self._inputs, "folder": self.folder}
            with Worker(quantizing, Quantized, arguments, threads=self.threads) as worker:
                worker.ask()

    def _export_for_genai_once(self) -> None:
        """As above; the index is written last."""
        if not (self._genai / "model_index.json").is_file():
            arguments = {"source": self.source, "folder": self._genai}
            with Worker(exporting_for_genai, Exported, arguments) as worker:
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
