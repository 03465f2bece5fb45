"""Where the data lies that ships with the toolkit: the small model, and photos of people.

The folders have the same place beside the packages in a checkout and in a wheel.
"""

from __future__ import annotations

from pathlib import Path

_HOME = Path(__file__).resolve().parents[1]

MODEL = _HOME / "mini" / "model"
REFERENCES = _HOME / "examples" / "references"
# Portraits that 8-bit scales are calibrated with where a build is given none.
CALIBRATION = MODEL / "calibration"
HIM, HER = REFERENCES / "him.png", REFERENCES / "her.png"


def public_place(path: Path) -> str | None:
    """The place of what ships with the toolkit as the repository names it; None of other paths."""
    whole = path.resolve()
    if not any(whole.is_relative_to(folder) for folder in (MODEL, REFERENCES)):
        return None
    return whole.relative_to(_HOME).as_posix()
