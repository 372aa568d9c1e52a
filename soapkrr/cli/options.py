"""The options of the command line."""

from __future__ import annotations

import argparse

from soapkrr import __version__
from soapkrr.cli.evaluate import evaluate
from soapkrr.cli.fit import fit
from soapkrr.cli.info import info
from soapkrr.cli.relax import relax
from soapkrr.cli.tables import UNCERTAINTY

#: Names of `selection.specifications.NAMED`, without importing it.
SELECTIONS = ["cur", "fps", "kmeans", "leverage", "random"]

#: What naming labels brings with it.
LABELS = (
    "Without any of these options the labels are what ASE reads as energy, forces and stress. With one of them, noise by structure "
    "(energy_noise, forces_noise, stress_noise), weights (weight) and masks (force_mask) in FILE count too."
)


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line."""

    def error(self, message):
        self.exit(2, f"soapkrr: error: {' '.join(message.split())} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all four commands."""
    parser = Parser(prog="soapkrr", description="SOAP sparse Gaussian-process potentials with error bars.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"soapkrr {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="fit | evaluate | relax | info")

    def command(run, text, epilog=None):
        sub = subparsers.add_parser(run.__name__, help=text, description=text, epilog=epilog, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    _fit_arguments(command(fit, "fit a potential to labelled structures and write it to a file"))

    sub = command(evaluate, "print the errors of a model on labelled structures")
    sub.add_argument("model", metavar="MODEL", help="model file")
    sub.add_argument("file", metavar="FILE", help="labelled structures, extended XYZ or any format that ASE reads")
    _error_arguments(sub)
    _common_arguments(sub)

    sub = command(
        relax,
        "relax structures with a model",
        "OUT holds energy, forces, stress and, in the comment line, energy_std. The exit code is 1 when a structure did not converge; "
        "OUT is written all the same.",
    )
    sub.add_argument("model", metavar="MODEL", help="model file")
    sub.add_argument("file", metavar="FILE", help="structures, extended XYZ or any format that ASE reads")
    sub.add_argument("--output", required=True, metavar="OUT", help="relaxed structures, extended XYZ")
    sub.add_argument("--optimizer", choices=["bfgs", "fire"], default="bfgs", help="algorithm (default %(default)s)")
    _number(sub, "--fmax", float, 0.01, "largest force at which a structure counts as relaxed, eV/Å")
    _number(sub, "--steps", _positive_int, 500, "largest number of steps")
    sub.add_argument("--cell", action="store_true", help="relax the cell too")
    _common_arguments(sub)

    sub = command(info, "print what is in a model file")
    sub.add_argument("model", metavar="MODEL", help="model file")
    sub.add_argument("--verify", action="store_true", help="check everything in MODEL and say so in one line")
    sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def _fit_arguments(sub) -> None:
    sub.add_argument("file", metavar="FILE", help="labelled structures, extended XYZ or any format that ASE reads")
    sub.add_argument("--test", metavar="FILE", help="labelled structures that are not fitted, to measure errors on")
    sub.add_argument("--output", metavar="MODEL", help="model file to write")
    sub.add_argument("--plan", action="store_true", help="print rows, operations, memory and time of the fit, and write nothing")

    _descriptor_arguments(sub.add_argument_group("descriptor"))
    _regression_arguments(sub.add_argument_group("regression"))
    _label_arguments(sub.add_argument_group("labels", LABELS))
    _error_arguments(sub, "; the training table stops at energies, its forces would take longer than the fit")
    _common_arguments(sub)


def _descriptor_arguments(group) -> None:
    group.add_argument("--species", type=_symbols, metavar="A,B,..", help="chemical symbols (default: those in FILE)")
    _number(group, "--r-cut", float, 5.0, "cutoff radius, Å")
    _number(group, "--n-max", int, 8, "radial functions")
    _number(group, "--l-max", int, 6, "highest angular momentum")
    _number(group, "--sigma", float, 0.5, "width of the Gaussians, Å")
    group.add_argument("--rbf", choices=["gto", "bessel"], default="gto", help="radial basis (default %(default)s)")
    group.add_argument("--cutoff", choices=["smoothstep", "cosine", "poly"], default="smoothstep", help="default %(default)s")
    _number(group, "--cutoff-width", float, None, "of smoothstep (default 1.5) or cosine (default: the whole range), Å")
    _number(group, "--cutoff-exponent", float, None, "of poly (default 2)")
    _number(group, "--scaling-r0", float, None, "let a neighbour's weight fall with distance, c/(c + (r/r0)^m): r0, Å (default 2)")
    _number(group, "--scaling-m", float, None, "exponent m of that weight (default 4)")
    _number(group, "--scaling-c", float, None, "rate c of that weight (default 1); any of the three switches it on")


def _regression_arguments(group) -> None:
    _number(group, "--zeta", float, 4.0, "exponent of the dot-product kernel")
    group.add_argument(
        "--n-sparse",
        type=_count_or_counts,
        default=1000,
        metavar="N",
        help="sparse points, in all or Si=500,O=800 (default %(default)s)",
    )
    group.add_argument("--selection", choices=SELECTIONS, default="fps", help="choice of sparse points (default %(default)s)")
    _number(group, "--noise-energy", float, 0.002, "standard deviation of the noise of energies, eV/atom")
    _number(group, "--noise-forces", float, 0.05, "of force components, eV/Å")
    _number(group, "--noise-stress", float, 0.002, "of stress components, eV/Å³")
    _number(group, "--signal", float, 3.0, "prior standard deviation of one atom's energy, eV")
    group.add_argument("--optimize", action="store_true", help="find noise and signal of highest evidence, from those given")
    group.add_argument(
        "--baseline",
        type=_baseline,
        metavar="B",
        help="reference energies: isolated, least-squares, or Si=-158.2,O=-432.1 in eV (default: isolated atoms where every species has "
        "one in FILE, otherwise least-squares)",
    )
    group.add_argument(
        "--zbl", action="store_true", help="core repulsion (Ziegler, Biersack, Littmark) as prior mean; the fit learns the rest"
    )
    _number(group, "--tolerance", float, 1e-10, "kernel eigenvalues below this fraction of the largest are dropped")


def _label_arguments(group) -> None:
    for kind, unit in (("energy", "eV"), ("forces", "eV/Å"), ("stress", "eV/Å³"), ("virial", "eV, in place of the stress")):
        group.add_argument(f"--{kind}-key", metavar="NAME", help=f"name of the {kind} in FILE, {unit}")
    group.add_argument("--config-type-key", metavar="NAME", help="name of the config type (default config_type)")
    group.add_argument(
        "--config-noise",
        type=_config_noise,
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


def _common_arguments(sub) -> None:
    sub.add_argument("--threads", type=_positive_int, metavar="N", help="default: every core this process may use")
    sub.add_argument(
        "--memory-limit",
        type=_memory,
        metavar="M",
        help="memory to take beside Python, its libraries and FILE, such as 2GB (default: no limit)",
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
    group.add_argument(name, type=kind, default=default, metavar="X" if kind is float else "N", help=shown)


def _positive_int(text: str) -> int:
    value = int(text) if text.lstrip("+-").isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, received {text!r}")
    return value


def _memory(text: str) -> str:
    from soapkrr.errors import InputError
    from soapkrr.execution.memory import parse_memory

    try:
        parse_memory(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _symbols(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _assignments(text: str, kind) -> dict:
    """``Si=-158.2,O=-432`` as a dictionary."""
    try:
        pairs = [part.split("=") for part in text.split(",")]
        table = {symbol.strip(): kind(value) for symbol, value in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NAME=NUMBER,NAME=NUMBER,.. , received {text!r}") from None
    if len(table) != len(pairs):
        raise argparse.ArgumentTypeError(f"a name occurs twice in {text!r}")
    return table


def _baseline(text: str):
    if text in ("isolated", "least-squares"):
        return text
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"expected isolated, least-squares or Si=-158.2,O=-432.1, received {text!r}")
    return _assignments(text, float)


def _config_noise(text: str) -> tuple[str, dict[str, float]]:
    name, separator, levels = text.rpartition(":")
    if not (separator and name):
        raise argparse.ArgumentTypeError(f"expected TYPE:KIND=NUMBER,.. such as liquid:forces=0.2,energy=0.01, received {text!r}")
    return name, _assignments(levels, float)


def _count_or_counts(text: str):
    return _assignments(text, _positive_int) if "=" in text else _positive_int(text)
