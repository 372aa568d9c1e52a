"""The options of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from soapkrr import __version__
from soapkrr.cli.check import check
from soapkrr.cli.evaluate import evaluate
from soapkrr.cli.fit import fit
from soapkrr.cli.info import info
from soapkrr.cli.messages import Parser
from soapkrr.cli.predict import predict
from soapkrr.cli.referenced import REFERENCES, add_arguments, relax_by_reference
from soapkrr.cli.relax import relax
from soapkrr.cli.screen import screen
from soapkrr.cli.tables import UNCERTAINTY
from soapkrr.cli.types import (
    baseline,
    config_noise,
    count,
    count_or_counts,
    folds,
    fraction,
    memory,
    positive_int,
    references,
    seed,
    symbols,
)

#: Names of `selection.specifications.NAMED`, without importing it.
SELECTIONS = ["cur", "fps", "kmeans", "leverage", "random"]

#: Names of `regression.score.SCORES`, without importing it.
SCORES = ["balanced", "energy", "forces"]

#: Names of `active.settings.RANKED`, without importing it.
RANKED = ["value", "lower", "probability"]

#: Columns by which `predict` sorts.
SORTED = ["id", "formula", "energy", "energy_std", "energy_per_atom", "forces_std"]

CHOSEN = (
    "Whatever is not given is chosen from the data, as soapkrr.fit does in Python, and the choices are printed with their reasons. Random "
    "parts of one trajectory are alike: for its errors, better give --test structures of another. Isolated atoms are always fitted."
)

CHECKED = "The exit code is 1 where there are errors or warnings, or where a check of a model fails."

FAILED = "OUT is written as the work goes on. A structure that cannot be predicted is in it with the reason, and the exit code is 1."

RELAXED = (
    "OUT holds energy, forces, stress and, in the comment line, energy_std, and grows by one structure after the other. A structure that "
    "fails is in it as it was, with the reason. The exit code is 1 when a structure failed or did not converge."
)

SCREENED = (
    "OUT.db grows as the work goes on; beside it are written OUT.csv and OUT.html, a page with pictures. The same command goes on where "
    "one that was killed stopped. Candidates that cannot be used are listed with the reason, and the exit code is 1."
)

#: What naming labels brings with it.
LABELS = (
    "Without any of these options the labels are what ASE reads as energy, forces and stress. With one of them, noise by structure "
    "(energy_noise, forces_noise, stress_noise), weights (weight) and masks (force_mask) in FILE count too."
)


def build_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of all commands; ``words``: those to parse, for `relax` has no MODEL where there is a --reference."""
    parser = Parser(prog="soapkrr", description="Gaussian-process potentials with error bars.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"soapkrr {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="check | fit | evaluate | predict | relax | screen | info")

    def command(run, text, epilog=None, name=None):
        sub = subparsers.add_parser(name or run.__name__, help=text, description=text, epilog=epilog, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    _check_arguments(command(check, "look for what is wrong with labelled structures, or with a model", CHECKED))
    _fit_arguments(command(fit, "fit a potential to labelled structures and write it to a file", CHOSEN))
    _evaluate_arguments(command(evaluate, "print the errors of a model on labelled structures"))
    _predict_arguments(command(predict, "predict energies and their standard deviations of structures without labels", FAILED))
    if any(word.split("=")[0] == "--reference" for word in words):
        sub = command(relax_by_reference, "relax structures by few calls of a reference", RELAXED, "relax")
        add_arguments(sub)
        _relaxation_arguments(sub)
    else:
        _relax_arguments(command(relax, "relax structures with a model, or by few calls of a --reference", RELAXED))
    _screen_arguments(command(screen, "rank candidates by predicted energy, and name those to calculate next", SCREENED))
    _info_arguments(command(info, "print what is in a model file"))
    return parser


def _check_arguments(sub) -> None:
    sub.add_argument("file", nargs="+", metavar="FILE", help="files of labelled structures; or MODEL, or MODEL FILE: structures not fitted")
    sub.add_argument("--html", metavar="OUT", help="page with the checks of a model, its figures in it")
    sub.add_argument("--quick", action="store_true", help="of data, only what takes no fit")
    _label_arguments(sub.add_argument_group("labels", LABELS), noise=False)
    _common_arguments(sub)


def _evaluate_arguments(sub) -> None:
    _model_and_file(sub, "labelled structures")
    _error_arguments(sub)
    _common_arguments(sub)


def _predict_arguments(sub) -> None:
    _model_and_file(sub, "structures")
    _output(sub, "OUT", "a table (.csv), structures with predictions (.xyz, .extxyz) or ASE's database (.db)", required=True)
    sub.add_argument("--sort", choices=SORTED, help="order of OUT, ascending (default: as in FILE)")
    sub.add_argument(
        "--forces-std", action="store_true", help="largest standard deviation of a structure's force components too, which costs"
    )
    _common_arguments(sub)


def _relax_arguments(sub) -> None:
    _model_and_file(sub, "structures")
    _relaxation_arguments(sub)
    sub.add_argument("--optimizer", choices=["bfgs", "fire"], default="bfgs", help="algorithm (default %(default)s)")
    sub.add_argument("--reference", metavar="REFERENCE", help=f"without MODEL: {REFERENCES}; see relax --reference emt --help")
    _common_arguments(sub)


def _relaxation_arguments(sub) -> None:
    _output(sub, "OUT", "relaxed structures, extended XYZ", required=True)
    sub.add_argument("--resume", action="store_true", help="go on where an interrupted run that wrote OUT stopped")
    _number(sub, "--fmax", float, 0.01, "largest force at which a structure counts as relaxed, eV/Å")
    _number(sub, "--steps", positive_int, 500, "largest number of steps")
    sub.add_argument("--cell", action="store_true", help="relax the cell too")


def _screen_arguments(sub) -> None:
    sub.add_argument("model", metavar="MODEL", help="model file")
    sub.add_argument("candidates", metavar="CANDIDATES", help="extended XYZ, ASE's database, another file that ASE reads, or a folder")
    _output(sub, "OUT.db", "ASE's database of the candidates, best first in OUT.csv and OUT.html", required=True)
    sub.add_argument("--next", type=count, default=0, metavar="N", help="name N structures whose labels narrow the decision most")
    _number(sub, "--best", positive_int, 10, "how many of the lowest values are looked for")
    _number(sub, "--below", float, None, "who is below this value is looked for, in place of the best")
    sub.add_argument(
        "--rank", choices=RANKED, default="value", help="order: value, lower end of its interval, or probability (default value)"
    )
    sub.add_argument(
        "--references",
        type=references,
        metavar="R",
        help="Cu=-3.5,O=-4.1 in eV/atom: formation energies; a file of phases with energies: energies above their convex hull",
    )
    _number(sub, "--coverage", fraction, 0.9, "of the intervals")
    _number(sub, "--merge", float, 0.01, "relative difference of descriptors up to which structures are the same; 0: none are")
    _number(sub, "--fmax", float, None, "relax each candidate with the model first, down to this force in eV/Å")
    _number(sub, "--steps", positive_int, 200, "largest number of steps of a relaxation")
    sub.add_argument("--cell", action="store_true", help="relax cells too")
    _common_arguments(sub)


def _info_arguments(sub) -> None:
    sub.add_argument("model", metavar="MODEL", help="model file")
    sub.add_argument("--verify", action="store_true", help="check everything in MODEL and say so in one line")
    sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _model_and_file(sub, what: str) -> None:
    sub.add_argument("model", metavar="MODEL", help="model file")
    sub.add_argument("file", metavar="FILE", help=f"{what}, extended XYZ or any format that ASE reads")


def _output(sub, metavar: str, what: str, required: bool = False) -> None:
    sub.add_argument("-o", "--output", required=required, metavar=metavar, help=what)


def _fit_arguments(sub) -> None:
    sub.add_argument("file", metavar="FILE", help="labelled structures, extended XYZ or any format that ASE reads")
    _output(sub, "MODEL", "model file to write")
    sub.add_argument("--strict", action="store_true", help="make warnings about the labels errors; nothing is written then")
    sub.add_argument("--plan", action="store_true", help="print rows, operations, memory and time of the fit, and write nothing")
    _test_arguments(sub.add_argument_group("errors on structures that are not fitted"))
    _descriptor_arguments(sub.add_argument_group("descriptor (default: chosen from the data)"))
    _regression_arguments(sub.add_argument_group("regression (default: chosen from the data)"))
    _label_arguments(sub.add_argument_group("labels", LABELS))
    _error_arguments(sub, "; of the training structures at most that of the energy, and none with an exact process")
    _common_arguments(sub, limit="8GB")


def _test_arguments(group) -> None:
    group.add_argument("--test", metavar="FILE", help="labelled structures that are not fitted, to measure errors on")
    _number(group, "--test-fraction", fraction, None, "fraction of FILE, drawn at random, that is left out and measured on")
    _number(group, "--cv", folds, None, "cross-validation: leave out each of N random parts once, fit to the others, and measure on it")
    _number(group, "--seed", seed, 0, "of the random numbers that draw structures")


def _descriptor_arguments(group) -> None:
    group.add_argument("--species", type=symbols, metavar="A,B", help="chemical symbols (default: all in FILE)")
    _chosen(group, "--r-cut", float, "cutoff radius, Å")
    _chosen(group, "--n-max", int, "radial basis functions")
    _chosen(group, "--l-max", int, "largest angular momentum")
    _chosen(group, "--sigma", float, "width of the atomic density, Å")
    group.add_argument("--rbf", choices=["gto", "bessel"], help="radial basis: Gaussian-type or Laplacian eigenfunctions (default gto)")
    group.add_argument("--cutoff", choices=["smoothstep", "cosine", "poly"], help="(default smoothstep)")
    _number(group, "--cutoff-width", float, None, "of smoothstep (default 1.5) or cosine (default: the whole range), Å")
    _number(group, "--cutoff-exponent", float, None, "of poly (default 2)")
    _chosen(group, "--scaling-r0", float, "let a neighbour's weight fall with distance, c/(c + (r/r0)^m): r0, Å")
    _chosen(group, "--scaling-m", float, "exponent m of that weight")
    _chosen(group, "--scaling-c", float, "rate c of that weight")
    group.add_argument("--no-scaling", action="store_true", help="the same weight for neighbours at every distance")


def _regression_arguments(group) -> None:
    _chosen(group, "--zeta", float, "exponent of the dot-product kernel")
    group.add_argument(
        "--n-sparse",
        type=count_or_counts,
        metavar="N",
        help="sparse points, in all or Si=500,O=800; means the sparse model (default: chosen from the data)",
    )
    group.add_argument("--selection", choices=SELECTIONS, help="choice of sparse points; means the sparse model (default fps)")
    _chosen(group, "--noise-energy", float, "standard deviation of the noise of energies, eV/atom")
    _chosen(group, "--noise-forces", float, "of force components, eV/Å")
    _chosen(group, "--noise-stress", float, "of stress components, eV/Å³")
    _chosen(group, "--signal", float, "prior standard deviation of one atom's energy, eV")
    group.add_argument("--optimize", action="store_true", help="find noise and signal of highest evidence, starting from those given")
    group.add_argument(
        "--baseline",
        type=baseline,
        action="append",
        metavar="B",
        help="reference energies: isolated, least-squares, or Si=-158.2,O=-432.1 in eV (default: isolated atoms where every species has "
        "one in FILE, otherwise least-squares); or a prior mean by name: gfn2, gfn1, d3:pbe, emt, zbl; auto: gfn2 for molecules where "
        "left-out structures are predicted better with it; may be repeated",
    )
    group.add_argument(
        "--zbl", action="store_true", help="core repulsion (Ziegler, Biersack, Littmark) as prior mean; the fit learns the rest"
    )
    group.add_argument("--no-repulsion", action="store_true", help="no walls between atoms closer than any in FILE")
    group.add_argument("--score", choices=SCORES, default="balanced", help="errors of left-out structures that are to be small")
    learn = "weights: learn channel weights, where they help (default: for 20 to 60 molecules, up to two minutes); none: do not"
    group.add_argument("--learn", choices=["weights", "none"], help=learn)
    group.add_argument("--weights", choices=["balanced"], help="let rare config types and species count as much as common ones")
    group.add_argument("--no-search", action="store_true", help="the recipe alone, without trying variants of it; takes less time")
    _number(group, "--tolerance", float, None, "kernel eigenvalues below this fraction of the largest are dropped; means the sparse model")


def _label_arguments(group, noise: bool = True) -> None:
    for kind, unit in (("energy", "eV"), ("forces", "eV/Å"), ("stress", "eV/Å³"), ("virial", "eV, in place of the stress")):
        group.add_argument(f"--{kind}-key", metavar="NAME", help=f"name of the {kind} in FILE, {unit}")
    group.add_argument("--config-type-key", metavar="NAME", help="name of the config type (default config_type)")
    if noise:
        group.add_argument(
            "--config-noise",
            type=config_noise,
            action="append",
            metavar="TYPE:KIND=X,..",
            help="noise of one config type, such as liquid:forces=0.2,energy=0.01 in eV/Å and eV/atom; may be repeated",
        )


def _error_arguments(sub, more: str = "") -> None:
    sub.add_argument("--by", metavar="NAME", help="errors for each value of NAME (for example config_type) too")
    sub.add_argument(
        "--uncertainty",
        choices=list(UNCERTAINTY),
        default="all",
        help=f"standard deviations to compare the errors with (default %(default)s){more}",
    )


def _common_arguments(sub, limit: str | None = None) -> None:
    sub.add_argument("--threads", type=positive_int, metavar="N", help="default: every core this process may use")
    sub.add_argument(
        "--memory-limit",
        type=memory,
        default=limit,
        metavar="M",
        help="memory to take beside Python, its libraries and FILE, such as 2GB, or none "
        f"(default: {'no limit' if limit is None else limit})",
    )
    sub.add_argument(
        "--device",
        choices=["cpu", "cuda", "auto"],
        default="cpu",
        help="auto: a GPU if there is one (default %(default)s)",
    )
    sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    sub.add_argument("--quiet", action="store_true", help="no progress bars and no warnings on standard error")


def _number(group, name: str, kind, default, text: str) -> None:
    shown = text if default is None else f"{text} (default %(default)s)"
    group.add_argument(name, type=kind, default=default, metavar="N" if kind in (int, positive_int, folds, seed) else "X", help=shown)


def _chosen(group, name: str, kind, text: str) -> None:
    group.add_argument(name, type=kind, metavar="X" if kind is float else "N", help=f"{text} (default: chosen from the data)")
