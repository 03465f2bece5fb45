"""A line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from engines.errors import FaceDiffuserError


class State(StrEnum):
    """NOTE: not there, and not needed by every backend. PROBLEM: in the way of all, or broken."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report. fix: the command to type, where there is one."""

    about: str
    state: State
    text: str
    fix: str | None = None


def of_error(
    about: str, state: State, error: FaceDiffuserError, *, fix: str | None = None
) -> Finding:
    """An error as a finding. fix: what to type where the error itself does not say."""
    return Finding(about=about, state=state, text=error.reason, fix=error.fix or fix)
