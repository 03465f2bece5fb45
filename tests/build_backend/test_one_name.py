"""Sources moved below one import name: what changes, and what is refused."""

from __future__ import annotations

import pytest

from build_backend.one_name import LayoutError, OneName

ONE = OneName(name="whole", parts=("engines", "runtime"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from engines.gate import bound_of\n", "from whole.engines.gate import bound_of\n"),
        ("from engines import gate, heap\n", "from whole.engines import gate, heap\n"),
        ("import runtime as drawn\n", "import whole.runtime as drawn\n"),
        ("from engines import (\n    gate,\n)\n", "from whole.engines import (\n    gate,\n)\n"),
        (
            "def late():\n    from runtime.clock import Clock\n",
            "def late():\n    from whole.runtime.clock import Clock\n",
        ),
        (
            "import os, runtime as r, engines.gate as g\n",
            "import os, whole.runtime as r, whole.engines.gate as g\n",
        ),
        ('"""Run `python -m runtime`."""\n', '"""Run `python -m whole.runtime`."""\n'),
        ("# python -m engines.verify B\n", "# python -m whole.engines.verify B\n"),
    ],
)  # fmt: skip
def test_imports_and_commands_are_moved(source: str, expected: str) -> None:
    assert ONE.moved(source, "x.py") == expected


@pytest.mark.parametrize(
    "source",
    [
        "from enginesque import gate\n",
        "from numpy import engines\n",
        "import onnxruntime\n",
        "runtime = 1\n",
        'text = "from engines import gate"\n',
        '"""Run `python -m runtimes`, or python -m benchmarks."""\n',
        "import_module('tensorrt')\n",
    ],
)
def test_what_only_looks_like_a_part_stays(source: str) -> None:
    assert ONE.moved(source, "x.py") == source


@pytest.mark.parametrize(
    "source",
    [
        "import engines.gate\n",
        "import runtime\n",
        "import_module('engines.gate')\n",
        "importlib.util.find_spec('runtime')\n",
        "run_module('runtime', 'a man')\n",
        "command = [sys.executable, '-m', 'engines.verify', bundle]\n",
        "Child('engines.plans.building.worker')\n",
    ],
)
def test_a_plain_name_that_would_be_left_fails_the_build(source: str) -> None:
    with pytest.raises(LayoutError, match=r"x\.py:1: .*(engines|runtime)"):
        ONE.moved(source, "x.py")
