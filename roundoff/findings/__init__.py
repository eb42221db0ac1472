"""From the rows of a study to its report."""

from roundoff.findings.bounds import bounds_report
from roundoff.findings.comparison import comparison_report, write_report
from roundoff.findings.equivalences import equivalences_report
from roundoff.findings.kernels import kernels_report
from roundoff.findings.layers import layers_report
from roundoff.findings.slicing import answer, slicing_report
from roundoff.findings.verdicts import Question, by_order, summary, verdicts

__all__ = [
    "Question",
    "answer",
    "bounds_report",
    "by_order",
    "comparison_report",
    "equivalences_report",
    "kernels_report",
    "layers_report",
    "slicing_report",
    "summary",
    "verdicts",
    "write_report",
]
