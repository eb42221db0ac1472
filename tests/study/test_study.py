"""The slicing study end to end: rows, resume, interruption, bad input, the command line."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import slicing
import slicing_findings
import torch
from running_studies import Inline, grid_of

import roundoff as ro
from roundoff import study
from roundoff.numbers.formats import FLOAT16, FLOAT32
from roundoff.report import findings
from roundoff.study import grid as grids
from roundoff.study import series
from roundoff.trace import UPSTREAM

SCRIPT = Path(slicing.__file__)


def small(**changes):
    options = dict(
        N=1,
        CI=2,
        CO=2,
        T=8,
        keep=3,
        seeds=4,
        formats=("float16", "float32"),
        orders=("sequential", "blocked(4)"),
    )
    return slicing.Slicing(**{**options, **changes})


def rows(config, folder, executor=None):
    return study.run(grid_of(config), folder, executor=executor or Inline(), progress=False)


def same(a, b) -> bool:
    return all(a[name].equals(b[name]) for name in study.TABLES)


def test_the_same_seed_gives_the_same_bytes(tmp_path) -> None:
    first, second = (rows(small(), tmp_path / name) for name in "ab")
    assert same(first, second)
    parts = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.parquet"))
    assert parts and all(
        (tmp_path / "a" / p).read_bytes() == (tmp_path / "b" / p).read_bytes() for p in parts
    )
    assert not same(first, rows(small(seed=1), tmp_path / "c"))


def test_spawned_workers_give_what_one_process_does(tmp_path) -> None:
    config = small(kernel_size=1)
    inline = rows(config, tmp_path / "a")
    spawned = study.run(grid_of(config), tmp_path / "b", progress=False)
    assert same(inline, spawned)


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path) -> None:
    whole = rows(small(), tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        rows(small(), tmp_path / "b", Inline(most=3))
    done = sorted((tmp_path / "b" / "cells").iterdir())
    assert len(done) == 3
    stamps = [p.stat().st_mtime_ns for p in done]
    counted = Inline()
    assert same(whole, rows(small(), tmp_path / "b", counted))
    assert [p.stat().st_mtime_ns for p in done] == stamps, "a finished cell was computed again"
    assert same(whole, rows(small(), tmp_path / "b", Inline(most=0))), "nothing is left to run"


def test_damaged_and_half_written_rows_are_made_again(tmp_path) -> None:
    whole = rows(small(), tmp_path)
    cells = sorted((tmp_path / "cells").iterdir())
    (cells[0] / "pairs.parquet").write_bytes(b"half")
    (cells[1] / "errors.parquet").unlink()
    shutil.copytree(cells[2], tmp_path / "cells" / f".{cells[2].name}.123")
    shutil.rmtree(cells[2])
    assert same(whole, rows(small(), tmp_path))


def alive(group) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_killed_in_the_middle_loses_no_finished_row(tmp_path) -> None:
    command = [sys.executable, str(SCRIPT), "--N", "1", "--T", "8", "--keep", "3", "--seeds", "16", "--formats",
               "float32", "float64", "--orders", "sequential", "pairwise", "--out", str(tmp_path)]  # fmt: skip
    run = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(tmp_path.glob("cells/[!.]*")):
        time.sleep(0.02)
    run.kill()  # the parent alone: its workers must not outlive it
    run.wait()
    while time.monotonic() < deadline and alive(run.pid):
        time.sleep(0.1)
    assert not alive(run.pid), "workers outlive a killed parent"
    done = {p: p.stat().st_mtime_ns for p in tmp_path.glob("cells/[!.]*")}
    assert done and not (tmp_path / "report.pdf").exists()
    config = slicing.Slicing(
        N=1,
        T=8,
        keep=3,
        seeds=16,
        formats=("float32", "float64"),
        orders=("sequential", "pairwise"),
    )
    resumed = rows(config, tmp_path)
    assert {p: p.stat().st_mtime_ns for p in done} == done
    assert same(resumed, rows(config, tmp_path / "fresh"))


def heed_interruptions() -> None:
    """Tests may run where they are ignored, as in the background of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interruption_ends_in_one_sentence(tmp_path) -> None:
    command = [sys.executable, str(SCRIPT), "--N", "1", "--T", "8", "--keep", "3", "--seeds", "4000",
               "--formats", "float32", "float64", "--out", str(tmp_path)]  # fmt: skip
    for at_work in (False, True):
        run = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            preexec_fn=heed_interruptions,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        time.sleep(2.0)  # loading PyTorch takes longer
        while at_work and time.monotonic() < deadline and not (tmp_path / "cells").exists():
            time.sleep(0.02)
        os.killpg(run.pid, signal.SIGINT)
        try:
            _, said = run.communicate(timeout=120)
        finally:
            run.kill()
            run.communicate()
        lines = [
            line for line in re.split(r"[\r\n]+", said.decode()) if line and "cell/s" not in line
        ]
        assert run.returncode == 130, said
        assert len(lines) == 1 and lines[0].startswith("interrupted"), said


