"""Kernels of this machine: contracts, each shown by one probe of the very call."""

from roundoff.kernels.facts import ContractTable, Described, Facts, Kernels, Place

__all__ = ["ContractTable", "Described", "Facts", "Kernels", "Place", "contracts"]


def contracts() -> ContractTable:
    """What was probed so far in this process, on this machine; print it.

    Bounds, tolerances and verdicts probe the kernels that they meet, once per call, dtype, number of
    threads and torch's flags; nothing is probed beforehand.
    """
    from roundoff.kernels.this_machine import contracts

    return contracts()
