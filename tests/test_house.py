"""The house keeps its floors: upper modules import lower ones, never the reverse; parts stay small. See docs/architecture.md."""

import ast
import statistics
import sys
from pathlib import Path

import pytest
from small import crystals, small_gp

ROOT = Path(__file__).parent.parent / "soapkrr"

#: Floors from the ground up; what stands on one floor may import itself (without circles) and what is below.
FLOORS = (
    ("errors", "specification", "progress", "threads", "display", "export", "prediction", "datasets", "lazy", "student")
    + ("tensor_prediction",),
    ("backends",),
    ("linear", "kernels", "structures", "structure_checks", "verlet"),
    ("electrostatics",),
    ("execution",),
    ("selection", "labels"),
    ("descriptors",),
    ("similarity", "baselines", "metrics"),
    ("plot", "calculator", "threaded", "choices", "interfaces"),
    ("modelfile", "exchange"),
    ("regression",),
    ("planning",),
    ("checking", "uncertainty"),
    ("estimators",),
    ("learning",),
    ("auto", "automatic", "description", "repulsion", "solids", "loading", "gap"),
    ("lint",),
    ("active",),
    ("observables",),
    ("cli",),
)

#: Arrows within a floor, or between packages, that are forbidden, and why.
FORBIDDEN = {
    ("regression", "sklearn"): "regression is mathematics: what scikit-learn expects of estimators is said in `estimators` alone",
    ("regression.sparse", "regression.exact"): "sparse processes stand on their own; exact ones use their design rows",
    ("modelfile", "estimators"): "a file names its estimator; only `loading` knows the class",
    ("backends.cpu", "backends.gpu"): "one machine has no GPU",
    ("plot", "estimators"): "figures are drawn of predictions, whoever made them",
}


def modules() -> dict[str, ast.Module]:
    """{dotted name below soapkrr: syntax tree} of every module."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


TREES = modules()


def _for_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(tree: ast.AST, inside_functions: bool):
    """Import statements that run when the module is imported, and with ``inside_functions`` also those that run later."""
    for node in ast.iter_child_nodes(tree):
        if _for_type_checking(node):
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif inside_functions or not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            yield from statements(node, inside_functions)


def imported(name: str, inside_functions: bool = True) -> set[str]:
    """Modules of the package that a module imports, by name below soapkrr."""
    found = set()
    for node in statements(TREES[name], inside_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("soapkrr.") for alias in node.names if alias.name.startswith("soapkrr.")}
        elif node.module and node.module.split(".")[0] == "soapkrr":
            base = node.module.removeprefix("soapkrr").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                found.add(inner if inner in TREES else base)
    return found - {name, ""}


def floor(name: str) -> int:
    """Number of the floor of a module."""
    for number, packages in enumerate(FLOORS):
        if name.split(".")[0] in packages:
            return number
    raise AssertionError(f"soapkrr.{name} stands on no floor: give it one in FLOORS of tests/test_house.py, and in docs/architecture.md")


@pytest.mark.parametrize("name", [name for name in TREES if name])
def test_no_module_imports_from_above(name):
    above = {other for other in imported(name) if floor(other) > floor(name)}
    assert not above, f"soapkrr.{name} imports {sorted(above)} from a floor above its own"


def test_there_are_no_circles():
    """Not even through imports inside functions, and not even within a floor."""
    graph = {name: imported(name) - ({"cli"} if name.startswith("cli.") else set()) for name in TREES if name}
    done: dict[str, bool] = {}

    def visit(name, path):
        assert name not in path, f"circle: {' → '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, [*path, name])
            done[name] = True

    for name in graph:
        visit(name, [])
    assert len(done) == len(graph)


@pytest.mark.parametrize(("source", "target"), FORBIDDEN)
def test_forbidden_arrows(source, target):
    inside = [name for name in TREES if name == source or name.startswith(f"{source}.")]
    assert inside, f"{source} is no part of the package"
    arrows = []
    for name in inside:
        for node in statements(TREES[name], inside_functions=True):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            arrows += [name for n in names if (n == target or n.startswith((f"{target}.", f"soapkrr.{target}")))]
    assert not arrows, f"{arrows} import {target}: {FORBIDDEN[source, target]}"


def functions():
    """(module, function node, whether it is a method) of every function of the package."""
    for name, tree in TREES.items():
        methods = {f for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for f in node.body}
        yield from ((name, f, f in methods) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef))


def lines(function: ast.FunctionDef) -> int:
    """Lines of the body without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def test_functions_are_short():
    lengths = {f"{name}.{f.name}": lines(f) for name, f, _ in functions()}
    assert statistics.median(lengths.values()) <= 6
    assert not {name: n for name, n in lengths.items() if n > 60 and not name.startswith("backends.")}


def test_modules_are_short():
    sizes = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in ROOT.rglob("*.py")}
    assert not {str(path): n for path, n in sizes.items() if n > 300}


#: The one function of many parameters: a constructor in all but name, whose parameters are those of the models that it makes.
CONSTRUCTOR = "auto.fit"


def test_public_functions_have_few_parameters():
    """Constructors of estimators and specifications apart, and `CONSTRUCTOR`."""
    long = {}
    for name, f, is_method in functions():
        n = sum(map(len, (f.args.posonlyargs, f.args.args, f.args.kwonlyargs))) - is_method
        if n > 8 and not f.name.startswith("_"):
            long[f"{name}.{f.name}"] = n
    assert set(long) == {CONSTRUCTOR}


#: What calls on behalf of others: a function handed to a pool counts as called by whoever handed it over, an attribute by who asks.
TRANSPARENT = {"lazy", "threads", "progress", "execution.pools", "execution.blocks", "execution.workers", "execution.resources"}


def _module(frame) -> str | None:
    """Module of the package that a frame runs, None outside of it and while a module is being imported."""
    path = Path(frame.f_code.co_filename)
    if frame.f_code.co_name == "<module>" or not path.is_relative_to(ROOT):
        return None
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def climbs(call) -> set[tuple[str, str]]:
    """(caller, called) modules of every call that goes up to a higher floor while ``call()`` runs on this thread."""
    found = set()

    def watch(frame, event, argument):
        called = _module(frame) if event == "call" else None
        if called is None:
            return
        caller = frame.f_back
        while caller is not None and (_module(caller) is None or _module(caller) in TRANSPARENT):
            caller = caller.f_back
        if caller is not None and floor(called) > floor(_module(caller)):
            found.add((_module(caller), called))

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("options", [{}, {"memory_limit": "1GB"}, {"representers": "observations"}], ids=str)
def test_fits_and_predictions_go_down_the_stairs_only(options):
    frames = crystals(4)
    model = small_gp(threads=1, **options)
    assert not climbs(lambda: model.fit(frames, optimize=True))
    assert not climbs(lambda: model.predict(frames[:2], uncertainty=True))
