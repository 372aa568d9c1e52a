"""Barriers from few reference calculations: a nudged elastic band on a surrogate that learns where the barrier is not known."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.optimize import FIRE

from soapkrr.active.asking import HeldReference, force_of
from soapkrr.active.band import Band, Bent
from soapkrr.active.records import same
from soapkrr.active.search import Search
from soapkrr.display import Fielded
from soapkrr.errors import InputError
from soapkrr.estimators.gaussian_process import GaussianProcess
from soapkrr.uncertainty.observables import Energy

logger = logging.getLogger(__name__)

#: Steps of the band between two calculations before the barrier is known to `KNOWN`, eV, and after; longest step, Å.
EARLY, LATE, KNOWN, STEP = 30, 150, 0.1, 0.1

#: Way of an atom of any image between two calculations, Å.
TRUST = 0.5

#: Part of ``fmax`` to which the band is relaxed, and the force, eV/Å, that is enough before the barrier is known.
INNER, ENOUGH = 0.3, 0.05

#: Draws of the posterior by which images are compared.
DRAWS = 1000


@dataclass(frozen=True, eq=False, repr=False)
class Barrier(Fielded):
    """A path over a barrier.

    Attributes
    ----------
    images : the path, with energies and forces of the surrogate; the ends and, once it was calculated, the saddle have the reference's.
    calculated : (n_images,) whether the reference was asked there.
    energies, stds : (n_images,) eV, less the energy of the first image, and their standard deviations.
    saddle : index of the climbing image.  barrier, reverse, std : eV, seen from the first and the last image.
    force : the largest reference force on an atom at the saddle, eV/Å; NaN where it was not calculated there.
    converged : whether that is below fmax and the barrier's standard deviation below what was asked for.
    calls : reference calculations, those of the ends included.  model : the surrogate.
    """

    images: list[Atoms] = field(repr=False)
    energies: np.ndarray
    stds: np.ndarray
    saddle: int
    std: float
    force: float
    converged: bool
    calls: int
    model: GaussianProcess = field(repr=False)
    calculated: np.ndarray = field(repr=False)

    @property
    def barrier(self) -> float:
        """Energy of the saddle above the first image, eV."""
        return float(self.energies.max() - self.energies[0])

    @property
    def reverse(self) -> float:
        """Energy of the saddle above the last image, eV."""
        return float(self.energies.max() - self.energies[-1])

    def __str__(self) -> str:
        state = "converged" if self.converged else "not converged"
        forward, back = f"{self.barrier:.3f} ± {self.std:.3f}", f"{self.reverse:.3f}"
        return f"barrier {forward} eV (back {back}), force at the saddle {self.force:.3f} eV/Å, {self.calls} reference calls, {state}"


class SurrogateNEB(Search):
    """Climbing-image nudged elastic band on a Gaussian process that asks a reference for one image at a time.

    The band starts from the image-dependent pair potential (Smidstrup et al. 2014, doi 10.1063/1.4878664) with improved tangents and a
    climbing image (Henkelman and Jónsson 2000, doi 10.1063/1.1323224; Henkelman, Uberuaga and Jónsson 2000, doi 10.1063/1.1329672). The
    image calculated next is the one whose energy would narrow the barrier most: with T = max_k E_k − E_0 over joint draws of the posterior,
    that of the largest cov(T, E_k)²/(var E_k + σ²). Once the barrier is known to ``std`` it is the climbing image, with the surrogate bent
    to the reference there, until the reference force is below fmax.

    Parameters
    ----------
    initial, final : the relaxed ends: the same atoms in the same order and cell; constraints are kept.
    reference : any ASE calculator.
    n_images : with the ends.
    std : standard deviation of the barrier that is enough, eV.
    prior : a prior mean, a calculator or a fitted potential, as in `SurrogateRelaxation`.
    model : the model of an earlier search or relaxation of the same species, which goes on to grow.
    mic : interpolate by the shortest ways of a periodic cell.
    records : extended XYZ file to which every calculation is appended as soon as it is made; one that exists is read, and nothing in it
        is calculated again.

    Attributes
    ----------
    references : the calculations.  calls : those that were made here.  model : the surrogate, which has learnt from all.

    Raises
    ------
    InputError : the ends do not belong together, or a parameter is out of range.

    Examples
    --------
    >>> from ase.build import add_adsorbate, fcc100
    >>> from ase.calculators.emt import EMT
    >>> from soapkrr import SurrogateNEB
    >>> initial = fcc100("Al", size=(2, 2, 2), vacuum=4.0)
    >>> add_adsorbate(initial, "Au", 1.7, "hollow")
    >>> final = initial.copy()
    >>> final.positions[-1, 0] += final.cell[0, 0] / 2
    >>> search = SurrogateNEB(initial, final, EMT(), n_images=5)
    >>> path = search.run(fmax=0.5, steps=3)
    >>> path.calls <= 3
    True
    """

    def __init__(
        self,
        initial: Atoms,
        final: Atoms,
        reference,
        *,
        n_images: int = 7,
        std: float = 0.01,
        prior=None,
        model: GaussianProcess | None = None,
        mic: bool = False,
        records: str | Path | None = None,
    ):
        _check_ends(initial, final)
        if isinstance(n_images, bool) or not isinstance(n_images, (int, np.integer)) or n_images < 3:
            raise InputError(f"`n_images` counts the ends and must be an integer of at least 3, received {n_images!r}.")
        if not std > 0:
            raise InputError(f"`std` must be positive, in eV, received {std!r}.")
        super().__init__(list(initial.symbols), reference, prior, model, records)
        self.images = [initial.copy() for _ in range(n_images - 1)] + [final.copy()]
        self.std, self._mic = float(std), mic
        self._at: HeldReference | None = None
        self._started, self._first = False, np.empty((0, 3))

    @property
    def model(self) -> GaussianProcess:
        """The surrogate, which has learnt from all calculations; `InputError` before the first."""
        return self._model()

    @property
    def references(self) -> list[HeldReference]:
        """The calculations, in the order they were made."""
        return self.records.references

    def run(self, fmax: float = 0.05, steps: int = 100) -> Barrier:
        """Go on until the reference force at the saddle is below ``fmax``, eV/Å, or ``steps`` calculations were made altogether.

        Raises
        ------
        InputError : a parameter is out of range, or the reference fails; what was calculated before is kept, and a next run goes on.
        """
        if not fmax > 0:
            raise InputError(f"`fmax` must be positive, in eV/Å, received {fmax!r}.")
        if steps < 3:
            raise InputError(f"`steps` must be at least 3, the ends and one image, received {steps!r}.")
        self._start()
        view = None
        while True:
            if not self._settled(fmax):
                self._relax(view, fmax)
            view = self._view()
            done = view.doubt < self.std and (self._settled(fmax) or not view.climbs)
            image = None if done or self.calls >= steps else self._next(view)
            if image is None:
                return self._path(view, done)
            reference = self._ask(self.images[image], f"image {image}")
            self._at = reference if image == view.top else self._at
            logger.info("call %d, image %d of %d: barrier %.3f ± %.3f eV", self.calls, image, len(self.images), view.barrier, view.doubt)

    def _start(self) -> None:
        """The ends, a first path, and one image of it."""
        if self._started:
            return
        for image, name in ((self.images[0], "the initial structure"), (self.images[-1], "the final structure")):
            known = self._ask(image, name)
            image.calc = SinglePointCalculator(image, energy=known.energy, forces=known.forces)
        band = Band(self.images, Bent(self.model))
        band.interpolate("idpp", mic=self._mic, apply_constraint=False)
        self._first = band.get_positions()
        if len(self.surrogate) < 3:
            self._ask(self.images[len(self.images) // 2], f"image {len(self.images) // 2}")
        self._started = True

    def _relax(self, view: _View | None, fmax: float) -> None:
        """Relax the band on the surrogate, as far as it is trusted."""
        sure = view is not None and view.doubt < KNOWN
        band = Band(self.images, Bent(self.model, self._at), climb=view is not None and sure and view.climbs)
        if not sure:  # what a surrogate of few structures made of the path is no place to go on from
            band.set_positions(self._first)
        start = [image.positions.copy() for image in self.images]
        enough = INNER * fmax if sure else max(INNER * fmax, ENOUGH)
        optimizer = FIRE(band, logfile=None, maxstep=STEP)  # pyright: ignore[reportArgumentType]  (ASE takes bands, and no file)
        for _ in optimizer.irun(enough, LATE if sure else EARLY):
            if max(np.linalg.norm(image.positions - x, axis=1).max() for image, x in zip(self.images, start, strict=True)) > TRUST:
                break

    def _view(self) -> _View:
        """What is known of the path as it is."""
        energies, forces = Bent(self.model, self._at).predict(self.images)
        energies[[0, -1]] = [self.images[k].get_potential_energy() for k in (0, -1)]
        joint = self.model.posterior([Energy(image) for image in self.images])
        draws = joint.sample(DRAWS) - joint.mean + energies
        top = draws.max(axis=1) - draws[:, 0]
        covariance = np.cov(np.column_stack([top, draws]).T)
        noise = self.model.noise_["energy"] * np.sqrt(len(self.images[0]))
        gain = covariance[0, 1:] ** 2 / (np.diag(covariance)[1:] + noise**2)
        return _View(energies, forces, (draws - draws[:, :1]).std(axis=0), float(top.std()), gain)

    def _settled(self, fmax: float) -> bool:
        """Whether the reference is at rest at one of the images."""
        return self._at is not None and force_of(self._at) < fmax and any(same(self._at.atoms, image) for image in self.images)

    def _next(self, view: _View) -> int | None:
        """The image to calculate: the climbing one where the barrier is known, before the one that narrows it most; None: all are known."""
        unknown = [k for k in range(1, len(self.images) - 1) if self.records.find(self.images[k]) is None]
        if view.doubt < self.std and view.top in unknown:
            return view.top
        return max(unknown, key=lambda k: view.gain[k], default=None)

    def _path(self, view: _View, done: bool) -> Barrier:
        """The path as it is."""
        images = [image.copy() for image in self.images]
        for image, energy, forces in zip(images, view.energies, view.forces, strict=True):
            image.calc = SinglePointCalculator(image, energy=energy, forces=forces)
        top = int(np.argmax(view.energies))
        known = self.records.find(images[top])
        force = np.nan if known is None else force_of(known)
        calculated = np.array([self.records.find(image) is not None for image in images])
        energies, found = view.energies - view.energies[0], (view.doubt, force, done, self.calls, self.model, calculated)
        return Barrier(images, energies, view.stds, top, *found)


@dataclass(frozen=True, eq=False)
class _View:
    """What a surrogate says of a path: ``doubt`` of the barrier, eV, and ``gain`` of each image's energy, eV², in its variance."""

    energies: np.ndarray
    forces: list[np.ndarray]
    stds: np.ndarray
    doubt: float
    gain: np.ndarray

    @property
    def top(self) -> int:
        """The climbing image."""
        return int(np.argmax(self.energies[1:-1])) + 1

    @property
    def climbs(self) -> bool:
        """Whether a barrier lies between the ends."""
        return bool(self.energies[self.top] > max(self.energies[0], self.energies[-1]))

    @property
    def barrier(self) -> float:
        return float(self.energies.max() - self.energies[0])


def _check_ends(initial: Atoms, final: Atoms) -> None:
    """Raise where two structures are no ends of one path."""
    for name, atoms in (("initial", initial), ("final", final)):
        if not isinstance(atoms, Atoms):
            raise InputError(f"`{name}` must be `ase.Atoms`, received {type(atoms).__name__}.")
    if not np.array_equal(initial.numbers, final.numbers):
        raise InputError(f"`final` must have the atoms of `initial` in the same order, received {final.symbols} after {initial.symbols}.")
    if not (np.allclose(initial.cell.array, final.cell.array) and np.array_equal(initial.pbc, final.pbc)):
        raise InputError("`final` must have the cell and the periodic directions of `initial`.")
    if np.abs(initial.positions - final.positions).max() < 1e-3:
        raise InputError("`final` must differ from `initial`; no atom moves by more than 0.001 Å.")