def die(*_):
    os._exit(9)


def test_a_dead_worker_is_one_sentence(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(grids, "run_cell", die)
    with pytest.raises(
        ro.RoundoffError, match=r"worker process died.*finished cells are kept.*same command"
    ):
        study.run(grid_of(small(kernel_size=1)), tmp_path, progress=False)


def test_adding_a_cell_shifts_no_other(tmp_path) -> None:
    few = rows(small(seeds=2, formats=("float32",)), tmp_path / "a")["errors"]
    many = rows(small(seeds=5, formats=("float64", "float32")), tmp_path / "b")["errors"]
    part = many[(many["seed"] < 2) & (many["format"] == "float32")].reset_index(drop=True)
    pd.testing.assert_frame_equal(few, part)


def test_rows_are_those_of_the_functions_as_they_are() -> None:
    cell = grid_of(small())[0]
    assert grid_of(small())[0].key == cell.key
    elsewhere = slicing.replace(
        cell.problem, methods={"slice_then_conv": die, "conv_then_slice": die}
    )
    assert elsewhere.source != cell.problem.source
    assert slicing.replace(cell, problem=elsewhere).key != cell.key
    assert slicing.replace(cell.problem, loss=None, draw=len).source == cell.problem.source


def test_seeds_and_bases_draw_anew_and_share_no_rows(tmp_path) -> None:
    problem = next(slicing.problems(small()))
    draws = [problem.inputs(base, seed)["x"].tobytes() for base in (0, 1) for seed in (0, 1, 2)]
    assert len(set(draws)) == len(draws)
    assert problem.inputs(0, 1)["x"].tobytes() == draws[1]
    first = rows(small(), tmp_path)
    assert not same(first, rows(small(seed=1), tmp_path)), "rows of another base were taken"


def test_the_verdicts_tell_the_three_cases_apart(tmp_path) -> None:
    for upstream in ("squares", "random"):
        found = rows(small(upstream=upstream), tmp_path / upstream)["pairs"]
        verdicts = {case: set(part["verdict"]) for case, part in found.groupby("case")}
        assert verdicts["kernel 1"] <= {"IDENTICAL", "ROUNDOFF"}
        assert verdicts["halo kept"] <= {"IDENTICAL", "ROUNDOFF"}
        # A random upstream gradient reaches the bias alike: its sum does not see x.
        cut = found[
            (found["case"] == "halo cut")
            & ((found["gradient"] == "weight") | (upstream == "squares"))
        ]
        assert set(cut["verdict"]) == {"DIFFERENT"}


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize("keep", [1, 3, 4])
def test_the_halo_is_right(stride, dilation, taps, keep) -> None:
    s = slicing.Shape(2, 2, 2, 11, keep, taps, dilation, stride)
    x = torch.arange(44.0, dtype=torch.float64).reshape(2, 2, 11)
    weight, bias = (
        torch.arange(4.0 * taps, dtype=torch.float64).reshape(2, 2, taps),
        torch.ones(2, dtype=torch.float64),
    )
    whole, kept = (
        slicing.conv_then_slice(s, weight, bias, x),
        slicing.slice_then_conv(s, weight, bias, x),
    )
    assert whole.shape == kept.shape == (2, 2, keep)
    assert torch.equal(whole, kept)  # whole numbers: exact
    cut = slicing.cut_halo(s, weight, bias, x)
    assert cut.shape == whole.shape
    assert torch.equal(cut, whole) == (s.halo == 0 or s.start == 0)


def test_permuted_data_have_the_same_gradients_in_exact_arithmetic() -> None:
    s = slicing.Shape(3, 2, 2, 7, 4)
    generator = np.random.default_rng(0)
    inputs = slicing.draw(s, "uniform", "random", generator)
    upstream = inputs.pop(UPSTREAM)
    function = slicing.partial(slicing.conv_then_slice, s)
    exact = ro.reference_gradients(function, inputs, ("weight", "bias"), upstream=upstream)
    for axis in (0, 2):
        moved = slicing.permute(s, axis, {**inputs, UPSTREAM: upstream}, generator)
        assert not np.array_equal(moved["x"], inputs["x"])
        up = moved.pop(UPSTREAM)
        other = ro.reference_gradients(function, moved, ("weight", "bias"), upstream=up)
        for name in exact:
            assert exact[name].numbers.tolist() == other[name].numbers.tolist()


def test_an_overflow_is_counted_and_the_largest_error(tmp_path) -> None:
    values = np.linspace(30000.0, 60000.0, 40) * np.where(np.arange(40) % 2, 1, -1)
    problem = next(slicing.problems(small(formats=("float16",), kernel_size=1)))
    loud = slicing.replace(
        problem, draw=Loud(problem.draw, values), parameters={**problem.parameters, "loud": 1}
    )
    tables = study.run(
        study.cells([loud], ["float16"], ["sequential"]),
        tmp_path,
        executor=Inline(),
        progress=False,
    )
    errors = tables["errors"]
    assert (errors["overflow"] > 0).any()
    lost = (errors["overflow"] > 0) | (errors["nan"] > 0)
    for name in ("max_scaled", "rms_scaled", "normwise"):
        assert np.isinf(errors.loc[lost, name]).all() and np.isfinite(errors.loc[~lost, name]).all()
    counted = findings.summary(errors)
    assert "overflowed (float16)" in slicing_findings._counted(counted)


class Loud:
    def __init__(self, draw, values) -> None:
        self.draw, self.values = draw, values

    def __call__(self, generator):
        inputs = self.draw(generator)
        inputs["x"] = np.resize(self.values, inputs["x"].shape)
        return inputs


def test_what_torch_says_is_what_torch_says() -> None:
    a = np.array([1.0, 2.0])
    assert study.passes(a, a, FLOAT32) == {
        "allclose": True,
        "fraction_allclose": 1.0,
        "assert_close": True,
    }
    far = study.passes(a, a * [1.0, 1.1], FLOAT16)
    assert far == {"allclose": False, "fraction_allclose": 0.5, "assert_close": False}


def command(*flags, cwd=None):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, flags)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def bad_files(folder: Path) -> dict[str, Path]:
    np.save(folder / "nan.npy", np.array([1.0, np.nan] * 20))
    np.save(folder / "inf.npy", np.array([1.0, -np.inf] * 20))
    np.save(folder / "text.npy", np.array(["a", "b"]))
    np.save(folder / "short.npy", np.ones(4))
    np.save(folder / "zeros.npy", np.zeros(40))
    np.save(folder / "empty.npy", np.zeros((0,)))
    (folder / "broken.npy").write_bytes(b"not an array")
    return {p.stem: p for p in folder.glob("*.npy")}


