"""roundoff: floating-point round-off analysis for PyTorch gradients.

Public names are imported on first use, so that `import roundoff` loads neither torch nor matplotlib
nor pandas.  `__init__.pyi` tells type checkers and editors the same (a test compares the two).
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "roundoff.errors": (
        "RoundoffError", "ArgumentError", "UnsupportedError", "PrecisionError", "UndecidedError",
        "InapplicableError",
    ),
    "roundoff.numbers.formats": (
        "Format", "FORMATS", "FLOAT16", "BFLOAT16", "FLOAT32", "FLOAT64", "TFLOAT32",
        "FLOAT8_E4M3FN", "FLOAT8_E5M2", "as_format", "round_to", "spacing",
    ),
    "roundoff.orders": ("ReductionTree", "sum_in_order", "dot_in_order"),
    "roundoff.gradients.bounds": ("gradient_bounds",),
    "roundoff.bounds.bound": ("Bound",),
    "roundoff.judging.comparison": ("Comparison", "compare"),
    "roundoff.judging.explanation": ("Explanation", "explain"),
    "roundoff.judging.verdict": ("Verdict",),
    "roundoff.kernels": ("contracts",),
    "roundoff.gradients.modules": ("functional",),
    "roundoff.gradients.native": ("native_gradients",),
    "roundoff.gradients.seeded": ("seeded",),
    "roundoff.gradients.attribution": ("Attribution", "attribute"),
    "roundoff.gradients.prediction": ("Prediction", "predict"),
    "roundoff.probing": ("KernelTree", "Revealed", "reveal", "reveal_gradient"),
    "roundoff.gradients.reference": ("Reference", "GradientReference", "reference_gradients"),
    "roundoff.judging.tolerance": ("Tolerance", "tolerance"),
    "roundoff.report.findings": ("write_report",),
    "roundoff.report.document": ("Report",),
}  # fmt: skip

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
#: Rooms and files that are public as a whole.
_MODULES = {
    "accuracy": "roundoff.numbers.accuracy",
    "bounds": "roundoff.bounds",
    "formats": "roundoff.numbers.formats",
    "orders": "roundoff.orders",
    "statistics": "roundoff.numbers.statistics",
    "testing": "roundoff.testing",
}

__all__ = sorted([*_HOME_OF, *_MODULES, "__version__"])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'roundoff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
