"""The examples in docstrings run and print what they say, in every module of the package; public classes and functions have a docstring."""

import doctest
import inspect
import pkgutil
from importlib import import_module

import pytest

import soapkrr

#: Modules of the package, found by walking it; those for a GPU need one.
MODULES = [
    m.name for m in pkgutil.walk_packages(soapkrr.__path__, "soapkrr.") if ".backends.gpu" not in m.name and not m.name.endswith("__main__")
]


def examples():
    """Every docstring with an example, by name."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(import_module(name), name)]
    return {test.name: test for test in found if test.examples}


EXAMPLES = examples()


def test_the_walk_finds_examples():
    assert {"soapkrr.estimators.sparse_gp.SparseGP", "soapkrr.descriptors.soap.SOAP", "soapkrr.kernels.functions.DotProduct"} <= set(
        EXAMPLES
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name):
    report = []
    doctest.DocTestRunner(verbose=False).run(EXAMPLES[name], out=report.append, clear_globs=False)
    assert not report, "".join(report)


@pytest.mark.parametrize("name", sorted(name for name in soapkrr.__all__ if callable(getattr(soapkrr, name))))
def test_public_names_and_their_public_methods_are_described(name):
    thing = getattr(soapkrr, name)
    methods = inspect.getmembers(thing, inspect.isfunction) if inspect.isclass(thing) else []
    own = [m for label, m in methods if not label.startswith("_") and m.__module__.startswith("soapkrr.")]
    undescribed = [m.__qualname__ for m in [thing, *own] if not inspect.getdoc(m)]
    assert not undescribed
