"""Cutoff functions, distance weights and the tabulated radial bases."""

import numpy as np
import pytest
from reference import BASES, radial_quadrature
from scipy.special import spherical_jn
from taylor import assert_derivative

from soapkrr import ACSF, SOAP, InputError, Pair
from soapkrr.backends.cpu.basis import radial, radial_and_slope
from soapkrr.descriptors.cutoff import Cosine, Polynomial, RadialScaling, Smoothstep, Tanh3
from soapkrr.descriptors.radial import RADIAL_BASES, bessel_zeros, dressed_basis, radial_table

CUTOFFS = [
    Smoothstep(),
    Smoothstep(width=2.5),
    Smoothstep(width=9.0),
    Cosine(),
    Cosine(width=1.5),
    Polynomial(m=1),
    Polynomial(),
    Polynomial(m=3.5),
]
SCALINGS = [RadialScaling(), RadialScaling(r0=1.5, m=7, c=0.3), RadialScaling(r0=3.0, m=2.5, c=2.0)]
RADII = [0.3, 1.7, 3.1, 3.9, 4.2, 4.6, 4.9]


@pytest.mark.parametrize("r", RADII)
@pytest.mark.parametrize("cutoff", [*CUTOFFS, Tanh3()], ids=repr)
def test_cutoff_derivatives(cutoff, r):
    f = lambda order: lambda t: cutoff(np.array([r + t]), 5.0)[order]  # noqa: E731
    steps = 0.01 * 0.5 ** np.arange(24)
    _, first, second = cutoff(np.array([r]), 5.0)
    assert_derivative(f(0), first, steps)
    assert_derivative(f(1), second, steps)


@pytest.mark.parametrize("cutoff", CUTOFFS, ids=repr)
def test_cutoff_is_one_at_the_centre_falls_and_ends_at_zero(cutoff):
    f, first, _ = cutoff(np.linspace(0, 5, 501), 5.0)
    assert f[0] == 1
    assert np.all(np.diff(f) <= 0)
    # 1 + cos π and the polynomials at 1 cancel to a few units of rounding; the cosine's slope is sin π = 1e-16.
    assert abs(f[-1]) < 1e-15
    assert abs(first[-1]) < 1e-15
    beyond = np.array([5.0 + 1e-12, 6.0, 100.0])
    np.testing.assert_allclose(np.array(cutoff(beyond, 5.0))[:2], 0, atol=1e-15)


def test_tanh3_starts_at_its_formula_falls_and_ends_at_zero():
    f, first, second = Tanh3()(np.linspace(0, 5, 501), 5.0)
    assert f[0] == pytest.approx(np.tanh(1) ** 3, rel=1e-15)
    assert np.all(np.diff(f) < 0)
    assert (f[-1], first[-1], second[-1]) == (0, 0, 0)
    assert not np.array(Tanh3()(np.array([5.1, 100.0]), 5.0)).any()


@pytest.mark.parametrize("r", [0.4, 1.5, 2.0, 4.9])
@pytest.mark.parametrize("scaling", SCALINGS, ids=repr)
def test_scaling_derivatives(scaling, r):
    _, first, second = scaling(np.array([r]))
    assert_derivative(lambda t: scaling(np.array([r + t]))[0], first)
    assert_derivative(lambda t: scaling(np.array([r + t]))[1], second)


@pytest.mark.parametrize("scaling", SCALINGS, ids=repr)
def test_scaling_formula(scaling):
    r = np.linspace(0.0, 6.0, 31)
    np.testing.assert_allclose(scaling(r)[0], scaling.c / (scaling.c + (r / scaling.r0) ** scaling.m), rtol=1e-14)


@pytest.mark.parametrize("r", [0.05, 0.9, 2.3, 4.4, 4.95])
@pytest.mark.parametrize("rbf", sorted(RADIAL_BASES))
def test_radial_functions_have_their_derivatives(rbf, r):
    weighted = dressed_basis(rbf, [lambda x: Smoothstep()(x, 5.0), RadialScaling()], 5.0, 6, 5, 0.5)
    _, first, second = weighted(np.array([r]))
    assert_derivative(lambda t: weighted(np.array([r + t]))[0], first)
    assert_derivative(lambda t: weighted(np.array([r + t]))[1], second)


@pytest.mark.parametrize("rbf", sorted(RADIAL_BASES))
@pytest.mark.parametrize("r_cut, n_max, l_max, sigma", [(5.0, 8, 6, 0.5), (3.0, 4, 9, 0.3), (6.0, 10, 2, 0.8)])
def test_table_reproduces_the_functions(rbf, r_cut, n_max, l_max, sigma):
    """The table of `SOAP` against direct evaluation between the knots."""
    basis = SOAP(species=["H"], r_cut=r_cut, n_max=n_max, l_max=l_max, sigma=sigma, rbf=rbf)._basis
    weighted = dressed_basis(rbf, [lambda x: Smoothstep()(x, r_cut)], r_cut, n_max, l_max, sigma)
    r = np.random.default_rng(0).uniform(0, r_cut, 400)
    exact = weighted(r)
    scale = (r_cut ** np.arange(l_max + 1))[None, :, None]
    value, slope = np.zeros((2, len(r), basis.table.shape[3]))
    again = np.zeros(basis.table.shape[3])
    for k, x in enumerate(r / r_cut):
        radial_and_slope(x, basis.table, 0, 0, value[k], slope[k])
        radial(x, basis.table, 0, 0, again)
        np.testing.assert_allclose(again, value[k], rtol=1e-14)
    for got, expected, tolerance in ((value, exact[0], 1e-9), (slope / r_cut, exact[1], 1e-7)):
        expected = (scale * expected).reshape(len(r), -1)
        assert not got[:, expected.shape[1] :].any()
        # Quintic Hermite splines are of sixth order, their slopes of fifth: with 24 knots per width 1e-9 and 1e-7 of the largest
        # value of each function suffice.
        error = np.abs(got[:, : expected.shape[1]] - expected).max(axis=0) / np.abs(expected).max(axis=0)
        assert error.max() < tolerance


