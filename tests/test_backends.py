"""The contract of the backends: modules of the same names, whose public functions take the same few arguments."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import soapkrr.backends

FOLDER = Path(soapkrr.backends.__file__).parent
TWINS = sorted(path.name for path in (FOLDER / "cpu").glob("*.py") if (FOLDER / "gpu" / path.name).exists())

#: A reader holds about so many arguments; what belongs together is a named tuple of `backends.arrays`.
MOST_ARGUMENTS = 8


def arguments(path: Path) -> dict[str, list[str]]:
    """Names of the arguments of each public function of a module."""
    found = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    return {
        f.name: [a.arg for a in (*f.args.posonlyargs, *f.args.args, f.args.vararg, *f.args.kwonlyargs, f.args.kwarg) if a] for f in found
    }


@pytest.mark.parametrize("name", TWINS)
def test_twins_take_the_same_arguments(name):
    cpu, gpu = (arguments(FOLDER / side / name) for side in ("cpu", "gpu"))
    common = cpu.keys() & gpu.keys()
    assert {f: cpu[f] for f in common} == {f: gpu[f] for f in common}


def test_twins_are_all_modules_of_loops():
    assert {"acsf.py", "acsf_jacobian.py", "dense.py", "pair.py", "regression.py", "soap.py", "soap_jacobian.py"} <= set(TWINS)


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_public_functions_take_few_arguments(path):
    assert not {f: names for f, names in arguments(path).items() if len(names) > MOST_ARGUMENTS}
