"""Any local descriptor of DScribe (Laakso et al. 2023, doi 10.1063/5.0151031) in the place of ours, with derivatives.

The surroundings of one atom are handed to DScribe as a finite cluster: the atom at the origin and every neighbour, image or not, at
its pair vector. A derivative by an atom of the cluster is then the derivative by a pair vector, periodic or not, and DScribe's own
treatment of periodicity (which needs wrapped positions and has no analytic derivatives) is never used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from math import inf, log, sqrt
from threading import Lock

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from soapkrr import backends
from soapkrr.descriptors.base import Descriptor, check_r_cut
from soapkrr.descriptors.normalise import normalised, through_norm
from soapkrr.errors import InputError, installing
from soapkrr.lazy import cached_property
from soapkrr.specification import ByValue
from soapkrr.structures import species_name
from soapkrr.threads import held_at_fork

#: Step of the numerical derivatives, Å: errors of the fourth-order formula and of rounding are both near 1e-12.
STEP = 1e-3

#: What is always asked of DScribe, whatever the descriptor was made with.
FIXED = {"periodic": False, "sparse": False, "dtype": "float64"}

#: DScribe's objects keep state between calls.
_LOCK = held_at_fork(Lock())


def soap_reach(parameters: Mapping) -> float:
    """r_cut + σ√(2 ln 1000), where DScribe stops looking for neighbours; r0 where a "poly" weight is zero beyond it."""
    reach = parameters["r_cut"] + parameters["sigma"] * sqrt(2 * log(1000))
    weighting = parameters["weighting"] or {}
    return min(reach, weighting["r0"]) if weighting.get("function") == "poly" else reach


def lmbtr_reach(parameters: Mapping) -> float:
    """Distance at which the weight exp(−s x) falls to ``threshold``: x is the distance of a pair, or the perimeter of a triangle."""
    weighting = parameters["weighting"] or {}
    if weighting.get("function") != "exp" or not weighting.get("scale"):
        return inf
    reach = -log(weighting["threshold"]) / weighting["scale"]
    return reach if "distance" in parameters["geometry"]["function"] else reach / 2


#: Distance in Å beyond which no neighbour counts, per class.
REACH = {"SOAP": soap_reach, "ACSF": lambda parameters: float(parameters["r_cut"]), "LMBTR": lmbtr_reach}


@dataclass(frozen=True, eq=False)
class DScribe(ByValue, Descriptor):
    """A DScribe descriptor with what models need of it: values, pull-back, Jacobian and strain derivatives.

    ========================================  ============  =========================================
    DScribe descriptor                        derivatives   reach (`r_cut` here)
    ========================================  ============  =========================================
    SOAP, rbf "gto", no weighting,            analytic      r_cut + 3.717 σ; jumps there by about 1e-3
    compression "off" or "crossover"                        of the norm, as in DScribe
    SOAP, otherwise                           numerical     the same; r0 with weighting "poly"
    ACSF                                      numerical     r_cut
    LMBTR, weighting "exp" with ``scale``     numerical     −ln(threshold)/scale, half of it for angles
    ========================================  ============  =========================================

    Numerical derivatives are central differences of fourth order, 12 descriptors for every neighbour of an atom: exact to about
    1e-11, and slow. Derivatives of all atoms of a batch are kept, 24·n_features bytes for every pair.

    Parameters
    ----------
    descriptor : an instance from `dscribe.descriptors`, or the name of its class.
    parameters : keyword arguments of that class where it was named; of an instance they are read off.
    normalize : divide by the norm, as the dot-product kernel expects.

    Raises
    ------
    InputError : DScribe is not installed, the descriptor is not a local one, averages, or has no finite reach; a structure is periodic but
        the descriptor was made with ``periodic=False``; a structure holds a species that the descriptor does not list.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from dscribe.descriptors import ACSF
    >>> from soapkrr import DScribe
    >>> acsf = DScribe(ACSF(r_cut=4.0, g2_params=[[1.0, 0.0], [1.0, 2.0]], species=["Si"], periodic=True))
    >>> acsf.create(bulk("Si")).shape, acsf.derivatives
    ((2, 3), 'numerical')
    """

    species: tuple[str, ...] = field(init=False, repr=False)
    r_cut: float = field(init=False, repr=False)
    descriptor: object
    parameters: Mapping | None = None
    normalize: bool = True

    def __post_init__(self):
        if not isinstance(self.descriptor, str):
            if self.parameters is not None:
                raise InputError("`parameters` are read off the DScribe instance; give them only with the name of a class.")
            object.__setattr__(self, "parameters", parameters_of(self.descriptor))
            object.__setattr__(self, "descriptor", type(self.descriptor).__name__)
        object.__setattr__(self, "parameters", {**defaults_of(self.descriptor), **_plain(self.parameters or {})})
        if self.parameters.get("average", "off") != "off":
            raise InputError("`average` of the DScribe descriptor must be 'off': a potential needs one vector per atom.")
        object.__setattr__(self, "species", tuple(species_name(z) for z in _numbers(self.parameters["species"])))
        object.__setattr__(self, "r_cut", REACH[self.descriptor](self.parameters))
        if not self.r_cut < inf:
            raise InputError("`weighting` of the LMBTR must be 'exp' with a `scale` > 0: with any other its reach is infinite.")
        if self.r_cut > 0:  # DScribe says what is wrong otherwise
            check_r_cut(self.r_cut)
        self._engine  # noqa: B018  built now, so that impossible parameters fail here

    @cached_property
    def _engine(self):
        """The DScribe object that does the work."""
        try:
            return _local_class(self.descriptor)(**{**self.parameters, **FIXED})
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"DScribe's {self.descriptor} refuses its `parameters`: {error}") from error

    @property
    def derivatives(self) -> str:
        """``"analytic"`` or ``"numerical"``; the table above."""
        p = self.parameters
        bare = self.descriptor == "SOAP" and p["rbf"] == "gto" and not p["weighting"]
        return "analytic" if bare and p["compression"]["mode"] in ("off", "crossover") else "numerical"

    @cached_property
    def n_features(self):
        """Length as DScribe states it."""
        return int(self._engine.get_number_of_features())

    def indices_of(self, batch):
        """See `Descriptor.indices_of`; a crystal is refused where the DScribe object would take it for a cluster."""
        periodic = np.flatnonzero(batch.pbc.any(axis=1))
        if len(periodic) and not self.parameters["periodic"]:
            raise InputError(
                f"frame {batch.first + periodic[0]} is periodic, but the DScribe descriptor was made with `periodic`=False and would take "
                "it for a cluster: make it with `periodic`=True."
            )
        return super().indices_of(batch)

    def compute(self, start, stop, arrays):
        """X, and the state (norms, derivatives by neighbours of each atom, filled when first asked for)."""
        xp, arrays = backends.namespace(arrays.vectors), backends.host(arrays)
        Y = np.array([self._values(self._cluster(i, arrays)) for i in range(start, stop)]).reshape(stop - start, self.n_features)
        X, norms = normalised(Y) if self.normalize else (Y, np.ones(len(Y)))
        return xp.asarray(X), (norms, np.empty(len(X), dtype=object))

    def pullback(self, start, stop, arrays, X, state, gradient, out):
        """See `Descriptor.pullback`."""
        xp = backends.namespace(out)
        arrays, X, gradient = backends.host((arrays, X, gradient))
        for i in range(start, stop):
            J = self._by_neighbours(i, arrays, X, state, i - start)
            out[arrays.offsets[i] : arrays.offsets[i + 1]] = xp.asarray(J @ gradient[i - start])

    def pair_jacobian(self, env):
        """See `Descriptor.pair_jacobian`: of one atom's neighbours after the other, each computed once."""
        arrays, X, state = backends.host(env.pairs), backends.host(env.X), env.state
        parts = [self._by_neighbours(i, arrays, X, state, i) for i in range(len(X))]
        return env.xp.asarray(np.concatenate(parts))

    def _cluster(self, i: int, arrays) -> Atoms:
        """Atom i at the origin, then its neighbours."""
        here = slice(arrays.offsets[i], arrays.offsets[i + 1])
        kinds = np.concatenate([arrays.kinds[i : i + 1], arrays.kinds[arrays.neighbours[here]]])
        numbers = np.array([atomic_numbers[s] for s in self.species])[kinds]
        return _Cluster(numbers=numbers, positions=np.concatenate([np.zeros((1, 3)), arrays.vectors[here]]))

    def _values(self, cluster: Atoms) -> np.ndarray:
        with _LOCK:
            return np.asarray(self._engine.create(cluster, centers=[0]))[0]

    def _by_neighbours(self, i: int, arrays, X, state, place: int) -> np.ndarray:
        """∂X_i/∂r_ij (n_neighbours, 3, n_features), normalisation included; ``place`` of atom i in X and state."""
        norms, known = state
        if known[place] is None:
            cluster = self._cluster(i, arrays)
            J = self._analytic(cluster) if self.derivatives == "analytic" else self._numerical(cluster)
            known[place] = through_norm(J[None], X[place : place + 1], norms[place : place + 1])[0] if self.normalize else J
        return known[place]

    def _analytic(self, cluster: Atoms) -> np.ndarray:
        n = len(cluster) - 1
        if not n:
            return np.empty((0, 3, self.n_features))
        # The centre is atom 0 and never displaced, so `attach` makes no difference; True is what forces mean.
        settings = dict(centers=[0], include=list(range(1, n + 1)), method="analytical", attach=True, return_descriptor=False)
        with _LOCK:
            return np.asarray(self._engine.derivatives(cluster, **settings)).reshape(n, 3, self.n_features)

    def _numerical(self, cluster: Atoms) -> np.ndarray:
        J = np.empty((len(cluster) - 1, 3, self.n_features))
        for j in range(len(J)):
            for b in range(3):
                J[j, b] = _difference(lambda h, j=j, b=b: self._values(_displaced(cluster, j + 1, b, h)))
        return J


