"""``soapkrr fit``."""

from __future__ import annotations

import sys
import time

from soapkrr.cli.files import check_labels, check_structures, model_path, read_structures
from soapkrr.cli.tables import Report, counts, error_text, errors, noise_text
from soapkrr.errors import InputError


def fit(args) -> Report:
    if args.output is None and not args.plan:
        raise InputError("`--output` is missing: name the model file to write.")
    output = None if args.plan else model_path(args.output, args.file, args.test)
    frames = read_structures(args.file)
    test = read_structures(args.test) if args.test else None
    model = build_model(args, frames)
    _check(args, model, frames, test)
    if args.plan:
        return _planned(model.plan(frames, optimize=args.optimize))
    start = time.perf_counter()
    model.fit(frames, optimize=args.optimize, progress=not args.quiet)
    seconds, memory = time.perf_counter() - start, peak_memory_mb()
    model.save(output)
    # Standard deviations of every training force would cost more than the fit: energies only.
    train_errors = errors(model, frames, "none" if args.uncertainty == "none" else "energy", not args.quiet, args.by)
    test_errors = None if test is None else errors(model, test, args.uncertainty, not args.quiet, args.by)
    data = {
        **train_errors,
        "fit_seconds": seconds,
        "peak_memory_mb": memory,
        "test": test_errors,
        "model": str(args.output),
        "n_sparse": model.n_sparse_,
        "rank": model.rank_,
        "condition": model.condition_,
        "n_observations": model.n_observations_,
        "reference_energies": model.reference_energies_,
        "noise": model.noise_,
        "signals": list(model.signals_),
    }
    memory_text = "" if memory is None else f", peak memory {memory:.0f} MB"
    head = f"{args.output}: {counts(model.n_sparse_)} sparse points, fitted in {seconds:.1f} s{memory_text}"
    if args.optimize:
        head += f"\nhighest evidence: noise {noise_text(model.noise_)}; signal {model.signals_[0]:.4g} eV"
    tables = [error_text(f"train: {args.file}", train_errors, args.by)]
    tables += [] if test is None else [error_text(f"test: {args.test}", test_errors, args.by)]
    return Report(data, "\n\n".join([head, *tables]))


def _planned(plan) -> Report:
    data = {name: getattr(plan, name) for name in ("n_structures", "n_atoms", "n_pairs", "rows", "flops", "peak_memory", "cpu_seconds")}
    return Report({**data, "gpu_seconds_estimated": plan.gpu_seconds, "threads": plan.threads, "memory": plan.memory}, str(plan))


def build_model(args, frames):
    """The unfitted model that the options describe."""
    from soapkrr import ZBL, DotProduct, SparseGP

    return SparseGP(
        _descriptor(args, frames),
        DotProduct(zeta=args.zeta),
        n_sparse=args.n_sparse,
        noise={"energy": args.noise_energy, "forces": args.noise_forces, "stress": args.noise_stress},
        signal=args.signal,
        selection=args.selection,
        baseline=[args.baseline, ZBL()] if args.zbl else args.baseline,
        tolerance=args.tolerance,
        threads=args.threads,
        device=args.device,
        observations=_observations(args),
        memory_limit=args.memory_limit,
    )


def _check(args, model, frames, test) -> None:
    """Everything that can be wrong with both files, before the fit."""
    check_structures(frames, args.file, [model.descriptor])
    check_labels(frames, args.file, model.observations, model.noise, args.by)
    if test is not None:
        check_structures(test, args.test, [model.descriptor], known={int(z) for atoms in frames for z in atoms.numbers})
        check_labels(test, args.test, model.observations, by=args.by)


def _observations(args):
    """Names and noise of labels as the options state them, None where they state none."""
    from soapkrr import Observations

    names = ("energy", "forces", "stress", "virial", "config_type")
    given = _without_none({name: getattr(args, f"{name}_key") for name in names})
    noise: dict[str, dict] = {}
    for config_type, levels in args.config_noise or []:
        if config_type in noise:
            raise InputError(f"`--config-noise` names {config_type!r} twice; give its levels together, {config_type}:energy=..,forces=.. .")
        noise[config_type] = levels
    return Observations(**given, config_noise=noise) if given or noise else None


def _descriptor(args, frames):
    from soapkrr import SOAP, RadialScaling
    from soapkrr.descriptors.cutoff import Cosine, Polynomial, Smoothstep

    if args.cutoff == "poly" and args.cutoff_width is not None:
        raise InputError("`--cutoff-width` belongs to smoothstep and cosine; the polynomial cutoff takes `--cutoff-exponent`.")
    if args.cutoff != "poly" and args.cutoff_exponent is not None:
        raise InputError(f"`--cutoff-exponent` belongs to the polynomial cutoff; {args.cutoff} takes `--cutoff-width`.")
    given = {"width": args.cutoff_width, "m": args.cutoff_exponent}
    cutoff = {"smoothstep": Smoothstep, "cosine": Cosine, "poly": Polynomial}[args.cutoff](**_without_none(given))
    scaling = _without_none({"r0": args.scaling_r0, "m": args.scaling_m, "c": args.scaling_c})
    return SOAP(
        species=args.species if args.species is not None else sorted({int(z) for atoms in frames for z in atoms.numbers}),
        r_cut=args.r_cut,
        n_max=args.n_max,
        l_max=args.l_max,
        sigma=args.sigma,
        cutoff=cutoff,
        rbf=args.rbf,
        scaling=RadialScaling(**scaling) if scaling else None,
    )


def _without_none(options: dict) -> dict:
    return {name: value for name, value in options.items() if value is not None}


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far, 10⁶ bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
