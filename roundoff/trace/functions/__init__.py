"""Elementwise functions: FUNCTIONS, one record per function, by name.

To add one, write its record in `table`.
"""

from roundoff.errors import UnsupportedError
from roundoff.trace.functions.record import Function, Kind
from roundoff.trace.functions.special import SPECIAL
from roundoff.trace.functions.table import RECORDS

__all__ = ["FUNCTIONS", "Function", "Kind"]


class _Functions(dict[str, Function]):
    def __missing__(self, name: str) -> Function:
        raise UnsupportedError(
            f"nothing is known of an elementwise function {name!r}; "
            "write its record in roundoff/trace/functions/table.py"
        )


FUNCTIONS = _Functions({record.name: record for record in (*RECORDS, *SPECIAL)})
