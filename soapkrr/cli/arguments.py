"""Options that several commands have."""

from __future__ import annotations

from soapkrr.cli.tables import UNCERTAINTY
from soapkrr.cli.types import config_noise, folds, memory, positive_int, seed

#: What naming labels brings with it.
LABELS = (
    "Without any of these options the labels are what ASE reads as energy, forces and stress. With one of them, noise by structure "
    "(energy_noise, forces_noise, stress_noise), weights (weight) and masks (force_mask) in FILE count too."
)


def model_and_file(sub, what: str) -> None:
    sub.add_argument("model", metavar="MODEL", help="model file")
    sub.add_argument("file", metavar="FILE", help=f"{what}, extended XYZ or any format that ASE reads")


def output(sub, metavar: str, what: str, required: bool = False) -> None:
    sub.add_argument("-o", "--output", required=required, metavar=metavar, help=what)


def labels(group, noise: bool = True) -> None:
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


def errors(sub, more: str = "") -> None:
    sub.add_argument("--by", metavar="NAME", help="errors for each value of NAME (for example config_type) too")
    sub.add_argument(
        "--uncertainty",
        choices=list(UNCERTAINTY),
        default="all",
        help=f"standard deviations to compare the errors with (default %(default)s){more}",
    )


def common(sub, limit: str | None = None) -> None:
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


def number(group, name: str, kind, default, text: str) -> None:
    shown = text if default is None else f"{text} (default %(default)s)"
    group.add_argument(name, type=kind, default=default, metavar="N" if kind in (int, positive_int, folds, seed) else "X", help=shown)


def chosen(group, name: str, kind, text: str) -> None:
    group.add_argument(name, type=kind, metavar="X" if kind is float else "N", help=f"{text} (default: chosen from the data)")