BAD = [
    (["--keep", 11], "keep is 11.*10 outputs.*keep at most 10"),
    (["--N", 0], "N is 0; give at least 1"),
    (["--CI", -3], "CI is -3; give at least 1"),
    (["--kernel-size", 0], "kernel_size is 0; give at least 1"),
    (["--stride", 0], "stride is 0"),
    (["--dilation", 0], "dilation is 0"),
    (["--seeds", 0], "seeds is 0; give a whole number of at least 1"),
    (["--threads", 100000], "threads is 100000.*to 1024"),
    (["--threads", 0], "threads is 0; give a whole number from 1"),
    (["--seed", -1], "seed is -1; give a whole number from 0"),
    (["--formats", "float17"], "unknown format 'float17'.*float16"),
    (["--formats", "float8_e5m2"], "torch does not compute gradients in float8_e5m2"),
    (["--orders", "zigzag"], "unknown order 'zigzag'.*pairwise"),
    (["--data", "{nan}"], "holds nan; remove"),
    (["--data", "{inf}"], "holds -inf; remove"),
    (["--data", "{text}"], "real numbers"),
    (["--data", "{short}"], "4 time points and T is 10; give a T of at most 4"),
    (["--data", "{zeros}"], "only zeros"),
    (["--data", "{empty}"], "is empty"),
    (["--data", "{broken}"], "cannot be read"),
    (["--data", "missing.npy"], "'missing.npy' does not exist"),
    (["--data", "eeg"], "unknown data 'eeg'; give ecg, uniform or a .npy file"),
    (["--out", "{broken}/x"], "cannot write to the folder .*choose another"),
]


