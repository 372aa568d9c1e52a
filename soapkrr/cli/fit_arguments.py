"""Options of `soapkrr fit`."""

from __future__ import annotations

from soapkrr.cli.arguments import LABELS, chosen, common, errors, labels, number, output
from soapkrr.cli.types import baseline, count_or_counts, folds, fraction, seed, symbols

#: Names of `selection.specifications.NAMED`, without importing it.
SELECTIONS = ["cur", "fps", "kmeans", "leverage", "random"]

#: Names of `regression.score.SCORES`, without importing it.
SCORES = ["balanced", "energy", "forces"]


def fit_arguments(sub) -> None:
    sub.add_argument("file", metavar="FILE", help="labelled structures, extended XYZ or any format that ASE reads")
    output(sub, "MODEL", "model file to write")
    sub.add_argument("--strict", action="store_true", help="make warnings about the labels errors; nothing is written then")
    sub.add_argument("--plan", action="store_true", help="print rows, operations, memory and time of the fit, and write nothing")
    _test_arguments(sub.add_argument_group("errors on structures that are not fitted"))
    _descriptor_arguments(sub.add_argument_group("descriptor (default: chosen from the data)"))
    _regression_arguments(sub.add_argument_group("regression (default: chosen from the data)"))
    labels(sub.add_argument_group("labels", LABELS))
    errors(sub, "; of the training structures at most that of the energy, and none with an exact process")
    common(sub, limit="8GB")


def _test_arguments(group) -> None:
    group.add_argument("--test", metavar="FILE", help="labelled structures that are not fitted, to measure errors on")
    number(group, "--test-fraction", fraction, None, "fraction of FILE, drawn at random, that is left out and measured on")
    number(group, "--cv", folds, None, "cross-validation: leave out each of N random parts once, fit to the others, and measure on it")
    number(group, "--seed", seed, 0, "of the random numbers that draw structures")


def _descriptor_arguments(group) -> None:
    group.add_argument("--species", type=symbols, metavar="A,B", help="chemical symbols (default: all in FILE)")
    chosen(group, "--r-cut", float, "cutoff radius, Å")
    chosen(group, "--n-max", int, "radial basis functions")
    chosen(group, "--l-max", int, "largest angular momentum")
    chosen(group, "--sigma", float, "width of the atomic density, Å")
    group.add_argument("--rbf", choices=["gto", "bessel"], help="radial basis: Gaussian-type or Laplacian eigenfunctions (default gto)")
    group.add_argument("--cutoff", choices=["smoothstep", "cosine", "poly"], help="(default smoothstep)")
    number(group, "--cutoff-width", float, None, "of smoothstep (default 1.5) or cosine (default: the whole range), Å")
    number(group, "--cutoff-exponent", float, None, "of poly (default 2)")
    chosen(group, "--scaling-r0", float, "let a neighbour's weight fall with distance, c/(c + (r/r0)^m): r0, Å")
    chosen(group, "--scaling-m", float, "exponent m of that weight")
    chosen(group, "--scaling-c", float, "rate c of that weight")
    group.add_argument("--no-scaling", action="store_true", help="the same weight for neighbours at every distance")


def _regression_arguments(group) -> None:
    chosen(group, "--zeta", float, "exponent of the dot-product kernel")
    group.add_argument(
        "--n-sparse",
        type=count_or_counts,
        metavar="N",
        help="sparse points, in all or Si=500,O=800; means the sparse model (default: chosen from the data)",
    )
    group.add_argument("--selection", choices=SELECTIONS, help="choice of sparse points; means the sparse model (default fps)")
    chosen(group, "--noise-energy", float, "standard deviation of the noise of energies, eV/atom")
    chosen(group, "--noise-forces", float, "of force components, eV/Å")
    chosen(group, "--noise-stress", float, "of stress components, eV/Å³")
    chosen(group, "--signal", float, "prior standard deviation of one atom's energy, eV")
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
    number(group, "--tolerance", float, None, "kernel eigenvalues below this fraction of the largest are dropped; means the sparse model")
