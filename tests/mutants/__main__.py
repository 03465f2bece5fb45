"""`python -m tests.mutants [PACKAGE...] --count N --seed S`: do the tests notice broken code?

Works on a copy of the repository, which is removed at the end. Survivors are printed as they are
found: read each, it is a hole in the tests, or changes nothing that anybody could notice.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from tests.mutants.runs import Outcome, Runner, SelectionError
from tests.mutants.sample import PACKAGES, Settings, sampled
from tests.paths import ROOT

_LEFT_OUT = shutil.ignore_patterns(".git", ".*_cache", ".hypothesis", "__pycache__", "results")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("parts", nargs="*", default=PACKAGES, help="packages, folders or modules")
    parser.add_argument("--count", type=int, default=20, help="how many mutants (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--after", type=int, default=0, help="go on after so many of the sample")
    parser.add_argument("--bundle", help="the golden bundle, if it is built already")
    arguments = parser.parse_args()
    mutants = sampled(arguments.parts, arguments.count, arguments.seed)
    made: Counter[str] = Counter()
    killed: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="mutants") as folder:
        copy = Path(shutil.copytree(ROOT, Path(folder) / "copy", ignore=_LEFT_OUT))
        runner = Runner(copy, Settings.read(), arguments.bundle)
        for number, mutant in list(enumerate(mutants, 1))[arguments.after :]:
            try:
                outcome = runner.outcome(mutant.module, mutant.code)
            except SelectionError as error:
                print(f"{number}/{len(mutants)} NOT RUN {mutant.module}: {error}", flush=True)
                continue
            made[mutant.package] += 1
            killed[mutant.package] += outcome is not Outcome.SURVIVED
            place = f"{mutant.module}:{mutant.line}"
            print(f"{number}/{len(mutants)} {outcome} {place} {mutant.operator}", flush=True)
            if outcome is Outcome.SURVIVED:
                print(f"    - {mutant.before}\n    + {mutant.after}", flush=True)
    for package in sorted(made):
        print(f"{package}: {killed[package]} of {made[package]} killed")
    print(f"all: {killed.total()} of {made.total()} killed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
