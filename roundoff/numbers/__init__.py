"""Formats, correctly rounded operations, errors in every unit, statistics; no PyTorch functions."""
