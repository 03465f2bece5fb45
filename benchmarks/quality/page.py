"""docs/quality.md, from a record of the quality benchmark."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness.record import table
from benchmarks.quality.cases import STEPS
from benchmarks.quality.figures import SHEET_ROWS
from benchmarks.schema.quality import Ends, QualityRecord, QualityRow, SeenColumns

DOCS = Path(__file__).resolve().parents[2] / "docs"
BUNDLES = Path(__file__).resolve().parents[2] / "build" / "quality"
# The paper's Tables 3 and 4: single and multi IP, then single and multi PC.
PAPER = {
    "full method": (0.708, 0.593, 0.325, 0.319),
    "without scene construction": (0.699, 0.587, 0.268, 0.235),
    "without subject-scene fusion": (0.710, 0.588, 0.244, 0.229),
    "without subject enhancement": (0.583, 0.471, 0.322, 0.322),
    "addition instead of SNF": (0.523, 0.486, 0.221, 0.207),
}

# What the columns of the critics are.
COLUMNS = """*Perceptual*: distance from the pictures of the same noise in 50 steps, of what the
layers of a small network see. *Sharpness*: energy of edges over that of the world's own
pictures. *Likeness*: to the photos, by a verifier (from -1 to 1), the mean over a picture's
people; *least likeness*: of the person least like theirs; *verified*: the share of pictures in
which everybody passes. *Fréchet*: distance of the pictures' features from those of the world's own
pictures of other people, with its bootstrap standard error.
"""

_PAGE = """# How well the shipped model draws

Written by `python -m benchmarks quality` at commit {commit}; the rows also stand in
`benchmarks/results/quality.jsonl`.

Each row: {pictures} pictures of people whom training never saw, one and two in turn, drawn by the
runtime: DDIM with {steps} steps, guidance 5, fp16 bundle, where the row says nothing else.
*Identity* is the share of nine attributes (skin, hair color and style, eyes, glasses, beard, hat,
clothes color and pattern) that a probe finds as in the reference, of the person with the fewest.
*Scene*, *pose* and *people* are the shares of pictures in which another probe finds what the prompt
says; *prompt* is their mean. In brackets: 95 % bootstrap intervals over pictures. *Pixels*: mean
difference from the full method's picture, as a share of the range.
{columns}
Chance, which is another person elsewhere: identity {chance_identity}, scene {chance_scene}. The
probes' own errors show in the first two rows; no picture of the model can be expected to do better.

{table}

Mean absolute difference of a pixel from the full method's, as a share of its range: {difference}
with the fp32 bundle{bfloat16}.

## Beside the paper

The paper scores photographs with FaceNet and CLIP. These are other scales, so that only the order
of the rows can be compared. Below, the differences from the full method, case by case, with their
95 % intervals.

{paper}

{orders}

## Attribute by attribute

Share of people of whom the probe tells an attribute rightly:

{accuracy}

## Figures

![References, and what each variant draws](quality/pictures.png)

The references; then, from the same noise: {sheet_rows}.

![Identity and scene over alpha and beta](quality/sweeps.png)

Shaded: the 95 % intervals.

![Mean saliency maps per stage](quality/saliency.png)