@pytest.mark.parametrize("rbf", sorted(RADIAL_BASES))
def test_table_is_twice_continuous_at_the_knots(rbf):
    weighted = dressed_basis(rbf, [lambda x: Smoothstep()(x, 5.0)], 5.0, 4, 3, 0.5)
    table = radial_table(weighted, 5.0, 3, 40)
    k = np.arange(6)
    end = [table.sum(axis=1), np.einsum("k,tke->te", k, table), np.einsum("k,tke->te", k * (k - 1), table)]
    start = [table[:, 0], table[:, 1], 2 * table[:, 2]]
    for left, right in zip(end, start, strict=True):
        # The three conditions are solved for, so they hold to rounding of coefficients that are a few times larger.
        np.testing.assert_allclose(left[:-1], right[1:], atol=1e-12 * np.abs(table).max())


@pytest.mark.parametrize("l", [0, 1, 4, 9])
def test_bessel_zeros(l):
    zeros = bessel_zeros(7, 9)[l]
    assert len(zeros) == 7
    # |j_l'| is below 1, so a zero found to 1e-14 relative leaves a value of that size.
    np.testing.assert_allclose(spherical_jn(l, zeros), 0, atol=1e-13)
    x = np.linspace(1e-3, zeros[-1] + 0.5, 20000)
    assert np.count_nonzero(np.diff(np.sign(spherical_jn(l, x)))) == 7


@pytest.mark.parametrize("l", [0, 2, 5])
@pytest.mark.parametrize("rbf, limit", [("gto", 25.0), ("bessel", 5.0)])
def test_radial_functions_are_the_gaussian_smeared_basis(rbf, limit, l):
    """R_nl(r) = ∫ g_nl(x) 4π exp(−(x² + r²)/2σ²) i_l(xr/σ²) x² dx, with g_nl orthonormal; the reference basis by quadrature."""
    from scipy.special import spherical_in

    nodes, weights = radial_quadrature(limit)
    g = BASES[rbf](nodes, 5.0, 5, l)
    # Orthonormal by construction; this checks the quadrature (rounding of the Löwdin step: condition number 1e5).
    np.testing.assert_allclose((g * weights) @ g.T, np.eye(5), atol=1e-9)
    r, sigma = np.array([0.4, 1.3, 2.9, 4.1, 4.9]), 0.5
    nodes, weights = radial_quadrature(12.0)
    g = BASES[rbf](nodes, 5.0, 5, l)
    x = np.outer(r, nodes) / sigma**2
    # exp(−x) i_l(x) avoids overflow; both together are the smeared Gaussian.
    scaled = np.where(x < 600, np.exp(-np.minimum(x, 600)) * spherical_in(l, np.minimum(x, 600)), 1 / (2 * np.maximum(x, 1)))
    kernel = 4 * np.pi * np.exp(-((r[:, None] - nodes) ** 2) / (2 * sigma**2)) * scaled
    expected = np.einsum("rx,x,nx->rn", kernel, weights, g)
    got = RADIAL_BASES[rbf](r, 5.0, 5, 5, sigma)[0][:, l] * r[:, None] ** l
    np.testing.assert_allclose(got, expected, atol=1e-8 * np.abs(expected).max())


# --- tables that cannot be ---


@pytest.mark.parametrize(
    "make",
    [
        lambda r_cut: SOAP(["Si"], r_cut=r_cut, rbf="bessel"),
        lambda r_cut: ACSF(["Si"], r_cut=r_cut),
        lambda r_cut: Pair(["Si"], r_cut=r_cut),
    ],
    ids=["SOAP", "ACSF", "Pair"],
)
def test_surroundings_end_within_100_angstrom(make):
    for r_cut in (100.1, 1e9, np.finfo(float).max):
        with pytest.raises(InputError, match="`r_cut` must be at most 100 Å"):
            make(r_cut)
    assert make(100.0).r_cut == 100.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: SOAP(["Si"], r_cut=5.0, cutoff=Smoothstep(width=1e-9)),
        lambda: SOAP(["Si"], r_cut=100.0, sigma=0.05, n_max=32, l_max=20, rbf="bessel"),
        lambda: ACSF(["Si"], r_cut=5.0, cutoff=Cosine(width=1e-300)),
        lambda: Pair(["Si"], r_cut=5.0, width=1e-9),
        lambda: Pair(["Si"], r_cut=5.0, stretch=1e-300),
        lambda: Pair(["Si"], r_cut=5.0, cutoff=Smoothstep(width=1e-12)),
    ],
    ids=["SOAP, cutoff", "SOAP, basis", "ACSF", "Pair, width", "Pair, stretch", "Pair, cutoff"],
)
def test_tables_without_bounds_are_refused_before_they_are_made(make):
    with pytest.raises(InputError, match="`r_cut` over .* larger than 256 MiB"):
        make()
