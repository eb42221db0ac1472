"""Unevaluated sums as rational numbers."""

from fractions import Fraction


def fraction(*words) -> Fraction:
    return sum((Fraction(float(word)) for word in words), Fraction(0))


def fractions(words) -> list[Fraction]:
    return [fraction(*each) for each in zip(*(w.ravel() for w in words), strict=True)]