Mean saliency maps of one-person pictures, as in the paper's Figure 9, in the first 30 % of the
steps, up to 60 %, and in the rest, with both models run at every step; below, how often SDM's noise
was taken.
"""


def quality_page(record: QualityRecord) -> str:
    """The Markdown page of a record with every variant."""
    facts, rows = record.facts, {row.row: row for row in record.rows}
    accuracy = [
        {
            "attribute": name,
            "world's pictures": facts.probe_accuracy[name],
            "through the VAE": facts.probe_accuracy_through_vae[name],
            "full method": facts.full_method_accuracy[name],
        }
        for name in facts.probe_accuracy
    ]
    return _PAGE.format(
        commit=record.header.commit,
        pictures=rows["full method"].pictures,
        steps=STEPS,
        chance_identity=facts.chance.identity,
        chance_scene=facts.chance.scene,
        table=table([_shown(row) for row in record.rows]),
        difference=facts.fp16_fp32_mean_difference,
        bfloat16=_bfloat16(facts.bfloat16_mean_difference),
        paper=table([_beside_the_paper(name, rows[name]) for name in PAPER]),
        orders=_orders(rows),
        columns=COLUMNS if record.rows[-1].frechet is not None else "",
        accuracy=table(accuracy),
        sheet_rows=", ".join(SHEET_ROWS),
    )


def _bfloat16(difference: float | None) -> str:
    if difference is None:
        return "; there is no row in bfloat16, which this processor does not multiply in"
    return f", {difference} where OpenVINO computes the U-Nets in bfloat16"


def _shown(row: QualityRow) -> dict[str, str | None]:
    return {
        "row": row.row,
        "identity": _with_interval(row.identity, row.identity_95),
        "scene": _with_interval(row.scene, row.scene_95),
        "prompt": _with_interval(row.prompt, row.prompt_95),
        "pose": f"{row.pose:.3f}",
        "people": f"{row.people:.3f}",
        "pixels": None if row.pixel_difference is None else f"{row.pixel_difference:.4f}",
        **shown_columns(row),
    }


def with_section(page: str, section: str, start: str, end: str) -> str:
    """docs/quality.md with a section in place of what is between its marks, or before the
    comparison with the paper."""
    if start in page:
        return re.sub(f"{start}.*{end}", lambda _: section, page, flags=re.DOTALL)
    return page.replace("## Beside the paper", f"{section}\n\n## Beside the paper", 1)


def shown_columns(row: SeenColumns) -> dict[str, str | None]:
    """What the critics tell, as tables show it; None of an older record."""

    def told(value: float | None, digits: int = 3) -> str | None:
        return None if value is None else f"{value:.{digits}f}"

    frechet = told(row.frechet, 2)
    return {
        "perceptual": told(row.perceptual, 4),
        "sharpness": told(row.sharpness, 2),
        "likeness": told(row.likeness),
        "least likeness": told(row.least_likeness),
        "verified": told(row.verified),
        "Fréchet": None if frechet is None else f"{frechet} ± {told(row.frechet_error, 2)}",
    }


def _with_interval(mean: float, ends: Ends) -> str:
    return f"{mean:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"


def _beside_the_paper(name: str, row: QualityRow) -> dict[str, str]:
    single_ip, multi_ip, single_pc, multi_pc = PAPER[name]
    return {
        "row": name,
        "identity, one / two": _one_and_two(row.identity_by_people),
        "paper's IP, one / several": f"{single_ip} / {multi_ip}",
        "prompt, one / two": _one_and_two(row.prompt_by_people),
        "paper's PC, one / several": f"{single_pc} / {multi_pc}",
    }


def _one_and_two(means: Ends | None) -> str:
    return " / ".join(f"{each:.3f}" for each in means or ())


def _orders(rows: Mapping[str, QualityRow]) -> str:
    """What of the paper's orderings holds here, sentence by sentence."""
    full, (best_ip, _, best_pc, _) = rows["full method"], PAPER["full method"]
    lines = []
    for name, (single_ip, _, single_pc, _) in list(PAPER.items())[1:]:
        row = rows[name]
        identity, prompt = row.identity - full.identity, row.prompt - full.prompt
        lines += [
            _order(f"{name}: identity", identity, row.identity_gain_95, single_ip - best_ip),
            _order(f"{name}: prompt", prompt, row.prompt_gain_95, single_pc - best_pc),
        ]
    return "\n".join(lines)


def _order(what: str, gain: float, ends: Ends | None, papers_gain: float) -> str:
    """One sentence: the gain over the full method here, and whether the paper's has its sign."""
    assert ends is not None  # of every variant that the model draws
    low, high = ends
    verdict = "as in the paper" if (gain < 0) == (papers_gain < 0) else "**unlike the paper**"
    if low <= 0 <= high:
        verdict += ", though the interval holds 0"
    word = "loses" if gain < 0 else "gains"
    return f"- {what} {word} {abs(gain):.3f} [{low:+.3f}, {high:+.3f}], {verdict}."
