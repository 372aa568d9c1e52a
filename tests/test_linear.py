"""Streamed linear algebra against dense references on graded condition numbers."""

import numpy as np
import pytest

from soapkrr.backends.cpu import dense
from soapkrr.linear import merge, solve, triangle, whitening

CONDITIONS = [1e0, 1e2, 1e4, 1e6, 1e8, 1e10]
NOISE = {"energy": 0.3, "forces": 2.0}
EPS = np.finfo(float).eps


def _graded(rng, m, k, condition):
    """(m, k) matrix with singular values falling evenly on a logarithmic scale from ``condition`` to 1."""
    U, _ = np.linalg.qr(rng.normal(size=(m, k)))
    V, _ = np.linalg.qr(rng.normal(size=(k, k)))
    return (U * np.logspace(np.log10(condition), 0, k)) @ V.T


def _problem(condition, seed=0, k=25):
    """Rows and targets of two kinds, and the same stacked, divided by the noise, upon the identity (the prior)."""
    rng = np.random.default_rng(seed)
    rows = {"energy": _graded(rng, 40, k, condition), "forces": _graded(rng, 130, k, condition)}
    targets = {t: A @ rng.normal(size=k) / condition + rng.normal(size=len(A)) for t, A in rows.items()}
    A = np.concatenate([*(rows[t] / NOISE[t] for t in rows), np.eye(k)])
    y = np.concatenate([*(targets[t] / NOISE[t] for t in rows), np.zeros(k)])
    return rows, targets, A, y


def _factors(rows, targets, blocks=1):
    """Triangles of [Φ | y] per kind, absorbed in so many blocks."""
    factors = {}
    for t in rows:
        for part in np.array_split(np.column_stack([rows[t], targets[t]]), blocks):
            new = triangle(np.asfortranarray(part)) if len(part) > part.shape[1] else np.asfortranarray(part)
            factors[t] = merge([factors[t], new]) if t in factors else new
    return factors


@pytest.mark.parametrize("shape", [(1, 4), (3, 7), (7, 7), (50, 7), (8, 1)])
def test_triangle_keeps_the_gram_matrix(shape):
    rows = np.random.default_rng(0).normal(size=shape)
    R = triangle(np.asfortranarray(rows.copy()))
    assert R.shape == (min(shape), shape[1])
    # Householder QR is backward stable: a few eps of the norm.
    np.testing.assert_allclose(R.T @ R, rows.T @ rows, rtol=0, atol=1e-13 * np.linalg.norm(rows) ** 2)
    np.testing.assert_array_equal(R, np.triu(R))


def test_merge_keeps_the_gram_matrix():
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(m, 6)) for m in (6, 3, 1, 6)]
    stacked = np.concatenate(parts)
    merged = merge(parts)
    assert merged.shape == (6, 6)
    np.testing.assert_allclose(merged.T @ merged, stacked.T @ stacked, rtol=0, atol=1e-13 * np.linalg.norm(stacked) ** 2)


def test_merge_keeps_few_rows_as_they_are():
    parts = [np.random.default_rng(2).normal(size=(m, 6)) for m in (2, 3)]
    np.testing.assert_array_equal(merge(parts), np.concatenate(parts))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_solution_equals_lstsq(condition):
    rows, targets, A, y = _problem(condition)
    posterior = solve(_factors(rows, targets), NOISE)
    reference, *_ = np.linalg.lstsq(A, y, rcond=None)
    cond = np.linalg.cond(A)
    residual = np.linalg.norm(A @ reference - y)
    # What two backward stable solvers may differ by (Golub and Van Loan, theorem 5.3.1): eps (κ |w| + κ² |residual|/|A|), times a
    # moderate constant for the dimensions.
    bound = 50 * EPS * (cond * np.linalg.norm(reference) + cond**2 * residual / np.linalg.norm(A, 2))
    assert np.linalg.norm(posterior.mean - reference) < bound
    # The fitted values do not suffer from κ² at all.
    np.testing.assert_allclose(A @ posterior.mean, A @ reference, rtol=0, atol=100 * EPS * cond * np.linalg.norm(y))
    np.testing.assert_allclose(posterior.residual, residual**2, rtol=1e-12 * max(1, EPS * cond * 1e4))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_spread_equals_the_dense_inverse(condition):
    """|R⁻ᵀφ|² = φᵀ(AᵀA)⁻¹φ, the reference from the singular values of A, which never forms AᵀA."""
    rows, targets, A, _ = _problem(condition)
    posterior = solve(_factors(rows, targets), NOISE)
    _, s, Vt = np.linalg.svd(A, full_matrices=False)
    phi = np.random.default_rng(3).normal(size=(9, A.shape[1]))
    expected = (((phi @ Vt.T) / s) ** 2).sum(axis=1)
    # A random φ is dominated by the smallest singular values, each known to eps·s_max: relative error 2 eps κ.
    np.testing.assert_allclose(posterior.variance(phi), expected, rtol=20 * EPS * np.linalg.cond(A) + 1e-13)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_condition_number_is_of_the_right_size(condition):
    rows, targets, A, _ = _problem(condition)
    posterior = solve(_factors(rows, targets), NOISE)
    # LAPACK estimates the 1-norm condition number, within a factor of the dimension (25) of the 2-norm's.
    assert 1 / 30 < posterior.condition / np.linalg.cond(A) < 30


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("blocks", [2, 3, 7, 40])
def test_block_size_does_not_matter(condition, blocks):
    rows, targets, A, y = _problem(condition)
    whole, split = (solve(_factors(rows, targets, b), NOISE) for b in (1, blocks))
    cond = np.linalg.cond(A)
    # As for lstsq above: two stable eliminations of the same rows.
    np.testing.assert_allclose(A @ split.mean, A @ whole.mean, rtol=0, atol=100 * EPS * cond * np.linalg.norm(y))
    gram = A.T @ A
    np.testing.assert_allclose(split.factor.T @ split.factor, gram, rtol=0, atol=1e-13 * np.linalg.norm(A) ** 2)


