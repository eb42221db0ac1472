"""From the rows of a study to its report."""

from roundoff.report.findings.bounds import bounds_report
from roundoff.report.findings.comparison import comparison_report, write_report
from roundoff.report.findings.equivalences import equivalences_report
from roundoff.report.findings.kernels import kernels_report
from roundoff.report.findings.layers import layers_report
from roundoff.report.findings.slicing import answer, slicing_report
from roundoff.report.findings.verdicts import Question, by_order, summary, verdicts

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
