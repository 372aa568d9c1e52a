"""Compressed descriptors: equal to dense formulas, to DScribe, and to the uncompressed where nothing is lost; derivatives."""

import numpy as np
import pytest
from descriptor_checks import assert_invariant, assert_jacobian, assert_pullback, assert_strain_jacobian
from dscribe.descriptors import SOAP as DScribeSOAP
from sklearn.decomposition import TruncatedSVD
from systems import build, small_soap, species, variations

from soapkrr import SOAP, Compressed, CompressedSOAP, DotProduct, InputError, Projected, SparseGP, load, similarity_embedding
from soapkrr.descriptors.compression import channel_moments
from soapkrr.descriptors.cutoff import Polynomial
from soapkrr.descriptors.projection import blocks, principal_components
from soapkrr.structures import Batch

NAMES = species("alloy")
SETTINGS = dict(species=NAMES, r_cut=4.0, n_max=3, l_max=2, sigma=0.5)


def _random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def _of_each_species():
    """One or two functions of each species, fewer of them the higher l; the columns of those that there are not are zero."""
    C = np.zeros((3, 9, 5))
    for s, (a, b) in enumerate(((0, 1), (1, 3), (3, 5))):
        C[:, 3 * s : 3 * s + 3, a:b] = _random((3, 3, b - a), s)
    C[1, :, 3] = 0.0
    C[2, :, [1, 4]] = 0.0
    return C


OPTIONS = {
    "off": dict(),
    "mu1nu1": dict(compression="mu1nu1"),
    "mu2": dict(compression="mu2"),
    "crossover": dict(compression="crossover"),
    "embedding": dict(embedding=_random((3, 2))),
    "embedding, mu1nu1": dict(embedding=_random((3, 2)), compression="mu1nu1"),
    "embedding, crossover": dict(embedding=_random((3, 2)), compression="crossover"),
    "embedding, mu2": dict(embedding=_random((3, 2)), compression="mu2"),
    "contraction": dict(contraction=_random((3, 9, 4))),
    "folded contraction": dict(contraction=_random((3, 9, 3))),
    "folded contraction of each species": dict(contraction=_of_each_species()),
}


@pytest.fixture(params=OPTIONS)
def descriptor(request):
    return CompressedSOAP(**SETTINGS, **OPTIONS[request.param])


def _expansions(atoms, descriptor):
    """c[i, l] (2l + 1, n_species, n_max) as plain SOAP has them."""
    soap = SOAP(**SETTINGS)
    batch = Batch.from_atoms([atoms])
    (c, _) = soap.environments(batch).state
    return [c[:, l**2 : (l + 1) ** 2].reshape(len(c), 2 * l + 1, len(NAMES), soap.n_max) for l in range(soap.l_max + 1)]


# --- values ----------------------------------------------------------------------------------------------------------


def _products(u, v):
    """Σ_m u_a v_b (n_atoms, n_a, n_b), all pairs, over flattened channels."""
    u, v = (x.reshape(*x.shape[:2], -1) for x in (u, v))
    return np.einsum("ima,imb->iab", u, v)


def _dense(atoms, u_of, v_of):
    """Gram matrix of the normalised spectra whose full tensors are √(8π²/(2l+1)) Σ_m u v, without any packing."""
    parts = [_products(u_of(c, l), v_of(c, l)).reshape(len(atoms), -1) / np.sqrt(2 * l + 1) for l, c in enumerate(_expansions(atoms, None))]
    X = np.concatenate(parts, axis=1)
    X /= np.linalg.norm(X, axis=1)[:, None]
    return X @ X.T


def _mixed(W):
    return lambda c, l: np.einsum("imsn,sk->imkn", c, W)


def _of_all(c, l):
    return c.sum(axis=2, keepdims=True)


DENSE = {
    "off": (_mixed(np.eye(3)), _mixed(np.eye(3))),
    "mu1nu1": (_mixed(np.eye(3)), _of_all),
    "mu2": (_of_all, _of_all),
    "embedding": (_mixed(OPTIONS["embedding"]["embedding"]),) * 2,
    "contraction": (lambda c, l: np.einsum("ima,aq->imq", c.reshape(*c.shape[:2], -1), OPTIONS["contraction"]["contraction"][l]),) * 2,
}


@pytest.mark.parametrize("option", DENSE)
def test_products_equal_those_of_the_full_tensors(option):
    atoms = variations("alloy", 1)[0]
    X = CompressedSOAP(**SETTINGS, **OPTIONS[option]).create(atoms)
    # Sums of some hundred products in another order.
    np.testing.assert_allclose(X @ X.T, _dense(atoms, *DENSE[option]), atol=1e-13)


