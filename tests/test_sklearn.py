"""scikit-learn's conventions on lists of `ase.Atoms`: its own checks, parameters by nested names, searches, pipelines, transformers."""

import inspect
import pickle
import re

import numpy as np
import pytest
import sklearn.utils.estimator_checks
from discovery import descriptors, estimators, example
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_predict, cross_val_score, cross_validate, learning_curve
from sklearn.pipeline import Pipeline, make_pipeline
from systems import small_soap, variations

from soapkrr import Compressed, DotProduct, Featurizer, InputError, Prediction, PropertyGP, SparseGP, SquaredExponential, TensorGP, Term
from soapkrr.estimators import Potential
from soapkrr.estimators.property import PropertyEstimator
from soapkrr.metrics import error_table


def _applicable():
    """scikit-learn's checks of one estimator that make no numeric table X of their own: what structures can be asked to pass."""
    makes_data = re.compile(r"\bX|_dataset|[( ]_?check_\w+\(|rng|__array|\.fit\(|feature_names_out")
    checks = {}
    for name, check in vars(sklearn.utils.estimator_checks).items():
        if name.startswith("check_") and inspect.isfunction(check) and len(inspect.signature(check).parameters) == 2:
            body = inspect.getsource(check).split("):", 1)[1]
            if "name" in inspect.signature(check).parameters and not makes_data.search(body):
                checks[name] = check
    return checks


CHECKS = _applicable()


