"""The pytest plugin: a fixture with the assertions, and a summary of how much of each tolerance was used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from roundoff.words import counted

_PROPERTY = "roundoff"

#: How many assertions the summary lists.
SHOWN = 10


@pytest.fixture
def roundoff() -> Any:
    """`roundoff.testing`: assert_within_roundoff and assert_same_function."""
    from roundoff import testing

    return testing


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """What the test used travels with its report, through pytest-xdist as well."""
    testing = sys.modules.get("roundoff.testing.assertions")
    if testing is not None:
        testing.usages.clear()
    try:
        yield
    finally:
        testing = sys.modules.get("roundoff.testing.assertions")
        if testing is not None:
            for usage in testing.usages:
                entry = (_PROPERTY, [usage.name, usage.format, usage.share, usage.factor])
                item.user_properties.append(entry)
            testing.usages.clear()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The assertions that used most of their tolerance, and the smallest factor that they notice."""
    rows = [
        (float(value[2]), report.nodeid, value[0], value[1], float(value[3]))
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for key, value in report.user_properties
        if key == _PROPERTY
    ]
    if not rows:
        return
    from roundoff.judging.power import factor_in_words

    rows.sort(key=lambda row: -row[0])
    terminalreporter.section("round-off: share of the tolerance used")
    for share, node, name, format, factor in rows[:SHOWN]:
        terminalreporter.write_line(
            f"{share:>8.1%}  {node}  {name} ({format}), notices {factor_in_words(factor)}"
        )
    if len(rows) > SHOWN:
        terminalreporter.write_line(f"and {counted(len(rows) - SHOWN, 'assertion')} that used less")