@pytest.mark.parametrize(
    ("flags", "words"), BAD, ids=lambda v: " ".join(map(str, v)) if isinstance(v, list) else ""
)
def test_bad_input_is_one_sentence(flags, words, tmp_path, capsys, monkeypatch) -> None:
    files = bad_files(tmp_path)
    flags = [str(f).format(**files) for f in flags]
    out = [] if "--out" in flags else ["--out", str(tmp_path / "out")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["slicing.py", "--quick", "--seeds", "2", *out, *flags])
    with pytest.raises(SystemExit) as stopped:
        slicing.main(slicing.Slicing, slicing.run)
    assert stopped.value.code not in (0, None)
    message = str(stopped.value.code)
    assert re.search(words, message), message
    assert "Traceback" not in message and "\n" not in message
    assert not (tmp_path / "out" / "report.pdf").exists()


def test_repeated_formats_and_orders_count_once(tmp_path) -> None:
    config = small(
        formats=("float32", "float32"), orders=("pairwise", "pairwise"), kernel_size=1, out=tmp_path
    )
    slicing.run(config)
    rows = pd.read_csv(tmp_path / "tables" / "summary.csv")
    assert not rows.duplicated(["case", "shape", "format", "gradient", "method", "order"]).any()


def test_nothing_to_cut_is_said_and_makes_no_halo_cases(tmp_path) -> None:
    config = small(keep=8, formats=("float32",), out=tmp_path)
    found = list(slicing.problems(config))
    assert {p.case for p in found} == {"kernel 1"}
    assert slicing.Shape.of(found[0]).start == 0


def test_only_the_default_study_goes_where_the_committed_reports_are() -> None:
    committed = {
        "uniform": "reports/slicing",
        "ecg": "reports/slicing_ecg",
        "mine.npy": "build/slicing",
    }
    for name, folder in committed.items():
        assert slicing.Slicing(data=name).folder == Path(folder)
        assert slicing.Slicing(data=name, seeds=3).folder == Path("build/slicing")
        assert slicing.Slicing(data=name, out=Path("x")).folder == Path("x")


def test_the_command_line_prints_no_traceback(tmp_path) -> None:
    found = command("--quick", "--keep", 11, "--out", tmp_path / "out")
    assert found.returncode == 1
    assert found.stderr.startswith("ArgumentError: keep is 11") and "Traceback" not in found.stderr


def test_real_data(tmp_path) -> None:
    ecg = series.series("ecg")
    assert ecg.shape == (1, 1024) and np.abs(ecg).max() == 1.0
    np.save(tmp_path / "mine.npy", np.arange(60, dtype=np.int16).reshape(2, 30))
    mine = series.series(str(tmp_path / "mine.npy"))
    cut = series.windows(mine, (4, 3, 7), np.random.default_rng(0))
    assert cut.shape == (4, 3, 7)
    assert np.allclose(np.diff(cut, axis=-1) * 59, 1.0)
    config = small(data=str(tmp_path / "mine.npy"), kernel_size=1)
    found = rows(config, tmp_path)["pairs"]
    assert set(found["verdict"]) <= {"IDENTICAL", "ROUNDOFF"}


def test_draw_may_give_tensors_and_nothing_else_than_numbers() -> None:
    def problem(draw):
        return study.TwoMethods(
            "case",
            "shape",
            4,
            {"one": torch.exp, "two": torch.exp},
            draw,
            ("x",),
            torch.sum,
            4,
            {"draw": str(draw)},
            {},
        )

    tensors = problem(lambda generator: {"x": torch.from_numpy(generator.standard_normal(4))})
    assert tensors.inputs(0, 0)["x"].dtype == np.float64
    assert len(study.cells([tensors], ("float32",), ("sequential",))) == 1
    for draw in (lambda generator: 3, lambda generator: {"x": "word"}):
        with pytest.raises(ro.ArgumentError, match="mapping|word|numbers"):
            problem(draw).inputs(0, 0)
