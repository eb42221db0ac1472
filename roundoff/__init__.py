"""roundoff: floating-point round-off analysis for PyTorch gradients.

Public names are imported on first use, so that `import roundoff` loads neither torch nor matplotlib
nor pandas.
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
    "roundoff.formats": (
        "Format", "FORMATS", "FLOAT16", "BFLOAT16", "FLOAT32", "FLOAT64", "TFLOAT32",
        "FLOAT8_E4M3FN", "FLOAT8_E5M2", "as_format", "round_to", "spacing",
    ),
    "roundoff.orders": ("ReductionTree", "sum_in_order", "dot_in_order"),
    "roundoff.bounding": ("gradient_bounds",),
    "roundoff.bounds.bound": ("Bound",),
    "roundoff.comparison": ("Comparison", "compare"),
    "roundoff.explanation": ("Explanation", "explain"),
    "roundoff.verdict": ("Verdict",),
    "roundoff.kernels": ("contracts",),
    "roundoff.modules": ("functional",),
    "roundoff.native": ("native_gradients",),
    "roundoff.probing": ("KernelTree", "Revealed", "reveal", "reveal_gradient"),
    "roundoff.reference": ("Reference", "GradientReference", "reference_gradients"),
    "roundoff.tolerances": ("Tolerance", "tolerance"),
    "roundoff.findings": ("write_report",),
    "roundoff.report": ("Report",),
}  # fmt: skip

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_ROOMS = ("accuracy", "bounds", "formats", "orders", "statistics", "testing")

__all__ = sorted([*_HOME_OF, *_ROOMS, "__version__"])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"roundoff.{name}")
    raise AttributeError(f"module 'roundoff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
