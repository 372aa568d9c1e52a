"""What the package says of its parameters, said of the options of a command; and what a mistyped option was meant to be."""

from __future__ import annotations

import argparse
import re
import sys
from difflib import get_close_matches

#: Parameters whose options have other names than theirs.
OTHER = {
    "config_type": "--config-type-key",
    "r0": "--scaling-r0",
    "width": "--cutoff-width",
    "n_images": "--images",
    "displacement": "--displace",
    "noise": "--noise-energy, --noise-forces, --noise-stress",
    **dict.fromkeys(("observations", "Observations"), "--energy-key, --forces-key, --stress-key, --virial-key"),
}

#: Parameters that commands take without an option.
PLACES = ("initial", "final")

#: Kinds of label: where a message gives one a value, it is the name under which labels are looked for.
KINDS = ("energy", "forces", "stress", "virial")


def in_options(message: str, args: argparse.Namespace) -> str:
    """A message with the names of parameters replaced by those of the command's options, where it has them.

    Examples
    --------
    >>> in_options("`noise['energy']` must be a positive finite number.", argparse.Namespace(noise_energy=0.0))
    '`--noise-energy` must be a positive finite number.'
    >>> in_options("`baseline`='isolated', but no isolated atom", argparse.Namespace(baseline="isolated"))
    '`--baseline isolated`, but no isolated atom'
    """
    there = {f"--{name.replace('_', '-')}" for name in vars(args)}

    def replaced(match):
        if match["name"] in PLACES and match["name"] in vars(args):
            return f"`{match['name'].upper()}`"
        option, value = _option(match["name"], match["kind"], match["value"], args), match["value"]
        if not set(option.split(", ")) <= there:
            return match[0]
        return f"`{option}`" if value is None else f"`{option} {value.strip(chr(39))}`"

    message = message.replace("an `Observations` that names theirs", "the names of theirs, `Observations`")
    if "--config-noise" in there:
        message = re.sub(r"`config_noise`?(\['([^']*)'\])?(\['(\w+)'\])?`?", _config_noise, message)
    return re.sub(r"`(?P<name>\w+)(\['(?P<kind>\w+)'\])?`(=(?P<value>'[^']*'|[\w.+-]*\w))?", replaced, message)


def _config_noise(match: re.Match) -> str:
    return f"`--config-noise{f' {match[2]}' if match[2] else ''}{f':{match[4]}' if match[4] else ''}`"


def _option(name: str, kind: str | None, value: str | None, args: argparse.Namespace) -> str:
    """The option that states a parameter, or one kind of it."""
    if name in ("m", "c"):
        return f"--scaling-{name}" if getattr(args, f"scaling_{name}", None) is not None else "--cutoff-exponent"
    if name in KINDS and value is not None:
        return f"--{name}-key"
    return OTHER.get(name, "--" + name.replace("_", "-")) if kind is None else f"--{name}-{kind}"


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line, and which knows what a mistyped option may have been meant to be."""

    arguments: list[str] = []

    def parse_known_args(self, args=None, namespace=None, **options):
        """As in `argparse`, except that unknown arguments are an error at once, of the command they were given to."""
        self.arguments = list(sys.argv[1:] if args is None else args)
        empty = [] if self._subparsers else [argument for argument in self.arguments if re.fullmatch(r"--[\w-]+=--", argument)]
        if empty:  # `argparse` may make an empty list of it
            self.error(f"argument {empty[0][:-3]}: expected a value, received '--'")
        known, rest = super().parse_known_args(args, namespace, **options)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return known, rest

    def error(self, message):
        """Exit with code 2 and one line; an option that does not exist is named before anything else that may be wrong."""
        unknown = [] if "invalid choice" in message and self._subparsers else [name for name in map(self._unknown, self.arguments) if name]
        if unknown:
            message = f"there is no option {unknown[0]}{self._meant(unknown[0], self._option_string_actions)}"
        elif self._subparsers and (wrong := re.search(r"invalid choice: '([^']*)'", message)):
            message = f"there is no command {wrong[1]!r}{self._meant(wrong[1], self._subparsers._group_actions[0].choices)}"
        self.exit(2, f"soapkrr: error: {' '.join(message.split())} (see {self.prog} --help)\n")

    def _unknown(self, argument: str) -> str | None:
        """The name of an option that this parser does not have."""
        name = argument.split("=")[0]
        if not re.match(r"-+[A-Za-z]", name) or name in self._option_string_actions:
            return None
        short = not name.startswith("--") and name[:2] in self._option_string_actions
        return None if short and f"-{name}" not in self._option_string_actions else name

    def _meant(self, name: str, known) -> str:
        near = get_close_matches(name.replace("_", "-"), known, n=1, cutoff=0.7) or get_close_matches(f"-{name}", known, n=1, cutoff=0.8)
        return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}" if not name.startswith("-") else ""
