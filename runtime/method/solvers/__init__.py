"""The solvers by name: one file for each family, from a grid of noise levels to updates."""

from __future__ import annotations

from enum import StrEnum

from runtime.method.solvers import ddim, dpm_solver, pndm, unipc
from runtime.method.solvers.solver import Solver


class Scheduler(StrEnum):
    """How latents move from one noise level to the next, and over which levels."""

    DDIM = "ddim"
    DDIM_TRAILING = "ddim-trailing"
    PNDM = "pndm"
    PLMS2 = "plms2"
    DPMPP_2M = "dpmpp-2m"
    DPMPP_2M_KARRAS = "dpmpp-2m-karras"
    UNIPC_2 = "unipc-2"


SOLVERS: dict[Scheduler, Solver] = {
    Scheduler.DDIM: ddim.LEADING,
    Scheduler.DDIM_TRAILING: ddim.TRAILING,
    Scheduler.PNDM: pndm.RELEASED,
    Scheduler.PLMS2: pndm.SECOND_ORDER,
    Scheduler.DPMPP_2M: dpm_solver.TRAILING,
    Scheduler.DPMPP_2M_KARRAS: dpm_solver.KARRAS,
    Scheduler.UNIPC_2: unipc.TRAILING,
}
