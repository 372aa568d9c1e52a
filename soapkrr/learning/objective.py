"""The leave-one-structure-out density as a function of channel weights, exponent, signal and noise levels, with its gradient.

Power spectra with and without weights differ by factors s_f of their features before they are normalised (`WeightedSOAP`): spectra and
Jacobians are made once, without weights, and every step starts from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from soapkrr.descriptors.normalise import inverse
from soapkrr.descriptors.weighting import feature_scales, weights_gradient
from soapkrr.kernels import DotProduct
from soapkrr.labels import KINDS
from soapkrr.learning.density import Density, leave_out_density
from soapkrr.learning.reverse import slopes
from soapkrr.regression.exact.compositions import Composition
from soapkrr.regression.exact.covariance import covariance, some_of
from soapkrr.threads import thread_map


@dataclass(frozen=True, eq=False)
class Point:
    """Where the density is evaluated; gradients are of this form too.

    Attributes
    ----------
    weights : (n_species, l_max + 1, n_channels) log w.  zeta, signal : logarithms of ζ and δ (eV).
    noise : (n_kinds,) log σ of each kind of label that occurs: eV per atom, eV/Å, eV/Å³.
    """

    weights: np.ndarray
    zeta: float
    signal: float
    noise: np.ndarray

    def vector(self) -> np.ndarray:
        """All numbers, weights first."""
        return np.concatenate([self.weights.ravel(), [self.zeta, self.signal], self.noise])

    def at(self, vector: np.ndarray) -> Point:
        """The point of this shape with such a `vector`."""
        n = self.weights.size
        return Point(vector[:n].reshape(self.weights.shape), float(vector[n]), float(vector[n + 1]), vector[n + 2 :])


class Value(NamedTuple):
    """Density with errors of left-out labels, and its gradient where asked for."""

    density: float
    errors: np.ndarray
    gradient: Point | None


@dataclass(frozen=True, eq=False)
class Objective:
    """The density of some labelled structures.

    Attributes
    ----------
    seen : structures by composition with power spectra that have no weights.
    known : (n,) places, in `Layout` order, of the labels.  y : (n,) their values, prior means left out.
    structure : (n,) structure of each label, ascending.  kind : (n,) index into ``names`` of each.  unit : (n,) σ over that of its kind.
    names : kinds of label that occur.
    """

    seen: list[Composition]
    known: np.ndarray
    y: np.ndarray
    structure: np.ndarray
    kind: np.ndarray
    unit: np.ndarray
    names: tuple[str, ...]
    threads: int | None = None

    def start(self, shape: tuple[int, ...], zeta: float, signal: float, noise: Mapping[str, float]) -> Point:
        """The point without weights, of this shape."""
        return Point(np.zeros(shape), float(np.log(zeta)), float(np.log(signal)), np.log([noise[name] for name in self.names]))

    @property
    def blocks(self) -> list[slice]:
        """Labels of each structure."""
        bounds = np.flatnonzero(np.diff(self.structure)) + 1
        return [slice(a, b) for a, b in zip([0, *bounds], [*bounds, len(self.y)], strict=True)]

    def __call__(self, point: Point, slope: bool = True, dtype: type = np.float64) -> Value:
        """Density at a point; the gradient by spectra is computed in numbers of ``dtype``, everything else in double precision.

        Raises
        ------
        np.linalg.LinAlgError : the covariance is singular to working precision.
        """
        K, weighted = self.prior(point)
        variance, density = self._density(K, point, slope)
        if density.gradient is None:
            return Value(density.value, density.errors, None)
        return Value(density.value, density.errors, self._gradient(point, density.gradient, K, weighted, variance, dtype))

    def levelled(self, point: Point, factors: np.ndarray, score: Callable[[Value], float]) -> tuple[Point, Value] | None:
        """The point with the noise levels of lowest score, kind after kind among ``factors`` × its own; None where all are singular."""
        K, _ = self.prior(point)
        best: tuple[float, Point, Value] | None = None
        for k in range(len(self.names)):
            here = point if best is None else best[1]
            for factor in factors:
                noise = here.noise.copy()
                noise[k] += np.log(factor)
                candidate = replace(here, noise=noise)
                try:
                    density = self.density(K, candidate)
                except np.linalg.LinAlgError:
                    continue
                value = Value(density.value, density.errors, None)
                if best is None or score(value) < best[0]:
                    best = score(value), candidate, value
        return None if best is None else (best[1], best[2])

    def prior(self, point: Point) -> tuple[np.ndarray, list[Composition]]:
        """δ²K of all observations, and the structures with weighted spectra."""
        scales = feature_scales(np.exp(point.weights))
        weighted = [_weighted(same, scales, self.threads) for same in self.seen]
        K = covariance(DotProduct(float(np.exp(point.zeta))), weighted, threads=self.threads)
        K *= np.exp(2 * point.signal)
        return K, weighted

    def density(self, K: np.ndarray, point: Point) -> Density:
        """Density, without its gradient, of the labels with this `prior` covariance and the noise of a point."""
        return self._density(K, point, False)[1]

    def _density(self, K: np.ndarray, point: Point, slope: bool) -> tuple[np.ndarray, Density]:
        """Noise variances of the labels, and their density."""
        variance = np.square(np.exp(point.noise)[self.kind] * self.unit)
        C = K.copy() if len(self.known) == len(K) else some_of(K, self.known)
        C.reshape(-1)[:: len(C) + 1] += variance
        return variance, leave_out_density(C, self.y, self.blocks, slope)

    def _gradient(self, point: Point, G: np.ndarray, K, weighted, variance, dtype) -> Point:
        scales, delta = feature_scales(np.exp(point.weights)), np.exp(point.signal)
        of_noise = 2 * np.bincount(self.kind, np.diagonal(G) * variance, minlength=len(self.names))
        if len(self.known) < len(K):
            of_known, G = G, np.zeros_like(K)
            G[np.ix_(self.known, self.known)] = of_known
        of_signal = 2 * float(np.vdot(G, K))
        found = slopes(float(np.exp(point.zeta)), weighted, delta**2 * G, self.threads, dtype)
        parts = zip(self.seen, weighted, found.X, found.V, strict=True)
        of_scales = np.sum([_through_scales(*part, scales, self.threads) for part in parts], axis=0)
        of_weights = weights_gradient(of_scales, np.exp(point.weights))
        return Point(of_weights, float(np.exp(point.zeta)) * found.zeta, of_signal, of_noise)


def _weighted(same: Composition, scales: np.ndarray, threads: int | None) -> Composition:
    """The structures with features times ``scales`` (n_species, d), normalised again."""
    X, V = [np.empty_like(x) for x in same.X], [np.empty_like(v) for v in same.V]

    def one(task):
        s, place = task
        Y, J = same.X[s][place] * scales[s], same.V[s][place] * scales[s][:, None]
        over = inverse(np.sqrt((Y * Y).sum(axis=1)))
        x = Y * over[:, None]
        J -= x[:, :, None] * np.matmul(x[:, None], J)
        X[s][place], V[s][place] = x, J * over[:, None, None]

    for _ in thread_map(one, [(s, n) for s in range(len(scales)) for n in range(len(same))], threads):
        pass
    return replace(same, X=X, V=V)


def _through_scales(plain: Composition, same: Composition, of_X, of_V, scales: np.ndarray, threads: int | None) -> np.ndarray:
    """∂L/∂s (n_species, d) from ∂L/∂X and ∂L/∂V of the weighted spectra of one composition.

    With y = s∘x⁰ and t = s∘v⁰: x = y/|y|, v = (t − x (x·t))/|y|.
    """
    out = np.zeros_like(scales)

    def one(task):
        s, place = task
        x0, v0, x, v, gx, gv = (part[s][place] for part in (plain.X, plain.V, same.X, same.V, of_X, of_V))
        over = inverse(np.sqrt(np.square(x0 * scales[s]).sum(axis=1)))[:, None]
        t = v0 * scales[s][:, None]
        xt, xg = np.matmul(x[:, None], t), np.matmul(x[:, None], gv)
        gx = gx - over * (np.matmul(gv, xt.swapaxes(1, 2)) + np.matmul(t, xg.swapaxes(1, 2)))[:, :, 0]
        stretch = -(gv * v).sum(axis=(1, 2))[:, None]
        gy = over * (gx - x * (x * gx).sum(axis=1)[:, None]) + stretch * over * x
        gt = (gv - x[:, :, None] * xg) * over[:, :, None]
        return s, (gy * x0).sum(axis=0) + (gt * v0).sum(axis=(0, 2))

    tasks = [(s, n) for s in range(len(scales)) for n in range(len(plain)) if plain.X[s].shape[1]]
    for s, part in thread_map(one, tasks, threads):
        out[s] += part
    return out


def kinds_present(kinds: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the kinds that occur, and the index of each label among them, from indices into `labels.KINDS`."""
    present, index = np.unique(kinds, return_inverse=True)
    return tuple(KINDS[k] for k in present), index
