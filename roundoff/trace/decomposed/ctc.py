"""Connectionist temporal classification: sums over alignments in logarithms, and PyTorch's gradient.

States are blanks and targets in turn, 2 S + 1 of them.  In which of them an alignment can be at a time is
known from the targets alone; the others have the logarithm -inf.

Source: Graves and others 2006, Connectionist temporal classification, equations 6 to 16.
"""

from __future__ import annotations

from typing import Any

import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.decomposed.plainly import plainly
from roundoff.trace.decomposed.registry import decomposes

NEVER = -float("inf")


class _Alignment:
    """One sample: the label of every state, and where one may step over a blank."""

    def __init__(self, targets: list[int], blank: int, steps: int) -> None:
        self.labels = [blank]
        for target in targets:
            self.labels += [target, blank]
        self.steps, self.count = steps, len(self.labels)
        self.last = [self.count - 1, self.count - 2][: 1 + bool(targets)]

    def skips(self, state: int) -> bool:
        """Whether a state is reached from the one before the one before it."""
        return state >= 2 and self.labels[state] != self.labels[state - 2]

    def before(self, state: int) -> list[int]:
        """The states that lead to one."""
        return [s for s in (state, state - 1, *[state - 2][: self.skips(state)]) if s >= 0]

    def behind(self, state: int) -> list[int]:
        """Those that one leads to."""
        return [s for s in range(state, min(state + 3, self.count)) if state in self.before(s)]


def _log_sum(rows: torch.Tensor) -> torch.Tensor:
    """The logarithm of a sum of exponentials over the first axis, by their largest."""
    largest = rows.amax(0)
    return (rows - largest).exp().sum(0).log() + largest


def _stepped(
    values: torch.Tensor, reached: list[int], sources: list[list[int]], scores: torch.Tensor
) -> tuple[torch.Tensor, list[int]]:
    """The next time's states: logarithms (with a -inf behind the last), and which are reached."""
    count = len(sources)
    there = [s for s in range(count) if set(sources[s]) & set(reached)]
    wide = [[s if s in reached else count for s in (*sources[k], count, count)[:3]] for k in there]
    rows = plainly(torch.tensor, wide).T
    found = _log_sum(values[rows]) + scores[plainly(torch.tensor, there)]
    never = plainly(torch.full, (count + 1,), NEVER, dtype=scores.dtype)
    return never.index_put((plainly(torch.tensor, there),), found), there


def _start(scores: torch.Tensor, states: list[int]) -> torch.Tensor:
    never = plainly(torch.full, (len(scores) + 1,), NEVER, dtype=scores.dtype)
    places = plainly(torch.tensor, states)
    return never.index_put((places,), scores[places])


def _samples(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int,
) -> list[_Alignment]:
    times, lengths = (
        each.tolist() if isinstance(each, torch.Tensor) else list(each)
        for each in (input_lengths, target_lengths)
    )
    rows = targets.tolist()
    if targets.dim() == 1:
        starts = [sum(lengths[:k]) for k in range(len(lengths))]
        rows = [rows[start : start + n] for start, n in zip(starts, lengths, strict=True)]
    return [_Alignment(row[:n], blank, t) for row, n, t in zip(rows, lengths, times, strict=True)]


def _scores(log_probs: torch.Tensor, n: int, alignment: _Alignment) -> torch.Tensor:
    """The logarithms of all states at all times."""
    labels = plainly(torch.tensor, alignment.labels)
    return log_probs[: alignment.steps, n].index_select(1, labels)


@decomposes("_ctc_loss")
def _ctc_loss(
    log_probs: torch.Tensor, targets: torch.Tensor, input_lengths: Any, target_lengths: Any,
    blank: int = 0, zero_infinity: bool = False,
) -> Any:  # fmt: skip
    """The losses, and the logarithms of the forward sums."""
    losses, tables = [], []
    samples = _samples(log_probs, targets, input_lengths, target_lengths, blank)
    width, steps = max(a.count for a in samples), log_probs.shape[0]
    for n, alignment in enumerate(samples):
        scores = _scores(log_probs, n, alignment)
        reached = list(range(min(2, alignment.count)))
        values = _start(scores[0], reached)
        rows = [values]
        before = [alignment.before(s) for s in range(alignment.count)]
        for t in range(1, alignment.steps):
            values, reached = _stepped(values, reached, before, scores[t])
            rows.append(values)
        ends = [s for s in alignment.last if s in reached]
        if not ends:
            raise UnsupportedError(
                f"cannot trace aten::_ctc_loss of sample {n}: {alignment.steps} steps are too few for its "
                "targets, and its loss is infinite; give longer inputs"
            )
        losses.append(-_log_sum(values[plainly(torch.tensor, ends)]))
        table = torch.stack(rows)[:, :-1]
        table = torch.nn.functional.pad(table, (0, width - alignment.count), value=NEVER)
        tables.append(
            torch.nn.functional.pad(table, (0, 0, 0, steps - alignment.steps), value=NEVER)
        )
    return torch.stack(losses), torch.stack(tables)


@decomposes("_ctc_loss_backward")
def _ctc_loss_backward(
    upstream: torch.Tensor, log_probs: torch.Tensor, targets: torch.Tensor, input_lengths: Any,
    target_lengths: Any, losses: torch.Tensor, tables: torch.Tensor, blank: int,
    zero_infinity: bool = False,
) -> torch.Tensor:  # fmt: skip
    """exp(log p) less the share of the alignments through each label: by what softmax is given."""
    found = []
    for n, alignment in enumerate(
        _samples(log_probs, targets, input_lengths, target_lengths, blank)
    ):
        scores, table = _scores(log_probs, n, alignment), tables[n]
        behind = [alignment.behind(s) for s in range(alignment.count)]
        forward = _reached(alignment)
        reached, rows = list(alignment.last), []
        values = _start(scores[alignment.steps - 1], reached)
        for t in reversed(range(alignment.steps)):
            if t < alignment.steps - 1:
                values, reached = _stepped(values, reached, behind, scores[t])
            states = [s for s in reached if s in forward[t]]
            rows.append(_slope(alignment, states, values + 0, table[t], log_probs[t, n], losses[n]))
        rest = log_probs.shape[0] - alignment.steps
        zeros = plainly(torch.zeros, rest, log_probs.shape[2], dtype=log_probs.dtype)
        found.append(torch.cat([torch.stack(rows[::-1]) * upstream[n], zeros]))
    return torch.stack(found, 1)


def _reached(alignment: _Alignment) -> list[set[int]]:
    """Per time, the states that some alignment can have come to."""
    found = [set(range(min(2, alignment.count)))]
    for _ in range(1, alignment.steps):
        found.append({s for s in range(alignment.count) if found[-1] & set(alignment.before(s))})
    return found


def _slope(
    alignment: _Alignment, states: list[int], behind: torch.Tensor, before: torch.Tensor,
    log_probs: torch.Tensor, loss: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """At one time, by every label."""
    found = log_probs.exp()
    for label in sorted({alignment.labels[s] for s in states}):
        of = [s for s in states if alignment.labels[s] == label]
        places = plainly(torch.tensor, of)
        whole = _log_sum(before[places] + behind[places])
        share = (whole + loss - log_probs[label]).exp()
        place = plainly(lambda k=label: torch.arange(len(log_probs)) == k)
        found = found - torch.where(place, share, 0)
    return found
