"""What `neb`, `dimer` and `explore` share: a reference that is called few times, and files from which a run that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import contextmanager
from pathlib import Path

from soapkrr.cli.arguments import number
from soapkrr.cli.files import load_model, read_structures
from soapkrr.cli.referenced import REFERENCES
from soapkrr.cli.types import positive_int
from soapkrr.errors import InputError

logger = logging.getLogger(__name__)

GOES_ON = "Every calculation is kept as soon as it is made: the same command goes on where one that was stopped or killed was."


def reference_arguments(sub) -> None:
    """Who is asked, and what is known before."""
    sub.add_argument("--reference", required=True, metavar="REFERENCE", help=REFERENCES)
    sub.add_argument(
        "--model", metavar="MODEL", help="what is known before: an exact process goes on to learn, another model is a prior mean"
    )
    sub.add_argument("--prior", metavar="REFERENCE", help="a cheap calculator: what is learnt is the difference to it")


def search_arguments(sub) -> None:
    """Of searches that end at a force."""
    number(sub, "--fmax", float, 0.05, "largest reference force at which the search has ended, eV/Å")
    number(sub, "--steps", positive_int, 100, "largest number of calls of the reference")
    sub.add_argument("--save-model", metavar="OUT", help="what was learnt, as a model file")
    sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    sub.add_argument("--quiet", action="store_true", help="no warnings on standard error")


def calculators(args) -> tuple:
    """(reference, prior mean or None, model that grows or None) of a command."""
    from soapkrr.active.calculators import reference_calculator
    from soapkrr.active.surrogate import grows

    reference = reference_calculator(args.reference)
    if args.model is not None and args.prior is not None:
        raise InputError("`--model` and `--prior` are both known before; give one of them.")
    prior = None if args.prior is None else reference_calculator(args.prior)
    if args.model is None:
        return reference, prior, None
    model = load_model(args.model)
    return (reference, None, model) if grows(model) else (reference, model, None)


def one_structure(path: str):
    """The single structure of a file, in which something can move."""
    from soapkrr.active.asking import held

    frames = read_structures(path)
    if len(frames) > 1:
        raise InputError(f"{path} holds {len(frames)} structures, and one is needed: {path}@0 is the first, {path}@-1 the last.")
    if held(frames[0]).all():
        raise InputError(f"{path}: constraints fix every atom, nothing can move.")
    return frames[0]


def asked_of(args, names: tuple[str, ...], **structures) -> dict[str, str]:
    """What the calculations of a run depend on, {name: text}."""
    asked = {name: str(getattr(args, name)) for name in ("reference", "prior", *names)}
    asked["model"] = "None" if args.model is None else hashlib.sha256(Path(args.model).read_bytes()).hexdigest()[:24]
    return asked | {name: _digest(atoms) for name, atoms in structures.items()}


def _digest(atoms) -> str:
    found = hashlib.sha256(repr(sorted(map(repr, (c.todict() for c in atoms.constraints)))).encode())
    for array in (atoms.numbers, atoms.positions, atoms.get_momenta(), atoms.cell.array, atoms.pbc):
        found.update(array.tobytes())
    return found.hexdigest()[:24]


def begin(path: Path, calls: Path, command: str, asked: dict[str, str]) -> None:
    """Write down what a run was asked for; raises `InputError` where there are calculations of another run."""
    from soapkrr.modelfile import write_whole

    asked = {"command": command, **asked}
    if not calls.exists():
        text = json.dumps(asked, indent=1)
        write_whole(path, lambda file: file.write(text.encode()))
        return
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name, text in asked.items() if stated.get(name) != text]
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"`--output`: {calls} is there, and {path} does not say of which run ({error}); choose another name.") from error
    if other:
        what = ", ".join(other)
        raise InputError(
            f"`--output`: {calls} is of another run, whose {what} {'differs' if len(other) == 1 else 'differ'}; choose another name, or "
            "remove that file."
        )


def beside(output: Path, end: str) -> Path:
    """A file beside the output: ``path.xyz`` has ``path.calls.xyz``."""
    return output.with_name(f"{output.stem}.{end}")


@contextmanager
def kept(calls: Path, asked: Path):
    """Say what is not lost when a run ends before it has ended; where nothing was calculated, leave nothing that was ``asked``."""
    try:
        yield
    except InputError as error:
        if not calls.exists():
            asked.unlink(missing_ok=True)
        raise InputError(f"{str(error).rstrip('.')}. {_kept(calls)}.") from error
    except KeyboardInterrupt:
        logger.warning(_kept(calls))
        raise


def _kept(calls: Path) -> str:
    n = calls.read_text(encoding="utf-8").count("Properties=") if calls.exists() else 0
    return f"{n} calculations are in {calls}; the same command goes on from there" if n else "Nothing was calculated before"


def warn_of_forces(found: dict[str, float], fmax: float) -> None:
    """Say where ends are not at rest: a barrier is counted from them."""
    for name, force in found.items():
        if force > fmax:
            logger.warning(
                "%s is not at rest (%.3f eV/Å, above %.3g): relax it first, as with `soapkrr relax FILE --reference ...`", name, force, fmax
            )
