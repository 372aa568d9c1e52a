"""The options of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from soapkrr import __version__
from soapkrr.cli.arguments import LABELS, common, errors, labels, model_and_file, number, output
from soapkrr.cli.check import check
from soapkrr.cli.compress import COMPRESSED, compress, compress_arguments
from soapkrr.cli.convert import CONVERTED, convert, convert_arguments
from soapkrr.cli.dimer import DIMER, dimer, dimer_arguments
from soapkrr.cli.evaluate import evaluate
from soapkrr.cli.explore import EXPLORED, explore, explore_arguments
from soapkrr.cli.fit import fit
from soapkrr.cli.fit_arguments import fit_arguments
from soapkrr.cli.info import info
from soapkrr.cli.ipi import SERVED, ipi, ipi_arguments
from soapkrr.cli.messages import Parser
from soapkrr.cli.neb import NEB, neb, neb_arguments
from soapkrr.cli.new import add_arguments as new_arguments
from soapkrr.cli.new import new
from soapkrr.cli.predict import predict
from soapkrr.cli.referenced import REFERENCES, add_arguments, relax_by_reference
from soapkrr.cli.relax import relax
from soapkrr.cli.report import REPORTED, report, report_arguments
from soapkrr.cli.screen import screen
from soapkrr.cli.types import (
    count,
    fraction,
    positive_int,
    references,
)

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


def build_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of all commands; ``words``: those to parse, for `relax` has no MODEL where there is a --reference."""
    parser = Parser(prog="soapkrr", description="Gaussian-process potentials with error bars.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"soapkrr {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(run, text, epilog=None, name=None):
        sub = subparsers.add_parser(name or run.__name__, help=text, description=text, epilog=epilog, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    new_arguments(command(new, "write a commented script and a notebook for structures of your own"))
    _check_arguments(command(check, "look for what is wrong with labelled structures, or with a model", CHECKED))
    fit_arguments(command(fit, "fit a potential to labelled structures and write it to a file", CHOSEN))
    _evaluate_arguments(command(evaluate, "print the errors of a model on labelled structures"))
    _predict_arguments(command(predict, "predict energies and their standard deviations of structures without labels", FAILED))
    if any(word.split("=")[0] == "--reference" for word in words):
        sub = command(relax_by_reference, "relax structures by few calls of a reference", RELAXED, "relax")
        add_arguments(sub)
        _relaxation_arguments(sub)
    else:
        _relax_arguments(command(relax, "relax structures with a model, or by few calls of a --reference", RELAXED))
    neb_arguments(command(neb, "find the path over a barrier by few calls of a reference", NEB))
    dimer_arguments(command(dimer, "find a saddle point from one structure by few calls of a reference", DIMER))
    explore_arguments(command(explore, "run molecular dynamics that ask a reference where a force may be wrong", EXPLORED))
    _screen_arguments(command(screen, "rank candidates by predicted energy, and name those to calculate next", SCREENED))
    convert_arguments(command(convert, "write a published potential (GAP) as a model file", CONVERTED))
    ipi_arguments(command(ipi, "give i-PI energies and forces through a socket, of all beads at once", SERVED))
    report_arguments(command(report, "write one page with everything that is known of a model", REPORTED))
    compress_arguments(command(compress, "put a sparse model on fewer of its points", COMPRESSED))
    _info_arguments(command(info, "print what is in a model file"))
    return parser


def _check_arguments(sub) -> None:
    sub.add_argument("file", nargs="+", metavar="FILE", help="files of labelled structures; or MODEL, or MODEL FILE: structures not fitted")
    sub.add_argument("--html", metavar="OUT", help="page with the checks of a model, its figures in it")
    sub.add_argument("--quick", action="store_true", help="of data, only what takes no fit")
    labels(sub.add_argument_group("labels", LABELS), noise=False)
    common(sub)


def _evaluate_arguments(sub) -> None:
    model_and_file(sub, "labelled structures")
    errors(sub)
    common(sub)


def _predict_arguments(sub) -> None:
    model_and_file(sub, "structures")
    output(sub, "OUT", "a table (.csv), structures with predictions (.xyz, .extxyz) or ASE's database (.db)", required=True)
    sub.add_argument("--sort", choices=SORTED, help="order of OUT, ascending (default: as in FILE)")
    sub.add_argument(
        "--forces-std", action="store_true", help="largest standard deviation of a structure's force components too, which costs"
    )
    common(sub)


def _relax_arguments(sub) -> None:
    model_and_file(sub, "structures")
    _relaxation_arguments(sub)
    sub.add_argument("--optimizer", choices=["bfgs", "fire"], default="bfgs", help="algorithm (default %(default)s)")
    sub.add_argument("--reference", metavar="REFERENCE", help=f"without MODEL: {REFERENCES}; see relax --reference emt --help")
    common(sub)


def _relaxation_arguments(sub) -> None:
    output(sub, "OUT", "relaxed structures, extended XYZ", required=True)
    sub.add_argument("--resume", action="store_true", help="go on where an interrupted run that wrote OUT stopped")
    number(sub, "--fmax", float, 0.01, "largest force at which a structure counts as relaxed, eV/Å")
    number(sub, "--steps", positive_int, 500, "largest number of steps")
    sub.add_argument("--cell", action="store_true", help="relax the cell too")


def _screen_arguments(sub) -> None:
    sub.add_argument("model", metavar="MODEL", help="model file")
    sub.add_argument(
        "candidates",
        metavar="CANDIDATES",
        help="extended XYZ, ASE's database, another file that ASE reads (FILE@0:50: some of it), or a folder",
    )
    output(sub, "OUT.db", "ASE's database of the candidates, best first in OUT.csv and OUT.html", required=True)
    sub.add_argument("--next", type=count, default=0, metavar="N", help="name N structures whose labels narrow the decision most")
    number(sub, "--best", positive_int, 10, "how many of the lowest values are looked for")
    number(sub, "--below", float, None, "who is below this value is looked for, in place of the best")
    sub.add_argument(
        "--rank", choices=RANKED, default="value", help="order: value, lower end of its interval, or probability (default value)"
    )
    sub.add_argument(
        "--references",
        type=references,
        metavar="R",
        help="Cu=-3.5,O=-4.1 in eV/atom: formation energies; a file of phases with energies: energies above their convex hull",
    )
    number(sub, "--coverage", fraction, 0.9, "of the intervals")
    number(sub, "--merge", float, 0.01, "relative difference of descriptors up to which structures are the same; 0: none are")
    number(sub, "--fmax", float, None, "relax each candidate with the model first, down to this force in eV/Å")
    number(sub, "--steps", positive_int, 200, "largest number of steps of a relaxation")
    sub.add_argument("--cell", action="store_true", help="relax cells too")
    common(sub)


def _info_arguments(sub) -> None:
    sub.add_argument("model", metavar="MODEL", help="model file")
    sub.add_argument("--verify", action="store_true", help="check everything in MODEL and say so in one line")
    sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