def test_without_options_it_is_plain_soap():
    atoms = build("alloy")
    np.testing.assert_allclose(CompressedSOAP(**SETTINGS).create(atoms), SOAP(**SETTINGS).create(atoms), atol=1e-14)


def test_an_orthogonal_mixture_of_all_species_loses_nothing():
    """p·p′ is the same in any orthonormal basis of the channels."""
    atoms = build("alloy")
    X, full = CompressedSOAP(**SETTINGS, embedding=np.linalg.qr(_random((3, 3)))[0]).create(atoms), SOAP(**SETTINGS).create(atoms)
    np.testing.assert_allclose(X @ X.T, full @ full.T, atol=1e-13)


def _dscribe(mode, weights=None):
    weighting = {"function": "poly", "r0": 4.0, "c": 1, "m": 2}
    settings = {**SETTINGS, "species": NAMES, "weighting": weighting, "compression": {"mode": mode, "species_weighting": weights}}
    return DScribeSOAP(**settings, rbf="gto", periodic=True)


def _same_directions(X, theirs):
    """Both up to the norm of each row, and up to the order of features: compared by sorted magnitudes."""
    theirs = theirs / np.linalg.norm(theirs, axis=1)[:, None]
    np.testing.assert_allclose(np.sort(X, axis=1), np.sort(theirs, axis=1), atol=1e-9)


def _wrapped():
    atoms = build("alloy")
    atoms.wrap()
    return atoms


def test_mu1nu1_is_dscribes():
    """DScribe keeps every (n, n′) of a species with all, as we do; all of ours carry the same √2, gone with the norm."""
    ours = CompressedSOAP(**SETTINGS, cutoff=Polynomial(2), compression="mu1nu1")
    theirs = _dscribe("mu1nu1")
    assert ours.n_features == theirs.get_number_of_features() == 3 * 3**2 * 3
    _same_directions(ours.create(_wrapped()), theirs.create(_wrapped()))


def _without_root_two(X, n_max, kinds, l_max):
    a, b = np.triu_indices(n_max)
    weights = np.where(a == b, 1.0, np.sqrt(2))
    Y = X / np.tile(weights, kinds * (l_max + 1))
    return Y / np.linalg.norm(Y, axis=1)[:, None]


@pytest.mark.parametrize("weights", [None, {"O": 0.5, "Ti": 2.0, "Sr": 1.3}])
def test_mu2_is_dscribes(weights):
    """With DScribe's weights of the species as one-column embedding; DScribe has no √2 on off-diagonal (n, n′)."""
    embedding = None if weights is None else [[weights[s]] for s in SOAP(**SETTINGS).species]
    ours = CompressedSOAP(**SETTINGS, cutoff=Polynomial(2), compression="mu2", embedding=embedding)
    theirs = _dscribe("mu2", weights)
    assert ours.n_features == theirs.get_number_of_features() == 3 * 4 // 2 * 3
    _same_directions(_without_root_two(ours.create(_wrapped()), 3, 1, 2), theirs.create(_wrapped()))


def test_crossover_is_dscribes():
    ours = CompressedSOAP(**SETTINGS, cutoff=Polynomial(2), compression="crossover")
    theirs = _dscribe("crossover")
    assert ours.n_features == theirs.get_number_of_features()
    _same_directions(_without_root_two(ours.create(_wrapped()), 3, 3, 2), theirs.create(_wrapped()))


def test_similar_species_overlap_as_told():
    """c·c′ with the densities of two species moved from one to the other is their similarity."""
    kappa = np.array([[1.0, 0.9, 0.3], [0.9, 1.0, 0.5], [0.3, 0.5, 1.0]])
    W = similarity_embedding(kappa)
    np.testing.assert_allclose(W @ W.T, kappa, atol=1e-14)
    assert similarity_embedding(kappa, 2).shape == (3, 2)
    X = CompressedSOAP(**SETTINGS, embedding=similarity_embedding(np.ones((3, 3)))).create(build("alloy"))
    np.testing.assert_allclose(np.abs(X), np.abs(CompressedSOAP(**SETTINGS, compression="mu2").create(build("alloy"))), atol=1e-12)


FOLDED = {
    "contraction": OPTIONS["folded contraction"],
    "of each species": OPTIONS["folded contraction of each species"],
    "one density": dict(compression="mu2"),
    "weighted density": dict(compression="mu2", embedding=np.array([[0.5], [2.0], [-1.3]])),
    "each species": dict(compression="crossover"),
}


