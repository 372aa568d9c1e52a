"""Command line: ``soapkrr fit | evaluate | relax | info``.

Results go to standard output, everything else to standard error. Exit codes: 0 done; 1 a relaxation did not converge; 2 input that
cannot be used (one line says why); 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import warnings
from contextlib import contextmanager

from soapkrr import __version__, commands
from soapkrr.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; argument errors leave through `SystemExit` with code 2."""
    _tolerate_ascii(sys.stdout)
    _tolerate_ascii(sys.stderr)
    args = build_parser().parse_args(argv)
    try:
        with _messages(getattr(args, "quiet", False)):
            report = args.run(args)
            print(_strict_json(report.data) if args.json else report.text, flush=True)
            return report.code
    except KeyboardInterrupt:
        return _fail("interrupted; nothing half-written is left behind", 130)
    except (InputError, OSError, ArithmeticError) as error:
        return _fail(str(error), 2)
    except MemoryError:
        return _fail("out of memory: fewer sparse points (--n-sparse) or smaller structures need less", 2)


def _fail(message: str, code: int) -> int:
    print(f"soapkrr: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _tolerate_ascii(stream) -> None:
    """Print ``?`` where a terminal cannot show Å, rather than fail."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def _strict_json(value) -> str:
    """JSON on one line; NaN and infinities, which JSON does not have, become null."""

    def clean(v):
        if isinstance(v, dict):
            return {str(k): clean(x) for k, x in v.items()}
        if isinstance(v, (list, tuple)):
            return [clean(x) for x in v]
        if hasattr(v, "item"):
            v = v.item()
        return None if isinstance(v, float) and not math.isfinite(v) else v

    return json.dumps(clean(value), allow_nan=False)


@contextmanager
def _messages(quiet: bool):
    """Log records and Python warnings as single lines on standard error; ``quiet`` hides all but errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("soapkrr: %(message)s"))
    handler.setLevel(logging.ERROR if quiet else logging.WARNING)
    logger = logging.getLogger("soapkrr")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *rest: logger.warning("%s", " ".join(str(message).split()))
            yield
    finally:
        logger.removeHandler(handler)


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

    _fit_arguments(command(commands.fit, "fit a potential to labelled structures and write it to a file"))

    sub = command(commands.evaluate, "print the errors of a model on labelled structures")
    sub.add_argument("model", metavar="MODEL", help="model file")
    sub.add_argument("file", metavar="FILE", help="labelled structures, extended XYZ or any format that ASE reads")
    _uncertainty_argument(sub)
    _common_arguments(sub)

    sub = command(
        commands.relax,
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

    sub = command(commands.info, "print what is in a model file")
    sub.add_argument("model", metavar="MODEL", help="model file")
    sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


def _fit_arguments(sub) -> None:
    sub.add_argument("file", metavar="FILE", help="labelled structures, extended XYZ or any format that ASE reads")
    sub.add_argument("--test", metavar="FILE", help="labelled structures that are not fitted, to measure errors on")
    sub.add_argument("--output", required=True, metavar="MODEL", help="model file to write")

    group = sub.add_argument_group("descriptor")
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

    group = sub.add_argument_group("regression")
    _number(group, "--zeta", float, 4.0, "exponent of the dot-product kernel")
    group.add_argument(
        "--n-sparse",
        type=_count_or_counts,
        default=1000,
        metavar="N",
        help="sparse points, in all or Si=500,O=800 (default %(default)s)",
    )
    group.add_argument("--selection", choices=["fps", "cur"], default="fps", help="choice of sparse points (default %(default)s)")
    _number(group, "--noise-energy", float, 0.002, "standard deviation of the noise of energies, eV/atom")
    _number(group, "--noise-forces", float, 0.05, "of force components, eV/Å")
    _number(group, "--noise-stress", float, 0.002, "of stress components, eV/Å³")
    _number(group, "--signal", float, 1.0, "prior standard deviation of one atom's energy, eV")
    group.add_argument(
        "--baseline",
        type=_baseline,
        metavar="B",
        help="reference energies: isolated, least-squares, or Si=-158.2,O=-432.1 in eV (default: isolated atoms where every species has "
        "one in FILE, otherwise least-squares)",
    )
    _number(group, "--tolerance", float, 1e-10, "kernel eigenvalues below this fraction of the largest are dropped")
    _uncertainty_argument(sub, "; the training table stops at energies, its forces would take longer than the fit")
    _common_arguments(sub)


def _uncertainty_argument(sub, more: str = "") -> None:
    sub.add_argument(
        "--uncertainty",
        choices=list(commands.UNCERTAINTY),
        default="all",
        help=f"standard deviations to compare the errors with (default %(default)s){more}",
    )


def _common_arguments(sub) -> None:
    sub.add_argument("--threads", type=_positive_int, metavar="N", help="default: every core this process may use")
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


def _symbols(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _assignments(text: str, kind) -> dict:
    """``Si=-158.2,O=-432`` as a dictionary."""
    try:
        pairs = [part.split("=") for part in text.split(",")]
        table = {symbol.strip(): kind(value) for symbol, value in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected SYMBOL=NUMBER,SYMBOL=NUMBER,.. , received {text!r}") from None
    if len(table) != len(pairs):
        raise argparse.ArgumentTypeError(f"a species occurs twice in {text!r}")
    return table


def _baseline(text: str):
    if text in ("isolated", "least-squares"):
        return text
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"expected isolated, least-squares or Si=-158.2,O=-432.1, received {text!r}")
    return _assignments(text, float)


def _count_or_counts(text: str):
    return _assignments(text, _positive_int) if "=" in text else _positive_int(text)


if __name__ == "__main__":
    sys.exit(main())
