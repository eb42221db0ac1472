"""What a report was made with: versions, build, threads, flags, environment, inputs."""

from __future__ import annotations

import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from roundoff import __version__
from roundoff.locks import TORCH
from roundoff.words import counted

PACKAGES = (
    "torch", "numpy", "scipy", "mpmath", "python-flint", "pandas", "pyarrow",
    "matplotlib", "typst",
)  # fmt: skip

#: Environment variables that change results.
#: (threadpoolctl sets KMP_DUPLICATE_LIB_OK when it is imported, which changes none.)
PREFIXES = ("OMP_", "MKL_", "ONEDNN_", "DNNL_", "ATEN_", "KMP_", "OPENBLAS_", "TORCH_", "CUBLAS_")


def collect(
    *,
    seed: int,
    configuration: Mapping[str, object],
    input_hashes: Mapping[str, str],
    engine: str,
    radius: str,
    threads: int,
) -> dict[str, dict[str, str]]:
    """Sections of facts for the last page of a report.

    No time, host, user or path gets in: the same run gives the same text.
    """
    return {
        "Run": {
            "seed": str(seed),
            "torch threads per worker": str(threads),
            "source commit": git_commit(),
            "reference": engine,
            "largest reference radius": radius,
        },
        "Configuration": {name: str(value) for name, value in configuration.items()},
        "Inputs of seed 0 (SHA-256)": dict(input_hashes),
        "Versions": versions(),
        "Machine": machine(),
        "Numeric flags": flags(),
        "Contracts": contracts(),
        "Environment": environment(),
        "Thread pools": pools(),
        "torch build": build(),
    }


def versions() -> dict[str, str]:
    """Python's and the packages'."""
    found = {"python": platform.python_version(), "roundoff": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, str]:
    """Processor, what torch uses of it, operating system."""
    import torch

    found = {
        "processor": _processor(),
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if torch.cuda.is_available():  # type: ignore[no-untyped-call,unused-ignore]
        found["accelerator"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


@TORCH
def flags() -> dict[str, str]:
    """torch's flags that change numbers."""
    import torch

    matmul = torch.backends.cuda.matmul
    tiny = torch.tensor([1e-310], dtype=torch.float64)
    return {
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "reduced-precision reduction, float16": str(matmul.allow_fp16_reduced_precision_reduction),
        "reduced-precision reduction, bfloat16": str(matmul.allow_bf16_reduced_precision_reduction),
        "cudnn enabled": str(torch.backends.cudnn.enabled),
        "deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
        "TF32, cuBLAS": str(matmul.allow_tf32),
        "TF32, cuDNN": str(torch.backends.cudnn.allow_tf32),
        "mkldnn available": str(torch.backends.mkldnn.is_available()),  # type: ignore[no-untyped-call]
        "mkldnn enabled": str(torch.backends.mkldnn.enabled),  # type: ignore[attr-defined,unused-ignore]
        "subnormals flushed": str(bool((tiny * 1.0 == 0).item())),
    }


#: From so many contracts on, those of a kernel are told together, whatever its operands.
_MANY = 24


def contracts() -> dict[str, str]:
    """What probes of this process showed of its kernels."""
    from roundoff.kernels import contracts

    rows = contracts().rows
    found: dict[str, Counter[str]] = {}
    for kernel, operands, format, threads, sums, once, flushes in rows:
        facts = f"sums in {sums}; rounds once: {once}; flushes: {flushes}"
        what = f"{kernel} {operands}" if len(rows) < _MANY else kernel
        found.setdefault(f"{what}, {format}, {counted(threads, 'thread')}", Counter())[facts] += 1
    told = {
        where: "; or ".join(
            f"{facts} ({counted(count, 'call')})" if len(rows) >= _MANY else facts
            for facts, count in each.items()
        )
        for where, each in found.items()
    }
    return told or {
        "kernels": "none was probed in this process; worker processes probe those that their bounds meet"
    }


def environment() -> dict[str, str]:
    """The variables that change results, as far as they are set."""
    found = {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(PREFIXES) and name != "KMP_DUPLICATE_LIB_OK"
    }
    # A value with a path in it says where, not what.
    shown = {name: "(a path)" if os.sep in value else value for name, value in found.items()}
    return shown or {"variables": f"none of {', '.join(p + '*' for p in PREFIXES)} is set"}


def pools() -> dict[str, str]:
    """Native libraries with threads of their own."""
    from threadpoolctl import threadpool_info

    found = {}
    for pool in threadpool_info():
        library = Path(pool["filepath"]).name.split("-")[0].split(".")[0]
        parts = (
            pool.get("version"),
            pool.get("architecture"),
            counted(pool["num_threads"], "thread"),
        )
        found[f"{pool['user_api']}: {library}"] = ", ".join(p for p in parts if p)
    return dict(sorted(found.items()))


@TORCH
def build() -> dict[str, str]:
    """torch's own account of its build and of its parallelism."""
    import torch

    lines = [line.strip(" -") for line in torch.__config__.show().splitlines()]
    settings = [
        line for line in lines if line and not line.startswith(("PyTorch built", "Build settings"))
    ]
    wanted = (
        "BLAS_INFO",
        "BUILD_TYPE",
        "LAPACK_INFO",
        "USE_MKL",
        "USE_MKLDNN",
        "USE_OPENMP",
        "USE_CUDA",
    )
    values = [
        part.strip()
        for line in lines
        if line.startswith("Build settings")
        for part in line.removeprefix("Build settings:").split(",")
        if part.strip().split("=")[0] in wanted
    ]
    parallel = [line.strip() for line in torch.__config__.parallel_info().splitlines()]
    return {
        "configuration": "; ".join(settings),
        "settings": ", ".join(values),
        "parallel": "; ".join(
            line for line in parallel if " : " in line or line.startswith("ATen parallel")
        ),
    }


def git_commit() -> str:
    """The last commit that changed the source, and whether the work tree differs from it."""
    source = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    paths = (":/roundoff", ":/experiments", ":/requirements.lock")
    try:
        # The last commit of the source: committing a report does not change what made it.
        commit = git("log", "-1", "--format=%h", "--abbrev=12", "--", *paths)
        changed = git("status", "--porcelain", "--", *paths)
    except (OSError, subprocess.CalledProcessError):
        return "not in a git work tree"
    return f"{commit}, {'with changes' if changed else 'clean'}"
