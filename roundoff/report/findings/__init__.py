"""From the rows of a study to its report."""

from roundoff.report.findings.comparison import comparison_report, write_report
from roundoff.report.findings.verdicts import Question, by_order, summary, verdicts

__all__ = [
    "Question",
    "by_order",
    "comparison_report",
    "summary",
    "verdicts",
    "write_report",
]
