"""Coulomb energy of fixed charges as prior mean: what lies beyond the cutoff of a descriptor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from numbers import Real

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from soapkrr.baselines.base import Baseline
from soapkrr.electrostatics import electrostatics, in_field
from soapkrr.electrostatics.boundary import NEUTRAL
from soapkrr.electrostatics.coulomb import check_accuracy
from soapkrr.electrostatics.field import checked_field
from soapkrr.errors import InputError, require_positive
from soapkrr.structures import Batch, Mean, species_name

#: Where structures say what their net charge is, e: ``atoms.info["charge"]``; neutral where they say nothing.
TOTAL = "charge"


@dataclass(frozen=True)
class Coulomb(Baseline):
    """E = ½ Σ q_i q_j e²/(4πε₀ r_ij) of fixed charges: Ewald's sum in bulk, without images' field in slabs, the plain sum in clusters.

    The model learns the difference, which is short-ranged. Formal charges come with the elements, others with the structures. Where charges
    are known up to a common factor, put it in front: ``ScaledBaseline(Coulomb({"K": 1, "Cl": -1}), 1 / epsilon)``, or the square of the
    factor of the charges.

    Parameters
    ----------
    charges : {element: e}, or the name of an array of the structures with a charge for each atom.
    width : σ of Gaussian charges, Å: for all, or {element: σ}; None: points. Gaussians leave less to learn where atoms come close.
    background : "uniform" where periodic cells with a net charge are meant; a uniform background then neutralises them.
    field : (3,) homogeneous electric field that the structures are in, V/Å: E −= field·Σ q r, and Born charges are the charges; None: none.
        Not along a periodic direction.
    accuracy : of the sums, as in `soapkrr.electrostatics.electrostatics`.

    Raises
    ------
    InputError : an element or a structure has no charges; the charges of a structure do not add up to ``atoms.info["charge"]``, zero where
        that is not there (clusters of elements with charges may have any); a periodic cell has a net charge and no background; one
        direction is periodic, or the field's.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from soapkrr.structures import Batch
    >>> salt = bulk("NaCl", "rocksalt", a=5.64)
    >>> float(round(Coulomb({"Na": 1.0, "Cl": -1.0}).evaluate(Batch.from_atoms([salt])).energies.sum(), 4))
    -8.9235
    """

    charges: Mapping[str, float] | str = "initial_charges"
    width: Mapping[str, float] | float | None = None
    background: str | None = None
    field: tuple[float, float, float] | None = None
    accuracy: float = 1e-6

    def __post_init__(self):
        if isinstance(self.charges, Mapping):
            _check_elements("charges", self.charges)
            if not self.charges:
                raise InputError("`charges` is empty: give each element a charge, such as {'Na': 1.0, 'Cl': -1.0}.")
        elif not (isinstance(self.charges, str) and self.charges):
            raise InputError(f"`charges` must be a mapping such as {{'Na': 1.0}} or the name of an array, received {self.charges!r}.")
        if isinstance(self.width, Mapping):
            _check_elements("width", self.width)
            require_positive(**{f"width[{symbol!r}]": value for symbol, value in self.width.items()})
        elif self.width is not None:
            require_positive(width=self.width)
        if self.background not in (None, "uniform"):
            raise InputError(f"`background` must be None or 'uniform', received {self.background!r}.")
        check_accuracy(self.accuracy)
        if self.field is not None:
            object.__setattr__(self, "field", tuple(checked_field(self.field).tolist()))

    def __hash__(self):
        return hash(repr(self))

    def evaluate(self, batch: Batch) -> Mean:
        """See `Baseline.evaluate`; raises `InputError` naming the structure."""
        parts = []
        for s in range(len(batch)):
            own = slice(batch.offsets[s], batch.offsets[s + 1])
            charges, widths = self._charges(batch, s, own), self._widths(batch, s, own)
            where = batch.positions[own], charges, batch.cells[s], batch.pbc[s]
            try:
                found = electrostatics(*where, widths, self.background, accuracy=self.accuracy)
                parts.append(found if self.field is None else found.plus(in_field(*where, self.field)))
            except InputError as error:
                raise InputError(f"frame {batch.first + s}: {error}") from None
        energies, _, forces, strain = zip(*parts, strict=True)
        return Mean(np.concatenate(energies), np.concatenate(forces), np.array(strain))

    def _charges(self, batch: Batch, s: int, own: slice) -> np.ndarray:
        atoms = batch.given[s] if batch.given else None
        if isinstance(self.charges, Mapping):
            charges = _by_element("charges", self.charges, batch.numbers[own], batch.first + s)
        else:
            charges = _array(self.charges, atoms, own.stop - own.start, batch.first + s)
        said = None if atoms is None else atoms.info.get(TOTAL)
        if said is None and isinstance(self.charges, Mapping) and not batch.pbc[s].any():
            return charges  # the composition of a cluster says what its charge is
        if not abs(charges.sum() - (said or 0.0)) <= NEUTRAL:
            raise InputError(
                f"frame {batch.first + s}: `charges` add up to {charges.sum():+.6g} e, and atoms.info[{TOTAL!r}] "
                f"{'is not there, which means' if said is None else 'is'} {said or 0.0:+g}: correct one of them."
            )
        return charges

    def _widths(self, batch: Batch, s: int, own: slice) -> np.ndarray | None:
        if isinstance(self.width, Mapping):
            return _by_element("width", self.width, batch.numbers[own], batch.first + s)
        return None if self.width is None else np.full(own.stop - own.start, float(self.width))


def _check_elements(name: str, values: Mapping) -> None:
    """Raise `InputError` unless elements have finite numbers."""
    for symbol, value in values.items():
        if symbol not in atomic_numbers or not isinstance(value, Real) or isinstance(value, bool) or not isfinite(value):
            raise InputError(f"`{name}` must give elements a finite number each, received {symbol!r}: {value!r}.")


def _by_element(name: str, values: Mapping[str, float], numbers: np.ndarray, frame: int) -> np.ndarray:
    """(n,) the value of each atom's element."""
    table = {atomic_numbers[symbol]: float(value) for symbol, value in values.items()}
    missing = sorted({species_name(z) for z in numbers if int(z) not in table})
    if missing:
        raise InputError(f"frame {frame}: `{name}` has nothing for {', '.join(missing)}; it has {', '.join(sorted(values))}.")
    return np.array([table[int(z)] for z in numbers])


def _array(name: str, atoms: Atoms | None, n: int, frame: int) -> np.ndarray:
    """(n,) the array of a structure with a charge for each atom."""
    values = None if atoms is None else atoms.arrays.get(name)
    if values is None:
        raise InputError(
            f"frame {frame} has no array {name!r} with a charge for each atom: set it (`atoms.set_array({name!r}, q)`), or give `charges` "
            "by element."
        )
    if values.shape != (n,) or not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all():
        raise InputError(f"frame {frame}: the array {name!r} must hold one finite charge for each of {n} atoms.")
    return values.astype(float)
