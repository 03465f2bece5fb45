"""What all contestants of a race share: work, inputs, and a folder for exports and answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness.model_source import SourceName
from benchmarks.harness.worker import Worker
from benchmarks.harness.workload import SEED, prompt, references
from benchmarks.peers.plain_export import exporting
from benchmarks.peers.registry import Peer
from benchmarks.peers.work import Arrays, Work, save_arrays
from engines.bundle.manifest import Dimensions, NoiseSchedule
from engines.contract import LATENT_PX
from export.checks.torch_pipeline import TorchPipeline, TorchRequest
from runtime.method.schedule import Scheduler, coefficient_table

_PEOPLE = 2


@dataclass(frozen=True, kw_only=True)
class Course:
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

    def prepare(self) -> None:
        """Write the inputs that every contestant reads."""
        save_arrays(self._inputs, self._drawn_inputs())

    def started(self, peer: Peer) -> Worker:
        """A peer's process with what it wants; plain exports are made for the first who wants them.

        Raises WorkerError and ProviderUnavailableError.
        """
        common = {"work": self.work.to_json(), "inputs": str(self._inputs)}
        source = {"source": self.source.to_json()}
        wanted: dict[str, Any] = {"threads": self.threads}
        if peer.wants == "source":
            wanted |= source
        elif peer.wants == "bundle":
            wanted |= source | {"bundle": str(self.bundle)}
        else:
            wanted["folder"] = str(self.folder)
            if not any(self.folder.glob("*.onnx")):
                Worker(exporting, common | source | {"folder": str(self.folder)}).close()
        arguments = common | wanted | dict(peer.arguments)
        return Worker(peer.function, arguments, threads=self.threads)

    def _drawn_inputs(self) -> Arrays:
        """Latents, the prompt embeds of every pass, and the scheduler's table."""
        work, dimensions = self.work, self.dimensions
        side = work.size_px // LATENT_PX
        shape = (work.images, dimensions.latent_channels, side, side)
        latents = np.random.RandomState(SEED).standard_normal(shape).astype(np.float32)
        request = TorchRequest(
            prompt=prompt(_PEOPLE),
            references=references(_PEOPLE),
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
