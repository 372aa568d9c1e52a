"""What the options of ``soapkrr fit`` give in place of a choice, by the names of `soapkrr.auto`."""

from __future__ import annotations

from soapkrr.errors import InputError

#: Options that go to `soapkrr.auto.choose` as they are.
PLAIN = ("species", "r_cut", "sigma", "n_max", "l_max", "rbf", "zeta", "n_sparse", "selection", "tolerance", "signal")

#: Values of ``--learn`` that mean something else to `Settings`.
LEARNT = {"none": False}


def plan_of(args, frames):
    """The estimator for some structures as the options describe it, with what they leave open chosen from the data."""
    from soapkrr import ZBL
    from soapkrr.auto import choose
    from soapkrr.automatic.plans import Settings

    parts = [*(args.baseline or [None]), *([ZBL()] if args.zbl else [])]
    baseline = parts[0] if len(parts) == 1 else parts
    ways = {
        "repulsion": not args.no_repulsion,
        "score": args.score,
        "search": not args.no_search,
        "learn": LEARNT.get(args.learn, args.learn),
    }
    settings = Settings(observations_of(args), baseline, args.device, args.threads, args.memory_limit, **ways)
    return choose(frames, _given(args), settings)


def _given(args) -> dict:
    given = _without_none({name: getattr(args, name) for name in PLAIN})
    noise = _without_none({kind: getattr(args, f"noise_{kind}") for kind in ("energy", "forces", "stress")})
    given |= _without_none({"noise": noise or None, "cutoff": _cutoff(args), "optimize": args.optimize or None})
    return given | _scaling(args)


def _cutoff(args):
    from soapkrr.descriptors.cutoff import Cosine, Polynomial, Smoothstep

    if args.cutoff == "poly" and args.cutoff_width is not None:
        raise InputError("`--cutoff-width` belongs to smoothstep and cosine; the polynomial cutoff takes `--cutoff-exponent`.")
    if args.cutoff != "poly" and args.cutoff_exponent is not None:
        raise InputError("`--cutoff-exponent` belongs to `--cutoff poly`; the others take `--cutoff-width`.")
    given = _without_none({"width": args.cutoff_width, "m": args.cutoff_exponent})
    if args.cutoff is None and not given:
        return None
    return {None: Smoothstep, "smoothstep": Smoothstep, "cosine": Cosine, "poly": Polynomial}[args.cutoff](**given)


def _scaling(args) -> dict:
    """The radial scaling where an option states any of it; parameters left open are those of `RadialScaling`."""
    from soapkrr import RadialScaling

    given = _without_none({"r0": args.scaling_r0, "m": args.scaling_m, "c": args.scaling_c})
    if args.no_scaling and given:
        raise InputError(f"`--no-scaling` and `--scaling-{next(iter(given))}` exclude each other.")
    return {"scaling": None} if args.no_scaling else {"scaling": RadialScaling(**given)} if given else {}


def observations_of(args):
    """Names and noise of labels as the options state them, None where they state none."""
    from soapkrr import Observations
    from soapkrr.labels.observations import weighted

    names = ("energy", "forces", "stress", "virial", "config_type")
    given = _without_none({name: getattr(args, f"{name}_key") for name in names})
    noise: dict[str, dict] = {}
    for config_type, levels in getattr(args, "config_noise", None) or []:
        if config_type in noise:
            raise InputError(f"`--config-noise` names {config_type!r} twice; give its levels together, {config_type}:energy=..,forces=.. .")
        noise[config_type] = levels
    observations = Observations(**given, config_noise=noise) if given or noise else None
    return weighted(observations, getattr(args, "weights", None))


def _without_none(options: dict) -> dict:
    return {name: value for name, value in options.items() if value is not None}
