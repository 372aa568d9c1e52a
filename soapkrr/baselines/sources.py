"""Prior means that have a name: where each comes from, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module, metadata

from ase.data import chemical_symbols

from soapkrr.baselines.zbl import ZBL
from soapkrr.errors import InputError, installing

#: Group of entry points under which installed packages offer prior means.
ENTRY_POINTS = "soapkrr.baselines"

#: Words that a `baseline` may be and that name no prior mean.
RESERVED = ("auto", "isolated", "least-squares")


@dataclass(frozen=True)
class Source:
    """Where a named prior mean comes from.

    Attributes
    ----------
    name : of it.  factory : (*arguments, **options) → an ASE calculator, or a `Baseline`.
    package : the distribution whose version results depend on, which must be installed; None: soapkrr needs it anyhow.
    extra : extra of soapkrr that installs it.  version : of the results, beside that of the package; None: they are not kept on a disk.
    heaviest : largest atomic number that it knows, None: any.
    """

    name: str
    factory: Callable
    package: str | None = None
    extra: str | None = None
    version: str | None = None
    heaviest: int | None = None

    def check(self) -> None:
        """Raise `InputError` where the package is not installed."""
        try:
            if self.package is not None:
                metadata.version(self.package)
        except metadata.PackageNotFoundError as error:
            how = f": {installing(self.extra)}" if self.extra else ""
            raise InputError(f"`baseline`={self.name!r} needs {self.package}, which is not installed{how}.") from error

    @property
    def stamp(self) -> str | None:
        """What results depend on beside the structure and the options; None where that is not known."""
        if self.version is None:
            return None
        return self.version if self.package is None else f"{self.package} {metadata.version(self.package)} {self.version}"

    @property
    def last_element(self) -> str | None:
        return None if self.heaviest is None else chemical_symbols[self.heaviest]


def gfn2(**options):
    """GFN2-xTB; ``charge`` and ``multiplicity`` of the whole structure are among the options of `tblite.ase.TBLite`."""
    return _tblite("GFN2-xTB", options)


def gfn1(**options):
    """GFN1-xTB, as `gfn2`."""
    return _tblite("GFN1-xTB", options)


def _tblite(method: str, options: dict):
    calculator = import_module("tblite.ase").TBLite
    unknown = sorted(set(options) - set(calculator.default_parameters))
    if unknown:
        raise InputError(f"`baseline`: {method} has no {', '.join(unknown)}; it has {', '.join(sorted(calculator.default_parameters))}.")
    # No API objects kept: a self-consistent field that starts from that of the structure before would depend on the order of structures.
    return calculator(method=method, **{"verbosity": 0, "accuracy": 0.1, "cache_api": False, **options})


def d3(functional: str | None = None, damping: str = "d3bj"):
    """Dispersion D3 with the parameters of a density functional; damping of Becke and Johnson, or ``"d3zero"``."""
    if functional is None:
        raise InputError("`baseline`='d3' has parameters for each density functional: name that of the labels, such as 'd3:pbe'.")
    return import_module("dftd3.ase").DFTD3(method=functional, damping=damping)


def emt():
    """ASE's effective medium theory, for fcc metals; fast and rough."""
    return import_module("ase.calculators.emt").EMT()


OWN = {
    source.name: source
    for source in (
        Source("gfn2", gfn2, package="tblite", extra="xtb", version="1", heaviest=86),
        Source("gfn1", gfn1, package="tblite", extra="xtb", version="1", heaviest=86),
        Source("d3", d3, package="dftd3", extra="d3", version="1", heaviest=103),
        Source("emt", emt, package="ase", version="1"),
        Source("zbl", ZBL),
    )
}
_REGISTERED: dict[str, Source] = {}


def register(name: str, factory: Callable, version: str | None = None) -> None:
    """Let a prior mean be given, saved and loaded by a name.

    ``baseline=name`` then means the ASE calculator that ``factory()`` makes, ``baseline="name:a,b=1"`` that of ``factory("a", b=1)``. A
    model file holds the name: register it again before `soapkrr.load`. The command line knows names that an installed package offers as
    entry points of the group ``soapkrr.baselines``, each a factory.

    Parameters
    ----------
    name : letters, digits, "_", "-" and "."; none of soapkrr's own.
    factory : makes an ASE calculator, or a `Baseline`; where processes share the work each calls it once.
    version : of the results, such as the name of a set of weights: with it they are kept on a disk (`keep_results`) and found by name,
        options and version.

    Raises
    ------
    InputError : the name cannot be one, or the factory cannot be called.

    Examples
    --------
    >>> from ase.calculators.lj import LennardJones
    >>> import soapkrr.baselines
    >>> soapkrr.baselines.register("argon", lambda: LennardJones(sigma=3.4, epsilon=0.0104, rc=8.0, smooth=True))
    >>> soapkrr.baselines.split_baseline(["argon", "isolated"])
    ('isolated', (NamedBaseline(name='argon'),))
    """
    if not isinstance(name, str) or not name or not all(c.isalnum() or c in "_-." for c in name):
        raise InputError(f"`name` must be of letters, digits, '_', '-' and '.', received {name!r}.")
    if name in (*OWN, *RESERVED):
        raise InputError(f"`name`={name!r} has a meaning already; take another one.")
    if not callable(factory):
        raise InputError(f"`factory` must be callable and make an ASE calculator, received {factory!r}.")
    if not (version is None or isinstance(version, str)):
        raise InputError(f"`version` must be a text, such as the name of a set of weights, or None, received {version!r}.")
    _REGISTERED[name] = Source(name, factory, version=version)


def is_own(source: Source) -> bool:
    """Whether soapkrr knows it by itself."""
    return OWN.get(source.name) is source


def adopt(source: Source) -> None:
    """Know a source that another process had registered, unless the name is known here."""
    _REGISTERED.setdefault(source.name, source)


def source_of(name: str) -> Source:
    """The source of a name.

    Raises
    ------
    InputError : it is unknown; the message lists those that are known.
    """
    if name in OWN or name in _REGISTERED:
        return OWN.get(name) or _REGISTERED[name]
    offered = {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINTS)}
    if name in offered and name not in RESERVED:
        entry = offered[name]
        return _REGISTERED.setdefault(name, Source(name, entry.load(), version=f"{entry.dist.name} {entry.dist.version}"))
    if name == "auto":
        raise InputError("`baseline`='auto' compares prior means on left-out structures, as `soapkrr.fit` does; an estimator takes a name.")
    known = sorted({*OWN, *_REGISTERED, *offered})
    near = get_close_matches(name.lower(), [*known, *RESERVED], n=1, cutoff=0.5)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(
        f"`baseline`={name!r} is unknown.{meant} Names of prior means: {', '.join(known)} (`soapkrr.baselines.register` adds others); "
        "of reference energies: isolated, least-squares."
    )
