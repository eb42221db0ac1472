"""The package as a whole: light import, complete names, documented, no stray paths."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from changed import OVER_TABLES

import roundoff as ro

ROOT = Path(ro.__file__).parents[1]
SOURCES = sorted(Path(ro.__file__).parent.rglob("*.py"))


def test_import_is_light() -> None:
    code = (
        "import sys, roundoff; roundoff.FLOAT16; "
        "print([m for m in ('torch', 'matplotlib', 'pandas', 'scipy.stats', 'typst') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_public_name_resolves_and_is_listed() -> None:
    for name in ro.__all__:
        assert getattr(ro, name) is not None
        assert name in dir(ro)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ro.no_such_name


def test_no_room_hides_a_public_name() -> None:
    rooms = {path.stem for path in Path(ro.__file__).parent.iterdir()}
    assert rooms & set(ro.__all__) == {"bounds", "orders", "testing"}  # which are those rooms


@pytest.mark.parametrize("room", [ro, ro.bounds])
def test_type_checkers_see_the_public_names(room: Any) -> None:
    stub = ast.parse(Path(room.__file__).with_suffix(".pyi").read_text())
    seen = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen.keys() | ({"__version__"} if room is ro else set()) == set(room.__all__)
    for name, place in seen.items():
        home, _, last = place.rpartition(".")
        thing = getattr(room, name)
        found = importlib.import_module(place if inspect.ismodule(thing) else home)
        assert thing is (found if inspect.ismodule(found) and found.__name__ == place
                         else getattr(found, last)), name  # fmt: skip


def test_public_names_have_docstrings() -> None:
    for name in ro.__all__:
        thing = getattr(ro, name)
        if inspect.isclass(thing) or inspect.isfunction(thing) or inspect.ismodule(thing):
            assert inspect.getdoc(thing), name


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_say_what_they_are(path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    exported = [n.value for n in ast.walk(tree) if isinstance(n, ast.Assign)
                for t in n.targets if isinstance(t, ast.Name) and t.id == "__all__"]  # fmt: skip
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    if exported and not path.name.startswith("__init__"):
        names = {e.value for e in exported[0].elts}
        public = {name for name in defined if not name.startswith("_")}
        assert public <= names, f"not in __all__: {public - names}"


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 4
    exec("\n".join(blocks), {"__name__": "readme"})


def test_the_house_is_as_contributing_draws_it() -> None:
    drawn = re.findall(r"^  (\w+)(?:/|\.py) ", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    package = Path(ro.__file__).parent
    there = {
        path.stem
        for path in package.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set(drawn) == there - {"__init__"} and len(drawn) == len(set(drawn))
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert layers["contracts"][0]["layers"] == drawn[::-1]
    for name in re.findall(r"`((?:\w+/)+\w+\.\w+)`", (ROOT / "CONTRIBUTING.md").read_text()):
        assert "NAME" in name or any((top / name).exists() for top in (package, ROOT)), name


def test_experiments_are_guarded_and_made() -> None:
    """Each is among the reports and the quick looks, and an interruption of it ends in a sentence."""
    makefile = (ROOT / "Makefile").read_text()
    for path in ROOT.glob("experiments/*.py"):
        if "    main(" in (text := path.read_text()):
            assert text.index("    guard()") < text.index("@dataclass"), path
            commands = re.findall(rf"^\t.*experiments/{path.name}\b.*", makefile, re.MULTILINE)
            quick = [command for command in commands if "--quick" in command]
            assert quick and len(commands) > len(quick), f"{path.name} is not in the Makefile"


def test_tests_over_tables_are_where_make_check_looks() -> None:
    for table, tests in OVER_TABLES.items():
        for path in (table, *tests):
            assert (ROOT / path).exists(), path


def test_no_path_of_a_machine() -> None:
    pattern = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users)/")
    for path in [
        *SOURCES,
        *ROOT.glob("*.md"),
        *ROOT.glob("experiments/*.py"),
        *ROOT.glob("benchmarks/*.py"),
    ]:
        assert not pattern.search(path.read_text()), path
