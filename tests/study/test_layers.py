"""The study of layers of real size, in small."""

from __future__ import annotations

import layers as experiment
import pytest
import torch
from layers_findings import layers_report
from layers_rows import measured

import roundoff as ro


@pytest.fixture(scope="module")
def found():
    config = experiment.Layers(formats=("float32",), quick=True)
    return config, [
        measured(each, lambda each=each, **v: experiment.halves(each.function, **v), config.formats)
        for each in experiment.layers(config)
    ]


def test_half_a_batch_at_a_time_is_the_same_function(found) -> None:
    _, measured = found
    flags = {ro.Verdict.DIFFERENT, ro.Verdict.SUSPICIOUS}
    for each in measured:
        assert not flags & {pair.judgement.verdict for pair in each.comparison.pairs.values()}
        assert each.comparison.names == ("whole_batch", "two_halves")
        assert each.seconds > 0 and each.baseline > 0


def test_a_wrong_half_is_flagged(found) -> None:
    config, _ = found
    layer = next(iter(experiment.layers(config)))
    wrong = measured(
        layer,
        lambda x, **p: torch.cat([layer.function(x=h, **p) for h in (x[:1], x[:1])]),
        ("float32",),
    )
    assert wrong.comparison.verdict("weight", "float32") == ro.Verdict.DIFFERENT
    assert "Some need a look" in layers_report(experiment.QUESTION, config, [wrong]).answer


def test_the_report_names_every_layer(found, tmp_path) -> None:
    config, measured = found
    report = layers_report(experiment.QUESTION, config, measured)
    assert report.answer.startswith("Nothing is flagged: of 21 gradients and outputs")
    path = ro.write_report(report, tmp_path)
    assert path.read_bytes().startswith(b"%PDF")
    assert {p.name for p in (tmp_path / "tables").glob("*.csv")} >= {
        "layer_1.csv",
        "layer_3.csv",
        "cost.csv",
    }
