"""The section of docs/quality.md that says which score notices which fault."""

from __future__ import annotations

from benchmarks.analysis.significance import FLIPS
from benchmarks.harness.record import table
from benchmarks.quality.frechet import SWAPS
from benchmarks.quality.page import with_section
from benchmarks.schema.quality import Measure, NoticedRecord, NoticedRow

START, END = "<!-- noticed -->", "<!-- end of noticed -->"
# Of a run that nobody cut short.
USUAL_PICTURES = 200
# What counts as noticed.
SIGNIFICANT = 0.01
PROBES = (Measure.IDENTITY, Measure.SCENE, Measure.PROMPT)

_SECTION = """{start}
## Which score notices what

Written by `python -m benchmarks quality --noticed` at commit {commit} on {machine}. Seven faults
of the same {pictures} pictures (the row *full method* of the table above), each score of the faulty
pictures against that of the others, pair by pair; p of a two-sided sign-flip permutation test
({flips} draws; of *Fréchet*, {swaps} exchanges of pairs). In bold: noticed, p < {significant}.

- *Pixels*, *perceptual*: distance from the picture of the same noise in 50 steps; mean absolute
  difference as a share of the range, and of what the layers of a small network see (as LPIPS).
- *Sharpness*: energy of edges over that of the world's own picture of the case, in powers of two.
- *Likeness*: a verifier's, of the person least like their photo (from -1 to 1). Of people whom
  training never saw, of one kind and through the autoencoder, it takes {eer} wrongly
  (equal-error rate).
- *Fréchet*: of the pictures' features, from {world} of the world's own pictures of other people:
  {frechet} as they are, with a bootstrap standard error of {error}; {own} of as many pictures of
  the world's own.
- *Identity*, *scene*, *prompt*: the probes of the table above.

{table}

Two people swapped is a fault of the {two} pictures with two people alone; the others stay as they
were. {plainly}
{end}"""


def with_noticed(page: str, record: NoticedRecord) -> str:
    """docs/quality.md with the section of this record in place of the one it has, or before the
    comparison with the paper."""
    return with_section(page, noticed_section(record), START, END)


def noticed_section(record: NoticedRecord) -> str:
    facts, machine = record.facts, record.header.machine
    return _SECTION.format(
        start=START,
        end=END,
        commit=record.header.commit,
        machine=f"{machine.usable_cpus} cores of {machine.cpu}",
        pictures=facts.pictures,
        two=facts.pictures // 2,
        flips=FLIPS,
        swaps=SWAPS,
        significant=SIGNIFICANT,
        eer=f"{100 * facts.equal_error_rate:.1f} %",
        world=facts.world_pictures,
        frechet=facts.frechet,
        error=facts.frechet_error,
        own=facts.frechet_world,
        table=noticed_table(record),
        plainly=_plainly(record),
    )


def noticed_table(record: NoticedRecord) -> str:
    """A row a corruption, a column a measure, and how many each notices."""
    names = list(dict.fromkeys(row.corruption for row in record.rows))
    lines: list[dict[str, str]] = []
    for name in names:
        cells = {row.measure.value: _cell(row) for row in record.rows if row.corruption == name}
        lines.append({"fault": name, **cells})
    counts = {each.value: f"{count} of {len(names)}" for each, count in noticed(record).items()}
    return table([*lines, {"fault": "noticed", **counts}])


def noticed(record: NoticedRecord) -> dict[Measure, int]:
    """By measure, how many corruptions it notices."""
    measures = dict.fromkeys(row.measure for row in record.rows)
    return {
        each: sum(row.p < SIGNIFICANT for row in record.rows if row.measure is each)
        for each in measures
    }


def _cell(row: NoticedRow) -> str:
    shift = f"{row.shift:+.4f}"
    return f"**{shift}** (p {row.p:.4f})" if row.p < SIGNIFICANT else f"{shift} (p {row.p:.2f})"


def _plainly(record: NoticedRecord) -> str:
    """Which faults a measure does not notice, in a sentence each."""
    lines = []
    if record.facts.pictures < USUAL_PICTURES:
        lines.append(
            f"{record.facts.pictures} pictures notice less than the {USUAL_PICTURES} of a whole"
            " run."
        )
    for measure in noticed(record):
        missed = [
            row.corruption for row in record.rows if row.measure is measure and row.p >= SIGNIFICANT
        ]
        if missed:
            lines.append(f"*{measure.value.capitalize()}* does not notice: {'; '.join(missed)}.")
    return " ".join(lines)