@pytest.mark.parametrize("option", FOLDED)
def test_contracted_radial_functions_are_the_contraction_afterwards(option):
    """c′ expanded in Σ_n C_l,qn R_nl is C c of the plain expansion; spectra and gradients are those of channels that are mixed after."""
    batch, descriptor = Batch.from_atoms(variations("alloy", 2)), CompressedSOAP(**SETTINGS, **FOLDED[option])
    after = CompressedSOAP(**SETTINGS, **FOLDED[option])
    vars(after)["_basis"] = after._plain_basis
    assert descriptor._contraction is None and after._contraction is not None
    here, there = descriptor.environments(batch), after.environments(batch)
    np.testing.assert_allclose(here.X, there.X, atol=1e-13)
    for ours, theirs in zip(here.state, there.state, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    G, along = _random(here.X.shape), _random(here.pairs.vectors.shape, 1)
    gradients = here.gradient(), there.gradient()
    for env, gradient in zip((here, there), gradients, strict=True):
        env.pull_back(0, batch.n_atoms, env.values, G, gradient)
    np.testing.assert_allclose(*gradients, atol=1e-12)
    jvps = (env.jvp(0, batch.n_atoms, env.values, along) for env in (here, there))
    np.testing.assert_allclose(*jvps, atol=1e-12)


def test_channels_that_there_are_not_make_no_features():
    descriptor = CompressedSOAP(**SETTINGS, contraction=_of_each_species())
    assert descriptor.n_features == len(descriptor.feature_names()) == 15 + 10 + 6
    assert descriptor.create(build("alloy")).any(axis=0).all()


# --- derivatives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [assert_pullback, assert_jacobian, assert_strain_jacobian, assert_invariant])
def test_derivatives_and_invariances(descriptor, check):
    check(descriptor, build("alloy"))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("check", [assert_pullback, assert_jacobian, assert_strain_jacobian, assert_invariant])
def test_derivatives_and_invariances_of_projections(check, normalize):
    soap = small_soap(NAMES)
    check(Projected(soap, _random((soap.n_features, 6)), normalize), build("alloy"))


def test_small_blocks_give_the_same_jacobian(monkeypatch):
    monkeypatch.setattr("soapkrr.descriptors.projection.BUDGET", 1)
    soap = small_soap(NAMES)
    assert_jacobian(Projected(soap, _random((soap.n_features, 6))), build("alloy"))
    assert_strain_jacobian(Projected(soap, _random((soap.n_features, 6))), build("alloy"))


def test_blocks_cover_every_atom_once():
    offsets = np.cumsum([0, 5, 0, 0, 9, 2, 1])
    found = list(blocks(offsets, 1, 6, 7))
    assert found == [(1, 3), (3, 4), (4, 6)]


# --- what is learnt --------------------------------------------------------------------------------------------------


def test_principal_components_are_scikit_learns():
    X = np.abs(_random((40, 12)))
    P = principal_components(X, 3)
    theirs = TruncatedSVD(3, algorithm="arpack", random_state=0).fit(X).components_.T
    np.testing.assert_allclose(P @ P.T, theirs @ theirs.T, atol=1e-10)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_components_are_orthonormal_and_lose_what_is_allowed(shape):
    X = _random(shape) * 0.5 ** np.arange(shape[1])
    P = principal_components(X, 1e-4)
    np.testing.assert_allclose(P.T @ P, np.eye(P.shape[1]), atol=1e-12)
    lost = 1 - ((X @ P) ** 2).sum() / (X**2).sum()
    assert 0 < lost <= 1e-4
    fewer = P[:, :-1]
    assert 1 - ((X @ fewer) ** 2).sum() / (X**2).sum() > 1e-4


def test_all_components_lose_nothing():
    frames = variations("alloy", 6)
    soap = small_soap(NAMES)
    X = soap.create(frames)
    Y = Compressed(soap, n_components=10**6).fitted(X).create(frames)
    # Components below 1e-12 of the largest variance, 1e-6 of the largest amplitude, are dropped.
    np.testing.assert_allclose(Y @ Y.T, X @ X.T, atol=1e-10)


def test_moments_are_those_of_the_expansions():
    frames = variations("alloy", 1)
    soap = SOAP(**SETTINGS)
    batch = Batch.from_atoms(frames)
    env = soap.environments(batch)
    c, norms = env.state
    c = c / np.sqrt(norms)[:, None, None]
    expected = [np.einsum("ima,imb->ab", c[:, l**2 : (l + 1) ** 2], c[:, l**2 : (l + 1) ** 2]) for l in range(3)]
    np.testing.assert_allclose(channel_moments(env.X, soap.n_channels, 2), expected, atol=1e-13)


@pytest.mark.parametrize("option", [dict(embedding=2), dict(contraction=5), dict(embedding=1, compression="mu1nu1")])
def test_learning_channels(option):
    frames = variations("alloy", 4)
    soap = CompressedSOAP(**SETTINGS, **option)
    X = soap.create(frames)
    np.testing.assert_allclose(X, SOAP(**SETTINGS).create(frames), atol=1e-14)
    fitted = soap.fitted(X)
    assert fitted.n_features < soap.n_features
    assert not fitted.learns
    assert_jacobian(fitted, build("alloy"))


def test_all_learnt_channels_lose_nothing():
    frames = variations("alloy", 4)
    X = SOAP(**SETTINGS).create(frames)
    for option in (dict(embedding=3), dict(contraction=9)):
        Y = CompressedSOAP(**SETTINGS, **option).fitted(X).create(frames)
        np.testing.assert_allclose(Y @ Y.T, X @ X.T, atol=1e-13)


MODELS = {
    "principal components": Compressed(small_soap(NAMES), n_components=20),
    "learnt embedding": CompressedSOAP(**SETTINGS, embedding=2),
    "learnt contraction": CompressedSOAP(**SETTINGS, contraction=4),
    "mu1nu1": CompressedSOAP(**SETTINGS, compression="mu1nu1"),
}


@pytest.mark.parametrize("option", MODELS)
def test_models_learn_save_and_load(option, tmp_path):
    frames = variations("alloy", 8)
    model = SparseGP(MODELS[option], DotProduct(2), n_sparse=20, threads=1).fit(frames)
    assert model.descriptor is MODELS[option]
    used = model.process_.terms[0].descriptor
    assert not used.learns
    assert used.n_features < small_soap(NAMES).n_features
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.process_.terms[0].descriptor == used
    assert again.descriptor == model.descriptor
    p, q = model.predict(frames, uncertainty=True), again.predict(frames, uncertainty=True)
    for name in ("energy", "stress", "energy_std", "stress_std"):
        np.testing.assert_array_equal(getattr(p, name), getattr(q, name))


def test_more_data_than_the_budget_are_thinned(monkeypatch):
    frames = variations("alloy", 9)
    monkeypatch.setattr("soapkrr.execution.resources.LEARNING_BYTES", 8 * 5 * 3 * small_soap(NAMES).n_features)
    model = SparseGP(Compressed(small_soap(NAMES), n_components=20), DotProduct(2), n_sparse=20, threads=1).fit(frames)
    # Every third structure: 15 environments have 15 components.
    assert model.process_.terms[0].descriptor.n_features == 15


# --- bad input -------------------------------------------------------------------------------------------------------

BAD = {
    "`compression` must be one of": lambda: CompressedSOAP(**SETTINGS, compression="mu3"),
    "`embedding` must be a finite array": lambda: CompressedSOAP(**SETTINGS, embedding=np.ones((2, 2))),
    "`embedding` must be from 1 to 3": lambda: CompressedSOAP(**SETTINGS, embedding=4),
    "`contraction` must be a finite array": lambda: CompressedSOAP(**SETTINGS, contraction=np.full((3, 9, 2), np.nan)),
    "`contraction` mixes species already": lambda: CompressedSOAP(**SETTINGS, contraction=3, embedding=2),
    "`similarity` must be a symmetric": lambda: similarity_embedding([[1.0, 0.5], [0.4, 1.0]]),
    "`similarity` must be positive": lambda: similarity_embedding([[1.0, 2.0], [2.0, 1.0]]),
    "`n_components` must be": lambda: Compressed(small_soap(NAMES), n_components=0),
    "`n_components` must be a positive": lambda: Compressed(small_soap(NAMES), n_components=1.5),
    "learns from the data itself": lambda: Compressed(CompressedSOAP(**SETTINGS, embedding=2)),
    "`descriptor` must be": lambda: Compressed("soap"),
    "`matrix` has shape": lambda: Projected(small_soap(NAMES), np.eye(3)),
    "`matrix` holds": lambda: Projected(small_soap(["Si"]), np.full((24, 2), np.inf)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_parameters_are_named(message):
    with pytest.raises(InputError, match=message):
        BAD[message]()
