"""Unevaluated sums as rational numbers."""

from fractions import Fraction


def fraction(*words) -> Fraction:
    first, *others = (Fraction(float(word)) for word in words)
    return sum(others, first)


def dyadic_sum(terms) -> Fraction:
    """The sum of many rational numbers whose denominators are powers of two, over the largest of these."""
    terms = list(terms)
    common = max((term.denominator for term in terms), default=1)
    return Fraction(sum(t.numerator * (common // t.denominator) for t in terms), common)


def fractions(words) -> list[Fraction]:
    return [fraction(*each) for each in zip(*(w.ravel() for w in words), strict=True)]
