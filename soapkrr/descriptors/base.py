"""What every descriptor of atomic environments offers: values, pull-back of a gradient to the pairs, Jacobian blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from soapkrr import backends
from soapkrr.backends.arrays import PairArrays
from soapkrr.descriptors.environments import Environments
from soapkrr.errors import InputError, require_positive
from soapkrr.lazy import cached_property
from soapkrr.specification import Specification
from soapkrr.structures import VOIGT, Batch, add_rows, as_frames, species_name

#: Largest cutoff radius, Å: no local descriptor reaches farther.
MAX_R_CUT = 100.0


@dataclass(frozen=True)
class Descriptor(Specification, ABC):
    """Base of the descriptors: an immutable specification with a list of species and a cutoff radius (Å).

    A descriptor is also a stateless scikit-learn transformer of lists of `ase.Atoms`; `Featurizer` is the one with parameters that a
    grid search can change and with averages over structures.
    """

    species: Sequence[str | int]
    r_cut: float

    #: Whether an atom without neighbours has no features: data without a single pair are then refused.
    needs_pairs = False
    #: Whether features are basis functions with independent prior weights: a linear kernel then takes all of them, not environments.
    linear_basis = False

    def __post_init__(self):
        object.__setattr__(self, "species", symbols(self.species))
        check_r_cut(self.r_cut)

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Length of the descriptor vector."""

    @abstractmethod
    def compute(self, start: int, stop: int, arrays: PairArrays) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """X (stop − start, n_features) of atoms ``start:stop`` and the state that `pullback` needs."""

    @abstractmethod
    def pullback(self, start: int, stop: int, arrays: PairArrays, X, state, gradient, out: np.ndarray) -> None:
        """Write ∂E/∂r_ij of the pairs of atoms ``start:stop`` to their places in ``out``, from gradient = ∂E/∂X."""

    def pair_jacobian(self, env: Environments) -> np.ndarray:
        """∂X_i/∂r_ij (n_pairs, 3, n_features) of every pair of a batch: here by `pullback`, one feature after the other."""
        X, state = env.values
        J, unit, pairs = env.xp.empty((len(env.pairs.neighbours), 3, self.n_features)), env.xp.zeros_like(X), env.gradient()
        for f in range(self.n_features):
            unit[:, f - 1] = 0.0
            unit[:, f] = 1.0
            self.pullback(0, len(X), env.pairs, X, state, unit, pairs)
            J[:, :, f] = pairs
        return J

    def jacobian(self, start: int, stop: int, env: Environments, rows: np.ndarray, out: np.ndarray) -> None:
        """∂X_i/∂r_a for displaced atoms a of ``start:stop`` and every centre i they move, three rows each.

        The pair p = (a, i) goes to ``out[rows[p − offsets[start]]]`` (3, n_features), atom a's own environment to
        ``out[rows[n_pairs + a − start]]``, n_pairs being the number of pairs of the block. Here from `pair_jacobian`, of all pairs at once;
        SOAP, ACSF and Pair have faster ways, which hold no more than a block.
        """
        first, last = int(env.pairs.offsets[start]), int(env.pairs.offsets[stop])
        J, own = env.pair_jacobian, env.xp.zeros((stop - start, 3, self.n_features))
        out[rows[: last - first]] = J[env.reverse[first:last]]
        add_rows(own, env.centres[first:last] - start, J[first:last])
        out[rows[last - first :]] = -own

    def strain_jacobian(self, start: int, stop: int, env: Environments, out: np.ndarray) -> None:
        """∂X_i/∂ε of centres ``start:stop`` in Voigt order into ``out`` (stop − start, 6, n_features).

        Here Σ_j r_ij,a ∂X_i/∂r_ij,b, symmetrised, from `pair_jacobian`.
        """
        first, last = int(env.pairs.offsets[start]), int(env.pairs.offsets[stop])
        r, J, centre = env.pairs.vectors[first:last], env.pair_jacobian[first:last], env.centres[first:last] - start
        for v, (a, b) in enumerate(VOIGT):
            out[:, v] = 0.0
            add_rows(out[:, v], centre, 0.5 * (r[:, a, None] * J[:, b] + r[:, b, None] * J[:, a]))

    def jvp(self, start: int, stop: int, arrays: PairArrays, X, state, direction: np.ndarray) -> np.ndarray:
        """Σ_j ∂X_i/∂r_ij · direction_ij (stop − start, n_features) of atoms ``start:stop``; direction (n_pairs, 3), Å.

        X and state as `compute` gave them. Here the transpose of `pullback`, one feature after the other; SOAP has a faster way.
        """
        here = slice(int(arrays.offsets[start]), int(arrays.offsets[stop]))
        xp = backends.namespace(X)
        out, unit, pairs = xp.empty((stop - start, self.n_features)), xp.zeros((stop - start, self.n_features)), xp.empty_like(direction)
        centre = xp.searchsorted(arrays.offsets, xp.arange(here.start, here.stop), side="right") - 1 - start
        for f in range(self.n_features):
            unit[:, f - 1] = 0.0
            unit[:, f] = 1.0
            self.pullback(start, stop, arrays, X, state, unit, pairs)
            out[:, f] = xp.bincount(centre, xp.einsum("pa,pa->p", pairs[here], direction[here]), minlength=stop - start)
        return out

    @property
    def extrapolates(self) -> bool:
        """Whether species that no training structure has may be predicted: all of ``species`` have a place among each other."""
        return False

    @property
    def kind_names(self) -> tuple[str, ...]:
        """Kinds of centres, of which those of different kinds have nothing in common, k(x, x′) = 0: here one for each species."""
        return tuple(map(str, self.species))

    @property
    def n_kinds(self) -> int:
        """Number of kinds of centres."""
        return len(self.kind_names)

    def kind_of(self, species: np.ndarray) -> np.ndarray:
        """Kind of centres of these indices of species; an array of the same library."""
        return species

    @cached_property
    def _index_of(self) -> np.ndarray:
        table = np.full(130, -1, dtype=np.int64)
        table[[atomic_numbers[str(s)] for s in self.species]] = np.arange(len(self.species))
        return table

    def kinds(self, numbers: np.ndarray, frame: np.ndarray | None = None) -> np.ndarray:
        """Kind of each atom as a centre; species as in `indices`."""
        return self.kind_of(self.indices(numbers, frame))

    def indices(self, numbers: np.ndarray, frame: np.ndarray | None = None) -> np.ndarray:
        """Species index of each atom; an unknown species raises, naming it, the known ones and the ``frame`` (n_atoms,) where given."""
        indices = self._index_of[numbers]
        unknown = np.flatnonzero(indices < 0)
        if len(unknown):
            where, name = "" if frame is None else f"frame {frame[unknown[0]]}: ", species_name(int(numbers[unknown[0]]))
            raise InputError(f"{where}species {name} is unknown to this descriptor; `species` lists {list(self.species)}.")
        return indices

    def indices_of(self, batch: Batch) -> np.ndarray:
        """Species index of each atom of a batch; structures that cannot be described raise."""
        return self.indices(batch.numbers, batch.frame)

    def _on(self, array, name: str):
        """The table ``name`` of this descriptor where ``array`` lives; copies on a GPU are kept."""
        if not backends.on_gpu(array):
            return getattr(self, name)
        copies = vars(self).setdefault("_copies", {})
        if name not in copies:
            copies[name] = backends.moved(backends.namespace(array), getattr(self, name))
        return copies[name]

    def __getstate__(self):
        """Without the copies on a GPU."""
        return {name: value for name, value in self.__dict__.items() if name != "_copies"}

    def arrays(self, batch: Batch, xp=np) -> PairArrays:
        """Neighbours within the cutoff as the compiled loops take them, arrays of ``xp``; species are checked."""
        species, pairs = xp.asarray(self.indices_of(batch)), batch.pairs(self.r_cut, xp)
        return PairArrays(pairs.offsets, pairs.j, pairs.vectors, species)

    def environments(self, batch: Batch, xp=np) -> Environments:
        """Surroundings of every atom of a batch, in arrays of ``xp``."""
        return Environments(self, batch, self.arrays(batch, xp))

    def create(self, frames) -> np.ndarray:
        """Descriptors (total number of atoms, n_features) of one or several structures."""
        return self.environments(Batch.from_atoms(as_frames(frames))).X

    def fitted(self, X: np.ndarray) -> Descriptor:
        """The descriptor that a model uses once it has seen the training environments X (n, n_features); itself unless overridden."""
        return self

    @property
    def learns(self) -> bool:
        """Whether `fitted` would look at the data."""
        return type(self).fitted is not Descriptor.fitted

    def feature_names(self) -> list[str]:
        """A readable name of each feature."""
        return [f"{type(self).__name__.lower()}{k}" for k in range(self.n_features)]

    def fit(self, frames, y=None) -> Descriptor:
        """Does nothing; for scikit-learn's pipelines."""
        return self

    def transform(self, frames) -> np.ndarray:
        """`create` by scikit-learn's name."""
        return self.create(frames)

    def fit_transform(self, frames, y=None) -> np.ndarray:
        """`create` by scikit-learn's name."""
        return self.create(frames)

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """`feature_names` as scikit-learn asks for them."""
        return np.array(self.feature_names(), dtype=object)

    def __sklearn_tags__(self):
        from sklearn.utils import Tags, TargetTags, TransformerTags

        tags = Tags(estimator_type=None, target_tags=TargetTags(required=False), transformer_tags=TransformerTags(), requires_fit=False)
        tags.input_tags.two_d_array, tags.no_validation = False, True
        return tags


def check_r_cut(r_cut: float) -> None:
    """A length that surroundings can have."""
    require_positive(r_cut=r_cut)
    if r_cut > MAX_R_CUT:
        raise InputError(f"`r_cut` must be at most {MAX_R_CUT:g} Å, received {r_cut!r}: surroundings end nearer.")


def symbols(species) -> tuple[str, ...]:
    """Distinct chemical symbols in order of atomic number."""
    if isinstance(species, str):
        species = [species]
    numbers = []
    for s in species:
        number = atomic_numbers.get(s) if isinstance(s, str) else int(s)
        if not number or not 0 < number < 119:
            raise InputError(f"`species` holds {s!r}, which is not a chemical element.")
        numbers.append(number)
    if not numbers:
        raise InputError("`species` is empty: name at least one chemical element.")
    return tuple(species_name(n) for n in sorted(set(numbers)))