@pytest.fixture(params=estimators(), ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def frames():
    return variations("vacancy", 6)


def _fit(estimator, frames):
    """Fitted to what structures carry, or to the number of their atoms, or to their first atom's place."""
    if isinstance(estimator, TensorGP):
        return estimator.fit(frames, [a.positions[0] for a in frames])
    return estimator.fit(frames, [float(len(a)) for a in frames]) if isinstance(estimator, PropertyEstimator) else estimator.fit(frames)


def _output(estimator, frames):
    """What a fitted estimator says of structures, as one array per structure."""
    if isinstance(estimator, Potential):
        p = estimator.predict(frames)
        return [np.concatenate([[e], f.ravel()]) for e, f in zip(p.energy, p.forces, strict=True)]
    if isinstance(estimator, (PropertyEstimator, TensorGP)):
        return estimator.predict(frames).by_structure()
    return np.split(estimator.transform(frames), np.cumsum([len(a) for a in frames])[:-1])


# --- every estimator -------------------------------------------------------------------------------------------------


def test_the_checks_are_there():
    assert {"check_estimator_cloneable", "check_get_params_invariance", "check_set_params"} <= set(CHECKS)
    assert {"check_no_attributes_set_in_init", "check_valid_tag_types", "check_parameters_default_constructible"} <= set(CHECKS)
    assert {"SparseGP", "Featurizer"} <= {kind.__name__ for kind in estimators()}


@pytest.mark.parametrize("check", CHECKS)
def test_scikit_learn_check(kind, check):
    CHECKS[check](kind.__name__, example(kind))


def test_fit_returns_self_and_leaves_parameters_and_data_alone(kind, frames):
    estimator = example(kind)
    before, positions = estimator.get_params(), [a.positions.copy() for a in frames]
    assert _fit(estimator, frames) is estimator
    after = estimator.get_params()
    assert all(after[name] is before[name] for name in before)
    assert all(np.array_equal(a.positions, p) for a, p in zip(frames, positions, strict=True))


def test_fitted_attributes_end_with_an_underscore_and_use_changes_nothing(kind, frames):
    estimator = example(kind)
    parameters = set(vars(estimator))
    fitted = vars(_fit(estimator, frames)).copy()
    assert all(name.endswith("_") for name in set(fitted) - parameters)
    _output(estimator, frames)
    assert all(vars(estimator)[name] is value for name, value in fitted.items())


def test_fitting_again_changes_nothing(kind, frames):
    estimator = _fit(_fit(example(kind), variations("primitive", 3)), frames)
    fresh = _fit(example(kind), frames)
    np.testing.assert_array_equal(np.concatenate(_output(estimator, frames)), np.concatenate(_output(fresh, frames)))


def test_unfitted_says_so(kind, frames):
    with pytest.raises(NotFittedError):
        _output(example(kind), frames)


def test_pickle_keeps_the_fit(kind, frames):
    estimator = _fit(example(kind), frames)
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(np.concatenate(_output(again, frames)), np.concatenate(_output(estimator, frames)))


def test_structures_do_not_see_each_other(kind, frames):
    estimator = _fit(example(kind), frames)
    together = _output(estimator, frames)
    apart = [_output(estimator, [atoms])[0] for atoms in frames]
    backwards = _output(estimator, frames[::-1])[::-1]
    # Sums of matrix products in another order.
    np.testing.assert_allclose(np.concatenate(apart), np.concatenate(together), rtol=0, atol=1e-10)
    np.testing.assert_allclose(np.concatenate(backwards), np.concatenate(together), rtol=0, atol=1e-10)


# --- nested names ----------------------------------------------------------------------------------------------------


def _model():
    return SparseGP(small_soap(["Si"]), DotProduct(2), n_sparse=10, threads=1)


def test_nested_parameters_are_read():
    params = _model().get_params()
    assert params["descriptor__r_cut"] == 4.0
    assert params["descriptor__cutoff__width"] == 1.5
    assert params["kernel__zeta"] == 2
    assert "descriptor__r_cut" not in _model().get_params(deep=False)


def test_nested_parameters_are_set_and_nobody_else_sees_it():
    model = _model()
    soap = model.descriptor
    other = clone(model)
    model.set_params(descriptor__r_cut=4.5, descriptor__cutoff__width=1.0, kernel__zeta=3, noise={"energy": 0.1})
    assert model.descriptor == soap.with_params(r_cut=4.5, cutoff__width=1.0)
    assert model.kernel == DotProduct(3)
    assert other.descriptor is soap
    assert soap.r_cut == 4.0
    assert soap.cutoff.width == 1.5


def test_a_part_can_be_replaced_and_changed_at_once():
    model = _model().set_params(kernel=SquaredExponential(), kernel__length_scale=0.3)
    model.set_params(descriptor__cutoff="cosine", descriptor__cutoff__width=2.0)
    assert model.kernel == SquaredExponential(0.3)
    assert model.descriptor.cutoff.width == 2.0


def test_sums_of_kernels_and_lists_of_terms():
    """Terms are named by position."""
    soap = small_soap(["Si"])
    model = SparseGP([Term(soap, DotProduct(2) + SquaredExponential(0.5), n_sparse=5), Term(soap, DotProduct(1))])
    assert model.get_params()["descriptor__0__kernel__right__length_scale"] == 0.5
    model.set_params(descriptor__0__kernel__right__length_scale=0.7, descriptor__1__descriptor__n_max=2, descriptor__1__signal=3.0)
    assert model.descriptor[0].kernel.right.length_scale == 0.7
    assert (model.descriptor[1].descriptor.n_max, model.descriptor[1].signal) == (2, 3.0)
    assert model.descriptor[0].signal == 3.0


def test_mappings_by_key():
    model = SparseGP(small_soap(["Si"]), DotProduct(2), noise={"energy": 0.01, "forces": 0.1})
    assert model.set_params(noise__forces=0.2).noise == {"energy": 0.01, "forces": 0.2}


BAD = {
    "SparseGP has no parameter `colour`": dict(colour=1),
    "SOAP has no parameter `colour`": dict(descriptor__colour=1),
    "SparseGP has no parameter `colours`": dict(colours__descriptor=1),
    "`n_max` must be": dict(descriptor__n_max=0),
    "`threads`=1 has no parameters": dict(threads__number=2),
}


@pytest.mark.parametrize("message", BAD)
def test_wrong_names_and_values_are_named_and_change_nothing(message):
    model = _model()
    before = model.get_params()
    with pytest.raises(InputError, match=message):
        model.set_params(signal=7.0, **BAD[message])
    assert model.get_params() == before


# --- searches and cross-validation -----------------------------------------------------------------------------------


def test_grid_search(frames):
    search = GridSearchCV(_model(), {"descriptor__n_max": [2, 3], "kernel__zeta": [1, 2]}, cv=3).fit(frames)
    assert set(search.best_params_) == {"descriptor__n_max", "kernel__zeta"}
    scores = search.cv_results_["mean_test_score"]
    assert scores.shape == (4,)
    assert len(set(scores)) == 4
    assert search.best_estimator_.descriptor.n_max == search.best_params_["descriptor__n_max"]
    assert search.predict(frames).energy.shape == (6,)


def test_grid_search_equals_a_loop(frames):
    search = GridSearchCV(_model(), {"descriptor__r_cut": [3.5, 4.0]}, cv=3, refit=False).fit(frames)
    for r_cut, score in zip((3.5, 4.0), search.cv_results_["mean_test_score"], strict=True):
        model = SparseGP(small_soap(["Si"], r_cut=r_cut), DotProduct(2), n_sparse=10, threads=1)
        folds = [(frames[:a] + frames[b:], frames[a:b]) for a, b in ((0, 2), (2, 4), (4, 6))]
        np.testing.assert_allclose(score, np.mean([model.fit(train).score(test) for train, test in folds]), rtol=1e-12)


def test_groups_stay_together(frames):
    groups = [0, 0, 1, 1, 2, 2]
    scores = cross_val_score(_model(), frames, groups=groups, cv=GroupKFold(3))
    assert scores.shape == (3,)
    assert np.all(scores < 0)


def test_searching_what_a_descriptor_learns(frames):
    model = SparseGP(Compressed(small_soap(["Si"])), DotProduct(2), n_sparse=10, threads=1)
    search = GridSearchCV(model, {"descriptor__n_components": [2, 8], "descriptor__descriptor__l_max": [3]}, cv=3).fit(frames)
    assert search.best_estimator_.process_.terms[0].descriptor.n_features == search.best_params_["descriptor__n_components"]


@pytest.fixture(scope="module")
def folds():
    """Shuffled, so that the order of what is stacked tells."""
    return KFold(3, shuffle=True, random_state=0)


def _property(target):
    return PropertyGP(small_soap(["Si"]), DotProduct(2), target=target, noise=0.1)


def _volumes(frames):
    return np.array([atoms.get_volume() + 10 * k for k, atoms in enumerate(frames)])


def _left_out(model, frames, y, folds):
    """{structure: prediction without it}, by a loop."""
    result = {}
    for train, test in folds.split(frames):
        fitted = clone(model).fit([frames[s] for s in train], [y[s] for s in train])
        result |= dict(zip(test, fitted.predict([frames[s] for s in test]).by_structure(), strict=True))
    return [result[s] for s in range(len(frames))]


def test_cross_validated_predictions_of_a_property_of_structures(frames, folds):
    y = _volumes(frames)
    predicted = cross_val_predict(_property("extensive"), frames, y, cv=folds)
    np.testing.assert_array_equal(predicted, np.concatenate(_left_out(_property("extensive"), frames, y, folds)))


def test_cross_validated_predictions_of_a_property_of_atoms_are_in_the_order_of_structures(frames, folds):
    y = [np.arange(float(len(atoms))) for atoms in frames]
    predicted = cross_val_predict(_property("atom"), frames, y, cv=folds)
    assert predicted.shape == (6,)
    for values, expected in zip(predicted, _left_out(_property("atom"), frames, y, folds), strict=True):
        np.testing.assert_array_equal(values, expected)


def test_cross_validated_predictions_of_a_potential(frames, folds):
    predicted = cross_val_predict(_model(), frames, cv=folds)
    assert isinstance(predicted, Prediction) and len(predicted) == 6
    for train, test in folds.split(frames):
        expected = _model().fit([frames[s] for s in train]).predict([frames[s] for s in test])
        np.testing.assert_array_equal(predicted[test].energy, expected.energy)
        np.testing.assert_array_equal(np.concatenate(predicted[test].forces), np.concatenate(expected.forces))


def test_scikit_learns_scores_of_a_property(frames, folds):
    y, model = _volumes(frames), _property("extensive")
    scores = cross_val_score(model, frames, y, cv=folds, scoring="neg_mean_absolute_error")
    left_out = np.concatenate(_left_out(model, frames, y, folds))
    np.testing.assert_allclose(scores, [-np.abs(left_out - y)[test].mean() for _, test in folds.split(frames)], rtol=1e-12)
    own = cross_val_score(model, frames, y, cv=folds, scoring=lambda m, X, y: -np.abs(m.predict(X) - y).mean())
    np.testing.assert_allclose(own, scores, rtol=1e-12)
    search = GridSearchCV(model, {"noise": [0.1, 100.0]}, cv=folds, scoring=["r2", "neg_mean_absolute_error"], refit="r2").fit(frames, y)
    assert search.best_params_["noise"] == 0.1


def test_scores_of_a_potential_are_functions_of_model_and_structures(frames, folds):
    def energies(model, frames, y=None):
        return -error_table(frames, model.predict(frames))["energy_mae_mev_per_atom"]

    def all_errors(model, frames, y=None):
        return {name: -value for name, value in error_table(frames, model.predict(frames)).items()}

    scores = cross_val_score(_model(), frames, cv=folds, scoring=energies)
    every = cross_validate(_model(), frames, cv=folds, scoring=all_errors)
    np.testing.assert_array_equal(scores, every["test_energy_mae_mev_per_atom"])


def test_learning_curves(frames, folds):
    sizes, train, test = learning_curve(_property("extensive"), frames, _volumes(frames), cv=folds, train_sizes=[2, 4])
    assert list(sizes) == [2, 4] and train.shape == test.shape == (2, 3)
    assert test.mean(axis=1)[1] > test.mean(axis=1)[0]
    _, _, potential = learning_curve(_model(), frames, None, cv=folds, train_sizes=[2, 4])
    assert np.isfinite(potential).all() and (potential < 0).all()


@pytest.mark.parametrize("kind", [kind for kind in estimators() if issubclass(kind, Potential)], ids=lambda kind: kind.__name__)
def test_values_that_a_potential_would_ignore_are_refused(kind, frames):
    model = example(kind)
    for call in (model.fit, model.plan, model.fit(frames, None).score):
        with pytest.raises(InputError, match=f"`y`: {kind.__name__} fits the energies, forces and stresses .* received a list.*PropertyGP"):
            call(frames, [1.0] * 6)


# --- transformers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", descriptors(), ids=lambda kind: kind.__name__)
def test_descriptors_are_transformers(kind, frames):
    descriptor = example(kind, ["Si"])
    X = descriptor.fit(frames).transform(frames)
    assert X.shape == (sum(map(len, frames)), descriptor.n_features)
    np.testing.assert_array_equal(descriptor.fit_transform(frames), X)
    assert clone(descriptor) is descriptor
    scores = make_pipeline(descriptor, PCA(2)).fit_transform(frames)
    assert scores.shape == (len(X), 2)


def test_names_of_soap_features_say_what_they_are():
    soap = small_soap(["O", "Si"], n_max=2, l_max=1)
    names = list(soap.get_feature_names_out())
    assert names[:5] == ["O:0 O:0 l=0", "O:0 O:1 l=0", "O:0 Si:0 l=0", "O:0 Si:1 l=0", "O:1 O:1 l=0"]
    assert names[-1] == "Si:1 Si:1 l=1"
    assert len(names) == soap.n_features
    # An oxygen-free environment has nothing but silicon.
    X = soap.create(variations("vacancy", 1))
    assert {name.replace("Si", "") for name in np.array(names)[X[0] != 0]} == {n.replace("Si", "") for n in names if "O" not in n}


def test_pipeline_clusters_atoms(frames):
    labels = make_pipeline(small_soap(["Si"]), PCA(3), KMeans(2, random_state=0, n_init=2)).fit_predict(frames)
    assert labels.shape == (sum(map(len, frames)),)


def test_averages_are_means_over_structures():
    mixed = [*variations("vacancy", 2), *variations("primitive", 2)]
    soap = small_soap(["Si"])
    X = Featurizer(soap, average="outer").fit_transform(mixed)
    np.testing.assert_allclose(X, [soap.create(atoms).mean(axis=0) for atoms in mixed], rtol=1e-12)


def test_search_in_a_pipeline_by_structure(frames):
    """A grid search changes the descriptor inside a pipeline: averaged features and a linear model of any property."""
    pipeline = Pipeline([("features", Featurizer(small_soap(["Si"]), average="outer")), ("ridge", Ridge(1e-6))])
    volumes = [atoms.get_volume() for atoms in frames]
    search = GridSearchCV(pipeline, {"features__descriptor__n_max": [1, 3], "ridge__alpha": [1e-6, 1e-3]}, cv=3).fit(frames, volumes)
    assert search.best_estimator_["features"].descriptor.n_max == search.best_params_["features__descriptor__n_max"]
    assert search.predict(frames).shape == (6,)


def test_a_featurizer_learns_on_the_training_data_only(frames):
    featurizer = Featurizer(Compressed(small_soap(["Si"]), n_components=4)).fit(frames[:2])
    used = featurizer.descriptor_
    featurizer.transform(frames)
    assert featurizer.descriptor_ is used
    assert list(featurizer.get_feature_names_out()) == [f"component {k}" for k in range(4)]


@pytest.mark.parametrize(("changes", "message"), [(dict(average="inner"), "`average`"), (dict(descriptor="soap"), "`descriptor`")])
def test_bad_featurizers_are_named(changes, message, frames):
    with pytest.raises(InputError, match=message):
        Featurizer(small_soap(["Si"])).set_params(**changes).fit(frames)


def test_every_estimator_takes_nested_names(kind):
    assert example(kind).set_params(descriptor__r_cut=4.25).get_params()["descriptor__r_cut"] == 4.25


def test_names_of_features_need_a_fit():
    with pytest.raises(NotFittedError):
        Featurizer(small_soap(["Si"])).get_feature_names_out()
