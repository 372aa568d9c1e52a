"""``soapkrr fit``."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from soapkrr.cli.files import check_labels, check_structures, model_path, named, read_structures
from soapkrr.cli.held_out import check_species, cross_validated, parts, split
from soapkrr.cli.parameters import plan_of
from soapkrr.cli.tables import ROWS, Report, counts, error_text, errors, told
from soapkrr.cli.understood import announce, as_text, understood
from soapkrr.errors import InputError

#: Said of errors of the structures that were fitted, where there are no others.
TRAINING = "These are training errors, smaller than those of new structures; --test FILE, --test-fraction 0.1 or --cv 5 measure these."


@dataclass(frozen=True)
class Data:
    """Structures to fit and to test, and what the test is called; ``places`` of a random part of the file."""

    train: list
    test: list | None = None
    title: str = ""
    places: list[int] | None = None


def fit(args) -> Report:
    if args.output is None and not args.plan:
        raise InputError("`--output` is missing: name the model file to write.")
    output = None if args.plan else model_path(args.output, args.file, args.test)
    data = _read(args)
    with named(args.file):
        plan = plan_of(args, data.train)
    _check(args, plan.model, data)
    found = understood(data.train, args.file, plan.model.observations)
    announce(found, args.quiet)
    if args.plan:
        return _planned(plan.model.plan(data.train, optimize=plan.way, calibrate=True))
    from soapkrr.checking.fitting import checked_fit

    start = time.perf_counter()
    with named(args.file):
        model = checked_fit(plan, data.train, progress=not args.quiet, strict=args.strict)
    seconds, memory = time.perf_counter() - start, peak_memory_mb()
    model.save(output)
    # Standard deviations of every training force would cost more than the fit, and of an exact process those of energies too.
    wanted = "energy" if hasattr(model, "n_sparse_") and args.uncertainty != "none" else "none"
    known = [atoms for s, atoms in enumerate(data.train) if s not in model.without_prior_mean_]
    train = errors(model, known, wanted, not args.quiet, args.by)
    test = None if data.test is None else errors(model, data.test, args.uncertainty, not args.quiet, args.by)
    cv = None if args.cv is None else cross_validated(plan, known, args)
    told = {"data": found, **train, "fit_seconds": seconds, "peak_memory_mb": memory, "test": test, "cv": cv, "test_places": data.places}
    text = "\n\n".join([as_text(found), _head(model, args, seconds, memory), *_tables(args, data, train, test, cv)])
    return Report(told | _described(model, args), text)


def _read(args) -> Data:
    frames = read_structures(args.file)
    if args.test and args.test_fraction:
        raise InputError("`--test` and `--test-fraction` exclude each other: give one of them.")
    if args.test:
        return Data(frames, read_structures(args.test), f"test: {args.test}")
    if args.test_fraction is None:
        return Data(frames)
    kept, out = split(frames, args.test_fraction, args.seed)
    check_species(frames, out, f"{args.file}: `--test-fraction` {args.test_fraction:g}: what is left out")
    title = f"test: drawn at random from {args.file}, seed {args.seed}"
    return Data([frames[s] for s in kept], [frames[s] for s in out], title, out)


def _check(args, model, data: Data) -> None:
    """Everything that can be wrong with the structures, before the fit."""
    check_structures(data.train, args.file, [model.descriptor])
    check_labels(data.train, args.file, model.observations, model.noise, args.by)
    if args.cv is not None:
        parts(data.train, args.cv, args.seed)
    if data.test is not None:
        path = args.test or args.file
        check_structures(data.test, path, [model.descriptor], known={int(z) for atoms in data.train for z in atoms.numbers})
        check_labels(data.test, path, model.observations, by=args.by)


def _planned(plan) -> Report:
    data = {name: getattr(plan, name) for name in ("n_structures", "n_atoms", "n_pairs", "rows", "flops", "peak_memory", "cpu_seconds")}
    return Report({**data, "gpu_seconds_estimated": plan.gpu_seconds, "threads": plan.threads, "memory": plan.memory}, str(plan))


def _described(model, args) -> dict:
    """What there is to know of the model, for ``--json``."""
    return {
        "model": str(args.output),
        "estimator": type(model).__name__,
        "choices": told(model.choices_),
        "n_sparse": getattr(model, "n_sparse_", None),
        "rank": getattr(model, "rank_", None),
        "condition": getattr(model, "condition_", None),
        "n_observations": model.n_observations_,
        "reference_energies": model.reference_energies_,
        "noise": model.noise_,
        "signals": list(model.signals_),
        "log_likelihood": model.log_likelihood_,
    }


def _head(model, args, seconds: float, memory: float | None) -> str:
    from soapkrr.auto import summary

    kind = f"{counts(model.n_sparse_)} sparse points" if hasattr(model, "n_sparse_") else "exact Gaussian process"
    memory_text = "" if memory is None else f", peak memory {memory:.0f} MB"
    return f"{args.output}: {kind}, fitted in {seconds:.1f} s{memory_text}\n\n{summary(model)}"


def _tables(args, data: Data, train: dict, test: dict | None, cv: dict | None) -> list[str]:
    tables = [error_text(f"train: {args.file}", train, args.by)]
    if cv is not None:
        tables.append(error_text(f"cross-validation, {cv['k']} parts: {args.file}", cv, args.by) + "\n" + _fold_lines(cv["folds"]))
    if test is not None:
        tables.append(error_text(data.title, test, args.by))
    return tables if len(tables) > 1 else [f"{tables[0]}\n\n{TRAINING}"]


def _fold_lines(folds: list[dict]) -> str:
    """Root mean square errors of each part, to see how far they scatter."""
    lines = []
    for kind, (unit, _, rmse, _) in ROWS.items():
        values = [table[rmse] for table in folds]
        if any(v is not None for v in values):
            lines.append(f"  RMSE of the parts, {kind} {unit}: {', '.join('-' if v is None else f'{v:.3g}' for v in values)}")
    return "\n".join(lines)


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far, 10⁶ bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