def test_another_noise_needs_no_pass_over_the_data():
    rows, targets, _, _ = _problem(1e2)
    factors, noise = _factors(rows, targets), {"energy": 0.01, "forces": 0.5}
    A = np.concatenate([*(rows[t] / noise[t] for t in rows), np.eye(25)])
    y = np.concatenate([*(targets[t] / noise[t] for t in rows), np.zeros(25)])
    reference, *_ = np.linalg.lstsq(A, y, rcond=None)
    np.testing.assert_allclose(solve(factors, noise).mean, reference, rtol=1e-9)


def test_fewer_rows_than_columns_leave_the_prior():
    """One observation of 25 weights: the mean lies along it, the variance falls along it only."""
    phi, y, sigma = np.random.default_rng(5).normal(size=25), 3.0, 0.7
    posterior = solve({"energy": np.append(phi, y)[None, :]}, {"energy": sigma})
    norm = phi @ phi
    np.testing.assert_allclose(posterior.mean, phi * y / (norm + sigma**2), rtol=1e-13)
    across = np.random.default_rng(6).normal(size=25)
    across -= phi * (phi @ across) / norm
    np.testing.assert_allclose(posterior.variance(phi[None])[0], norm * sigma**2 / (norm + sigma**2), rtol=1e-12)
    np.testing.assert_allclose(posterior.variance(across[None])[0], across @ across, rtol=1e-12)


def test_whitening_makes_the_kernel_the_identity():
    B = np.random.default_rng(7).normal(size=(9, 12))
    K = B @ B.T
    T = whitening(K, 1e-12)
    assert T.shape == (9, 9)
    np.testing.assert_allclose(T.T @ K @ T, np.eye(9), atol=1e-11 * np.linalg.cond(K))


@pytest.mark.parametrize("tolerance, rank", [(1e-12, 6), (1e-5, 4), (0.5, 1)])
def test_whitening_drops_small_eigenvalues(tolerance, rank):
    Q, _ = np.linalg.qr(np.random.default_rng(8).normal(size=(6, 6)))
    values = np.array([1, 1e-1, 1e-3, 1e-4, 1e-6, 1e-9])
    K = (Q * values) @ Q.T
    T = whitening(K, tolerance)
    assert T.shape == (6, rank)
    # Kept eigenvalues down to 1e-9 are known to 1e-16 absolutely, so to 1e-7 relatively.
    np.testing.assert_allclose(T.T @ K @ T, np.eye(rank), atol=1e-6)


def test_whitening_of_duplicates_loses_only_the_copies():
    B = np.random.default_rng(9).normal(size=(5, 8))
    B = np.concatenate([B, B[[0, 2]]])
    K = B @ B.T
    T = whitening(K, 1e-10)
    assert T.shape == (7, 5)
    np.testing.assert_allclose(K @ T @ T.T @ K, K, atol=1e-10 * np.abs(K).max())


@pytest.mark.parametrize("smallest, triangular", [(1e-5, True), (1e-13, False)])
def test_whitening_is_a_triangle_where_no_eigenvalue_is_near_the_tolerance(smallest, triangular):
    Q, _ = np.linalg.qr(np.random.default_rng(10).normal(size=(8, 8)))
    K = (Q * np.geomspace(1, smallest, 8)) @ Q.T
    T = whitening((K + K.T) / 2, 1e-9)
    assert (T.shape == (8, 8) and not np.tril(T, -1).any()) == triangular
    np.testing.assert_allclose(T.T @ K @ T, np.eye(T.shape[1]), atol=1e-6)


@pytest.mark.parametrize("order", "CF")
def test_products_with_triangles(order):
    rng = np.random.default_rng(0)
    A, T = np.asarray(rng.random((9, 5)), order=order), np.triu(rng.random((5, 5)))
    before = A.copy()
    np.testing.assert_allclose(dense.times_triangle(A, T), A @ T, rtol=1e-14)
    np.testing.assert_array_equal(A, before)
