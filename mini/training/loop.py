"""One training loop for every stage: seeded, resumable, with an average of the weights."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from tqdm import tqdm

Loss = Callable[[int], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how fast. Checkpoints are written every save_seconds and at the end."""

    name: str
    steps: int
    batch: int
    learning_rate: float
    warmup_steps: int = 200
    ema_decay: float = 0.999
    weight_decay: float = 0.01
    save_seconds: float = 120.0
    curve_steps: int = 50


class Averaged(nn.Module):
    """The exponential moving average of a module's weights; it follows faster at the start."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(requires_grad=False).eval()
        self._decay = decay

    @torch.no_grad()
    def follow(self, module: nn.Module, step: int) -> None:
        """One step toward the module's weights."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        for average, parameter in zip(self.module.parameters(), module.parameters(), strict=True):
            average.lerp_(parameter, share)


def trained(
    module: nn.Module,
    loss: Loss,
    plan: Plan,
    folder: Path,
    *,
    parameters: Iterable[nn.Parameter] | None = None,
    seconds: float = math.inf,
) -> nn.Module:
    """The average of the module's weights over its training, on from the folder's checkpoint.

    loss(step) returns a step's loss and what else its curve shows; it must draw all that is random
    from step_generator(plan.name, step), so that a resumed run equals an uninterrupted one. Ends
    before plan.steps when it has run for so many seconds.
    """
    chosen = [p for p in (parameters or module.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(
        chosen, lr=plan.learning_rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay
    )
    averaged = Averaged(module, plan.ema_decay)
    path, device = folder / f"{plan.name}.pt", chosen[0].device
    step, curve, spent = 0, [], 0.0
    if path.is_file():
        state = torch.load(path, map_location=device, weights_only=True)
        module.load_state_dict(state["module"])
        averaged.module.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        step, curve, spent = state["step"], state["curve"], state["seconds"]
    started = last_save = time.monotonic()

    def save() -> None:
        if rank() > 0:
            return
        folder.mkdir(parents=True, exist_ok=True)
        state: dict[str, Any] = {
            "module": module.state_dict(),
            "averaged": averaged.module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "curve": curve,
            "seconds": spent + time.monotonic() - started,
        }
        torch.save(state, path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)
        written = {"plan": plan.__dict__, "seconds": round(state["seconds"]), "curve": curve}
        (folder / f"{plan.name}.json").write_text(json.dumps(written) + "\n", encoding="utf-8")

    sums: dict[str, float] = {}
    with tqdm(
        total=plan.steps, initial=step, desc=plan.name, mininterval=5, disable=rank() > 0
    ) as bar:
        while step < plan.steps and not _agreed(time.monotonic() - started >= seconds):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(plan, step)
            value, shown = loss(step)
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            _average_gradients(chosen)
            torch.nn.utils.clip_grad_norm_(chosen, 1.0)
            optimizer.step()
            step += 1
            averaged.follow(module, step)
            for name, number in {"loss": float(value.detach()), **shown}.items():
                sums[name] = sums.get(name, 0.0) + number / plan.curve_steps
            if step % plan.curve_steps == 0:
                curve.append({"step": step, **{k: round(v, 5) for k, v in sums.items()}})
                bar.set_postfix({k: f"{v:.4f}" for k, v in sums.items()})
                sums = {}
                if time.monotonic() - last_save > plan.save_seconds:
                    save()
                    last_save = time.monotonic()
            bar.update()
    save()
    return averaged.module


def rank() -> int:
    """Which of several training processes this is, counted from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def own_share(batch: int) -> slice:
    """Which rows of a batch this process computes; all processes draw the same batch."""
    processes = distributed.get_world_size() if distributed.is_initialized() else 1
    return slice(rank(), batch, processes)


def _agreed(stop: bool) -> bool:  # noqa: FBT001
    """What the first process says, so that all stop at the same step."""
    if not distributed.is_initialized():
        return stop
    answer = torch.tensor([float(stop)])
    distributed.broadcast(answer, 0)
    return bool(answer)


def _average_gradients(parameters: list[nn.Parameter]) -> None:
    """Each process's gradients become the mean over all processes."""
    if not distributed.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, mean in zip(
        gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True
    ):
        gradient.copy_(mean.view_as(gradient))


def learning_rate(plan: Plan, step: int) -> float:
    """Linear warm-up, then a half cosine down to a twentieth."""
    if step < plan.warmup_steps:
        return plan.learning_rate * (step + 1) / plan.warmup_steps
    share = (step - plan.warmup_steps) / max(1, plan.steps - plan.warmup_steps)
    return plan.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def half_precision(device: torch.device) -> torch.autocast:
    """Matrix products in bfloat16, weights in float32."""
    return torch.autocast(device.type, torch.bfloat16)


def step_generator(name: str, step: int) -> np.random.RandomState:
    """All chance of one step of one stage."""
    return np.random.RandomState([step, *name.encode()])


def latest_average(module: nn.Module, folder: Path, name: str) -> Any:
    """The module with the averaged weights of a stage's last checkpoint, in eval mode."""
    state = torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True)
    module.load_state_dict(state["averaged"])
    return module.eval().requires_grad_(requires_grad=False)
