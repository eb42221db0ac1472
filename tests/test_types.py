"""What a type checker knows of a user's program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import roundoff as ro

ROOT = Path(ro.__file__).parents[1]

PROGRAM = """
import torch

import roundoff as ro

inputs = {"x": torch.ones(3)}
result = ro.compare(torch.exp, torch.exp, inputs)
reveal_type(result)
reveal_type(result.verdict("x", "float32"))
reveal_type(ro.reference_gradients(torch.sum, inputs)["x"].radius)
reveal_type(ro.gradient_bounds(torch.sum, inputs))
reveal_type(ro.predict(torch.sum, inputs)["x"])
reveal_type(ro.attribute(torch.sum, inputs))
reveal_type(result.table)
reveal_type(ro.tolerance(torch.sum, inputs))
reveal_type(ro.explain(torch.sum, torch.sum, inputs=inputs))
reveal_type(ro.reveal(torch.sum, n=8))
reveal_type(ro.bounds.sum([1.0, 2.0], ro.FLOAT16))
reveal_type(ro.orders.pairwise(8))
reveal_type(ro.accuracy.ulp_between)
reveal_type(ro.as_format("float16"))
ro.testing.assert_within_roundoff(torch.ones(3), torch.exp, inputs)
ro.compare(torch.exp, torch.exp, inputs, point=1)
ro.no_such_name
"""


def test_types_reach_the_user(tmp_path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(path)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    lines = [line.split(": ", 1)[1] for line in said if line.startswith(str(path))]
    revealed = [line.split('"')[1] for line in lines if "Revealed type" in line]
    assert len(revealed) == PROGRAM.count("reveal_type")
    assert not [kind for kind in revealed if kind == "Any"], revealed
    for kind, end in zip(
        revealed,
        ("Comparison", "Verdict", "Tensor", "Bound]", "Prediction", "Attribution",
         "DataFrame", "Tolerances", "Explanation", "Revealed", "Bound",
         "ReductionTree", "", "Format"),
        strict=True,
    ):  # fmt: skip
        assert kind.endswith(end), kind
    wrong = [line for line in lines if line.startswith("error")]
    assert len(wrong) == 2 and "point" in wrong[0] and "no_such_name" in wrong[1], wrong