class _Cluster(Atoms):
    """DScribe's LMBTR copies structures by position of arguments, which ASE 3.29 moved: info lands on velocities unless it is None."""

    info = property(lambda self: None, lambda self, value: None)

    def get_calculator(self):
        """None, without ASE's warning that the name is deprecated."""
        return None


def _difference(f) -> np.ndarray:
    """f′(0) by central differences of fourth order."""
    return (8 * (f(STEP) - f(-STEP)) - (f(2 * STEP) - f(-2 * STEP))) / (12 * STEP)


def _displaced(cluster: Atoms, j: int, b: int, h: float) -> Atoms:
    moved = cluster.copy()
    moved.positions[j, b] += h
    return moved


def _local_class(name: str) -> type:
    """A class of local descriptors of DScribe by name."""
    try:
        import dscribe.descriptors as library
    except ImportError as error:
        raise InputError(f"DScribe is not installed: {installing('dscribe')}.") from error
    if name not in REACH:
        raise InputError(f"`descriptor` must be a local descriptor of DScribe, one of {sorted(REACH)}, received {name!r}.")
    return getattr(library, name)


def defaults_of(name: str) -> dict:
    """Default parameters of a class of DScribe."""
    arguments = list(signature(_local_class(name).__init__).parameters.values())[1:]
    return {p.name: _plain(None if p.default is p.empty else p.default) for p in arguments}


def parameters_of(instance) -> dict:
    """Constructor arguments of a DScribe descriptor, read off the instance."""
    name = type(instance).__name__
    if not isinstance(instance, _local_class(name)):
        raise InputError(f"`descriptor` must be a local descriptor of DScribe, received {type(instance)}.")
    defaults = defaults_of(name)
    values = {k: _plain(getattr(instance, k) if hasattr(instance, k) else getattr(instance, f"_{k}")) for k in defaults}
    # An empty list or mapping is how DScribe stores "not given".
    return {k: defaults[k] if value in ([], {}) else value for k, value in values.items()}


def _plain(value):
    """Numbers, strings, lists and mappings from names, as a model file can hold them."""
    if isinstance(value, Mapping):
        return {species_name(k) if isinstance(k, (int, np.integer)) else str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple, set)):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _numbers(species) -> list[int]:
    if not species:
        raise InputError("`species` of the DScribe descriptor is empty: name at least one chemical element.")
    return sorted({atomic_numbers[s] if isinstance(s, str) else int(s) for s in species})
