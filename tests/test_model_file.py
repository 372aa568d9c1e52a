"""Model files: the same bits come back, nothing but a whole model is accepted, and writing is all or nothing."""

import io
import json
import os
import pickle
import stat
import zipfile

import numpy as np
import pytest
from small import crystals, lennard_jones, small_gp, soap

import soapkrr
from soapkrr import DotProduct, InputError, ModelFileError, RadialScaling, SparseGP
from soapkrr.descriptors.cutoff import Cosine, Polynomial
from soapkrr.modelfile import archive, check_writable, read_header, write_whole


@pytest.fixture(scope="module")
def frames():
    return crystals()


@pytest.fixture(scope="module")
def model(frames):
    return small_gp().fit(frames)


@pytest.fixture
def path(model, tmp_path):
    model.save(tmp_path / "m.soapkrr")
    return tmp_path / "m.soapkrr"


def same(a, b):
    """Bitwise equality of two predictions."""
    for name in a.__dataclass_fields__:
        x, y = getattr(a, name), getattr(b, name)
        np.testing.assert_array_equal(np.concatenate([np.ravel(v) for v in x]), np.concatenate([np.ravel(v) for v in y]), err_msg=name)


def merged(header, changes):
    """A header with other entries; ``state__process__terms`` reaches inside, None removes an entry."""
    header = dict(header)
    for name, value in changes.items():
        outer, _, inner = name.partition("__")
        changed = merged(header[outer], {inner: value}) if inner else value
        header = {**header, outer: changed}
    return {name: value for name, value in header.items() if value is not None}


def rewritten(path, target, arrays=None, **changes):
    """A copy of a model file with other entries in model.json, as of `merged`, and other ``arrays`` (None: none); digests are right."""
    members = members_of(path)
    header = merged(json.loads(members.pop("model.json")), changes)
    for name, array in (arrays or {}).items():
        members.pop(f"{name}.npy")
        if array is not None:
            members[f"{name}.npy"] = npy(array)
            header["arrays"][name] = archive.declaration(array)
    with zipfile.ZipFile(target, "w") as new:
        new.writestr("model.json", json.dumps(archive.sealed(header) if "arrays" in header else header))
        for name, content in members.items():
            new.writestr(name, content)
    return target


def members_of(path):
    """{name: bytes} of a zip."""
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def with_member(path, target, name, content):
    """A copy of a model file in which one member holds other bytes (None leaves it out)."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        members = {n: old.read(n) for n in old.namelist()} | {name: content}
        for member in [m for m, data in members.items() if data is not None]:
            new.writestr(member, members[member])
    return target


def npy(array, allow_pickle=False):
    """Bytes of an array file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


# --- round trip ---


def test_predictions_come_back_bit_for_bit(model, path, frames):
    same(model.predict(frames, uncertainty=True), soapkrr.load(path).predict(frames, uncertainty=True))


def test_saving_again_gives_the_same_contents(model, path, tmp_path):
    soapkrr.load(path).save(tmp_path / "again.soapkrr")
    with zipfile.ZipFile(path) as first, zipfile.ZipFile(tmp_path / "again.soapkrr") as second:
        assert first.namelist() == second.namelist()
        assert [first.read(n) for n in first.namelist()] == [second.read(n) for n in second.namelist()]


@pytest.mark.parametrize(
    "changes",
    [
        {"cutoff": Cosine()},
        {"cutoff": Cosine(width=2.0), "rbf": "bessel"},
        {"cutoff": Polynomial(m=3.0), "scaling": RadialScaling(r0=1.5, m=6.0)},
    ],
    ids=["cosine", "bessel", "scaling"],
)
def test_every_specification_comes_back(changes, frames, tmp_path):
    noise = {"energy": 0.001}
    model = SparseGP(soap(**changes), DotProduct(zeta=2.5), n_sparse={"Ar": 5}, noise=noise, baseline={"Ar": 0.5}, selection="cur").fit(
        frames
    )
    model.save(tmp_path / "m.soapkrr")
    loaded = soapkrr.load(tmp_path / "m.soapkrr")
    assert loaded.get_params() == model.get_params()
    assert (loaded.n_sparse_, loaded.rank_, loaded.condition_) == (model.n_sparse_, model.rank_, model.condition_)
    assert (loaded.reference_energies_, loaded.n_observations_) == (model.reference_energies_, model.n_observations_)
    same(model.predict(frames, uncertainty=True), loaded.predict(frames, uncertainty=True))


def test_two_species_come_back(frames, tmp_path):
    mixed = [atoms.copy() for atoms in frames]
    for atoms in mixed:
        atoms.symbols[0] = "Ne"
    mixed = [lennard_jones(atoms, "energy", "forces") for atoms in mixed]
    model = small_gp(["Ne", "Ar"]).fit(mixed)
    model.save(tmp_path / "m.soapkrr")
    same(model.predict(mixed, uncertainty=True), soapkrr.load(tmp_path / "m.soapkrr").predict(mixed, uncertainty=True))


def test_the_loaded_calculator_works(path, frames):
    atoms = frames[0].copy()
    atoms.calc = soapkrr.load(path).calculator()
    assert np.isfinite(atoms.get_potential_energy()) and atoms.calc.results["energy_std"] >= 0


def test_header_says_what_is_inside(path):
    header = read_header(path)
    assert header["version"] == 2 and header["estimator"] == "SparseGP"
    assert header["parameters"]["descriptor"]["species"] == ["Ar"]


def test_an_unfitted_model_is_not_saved(tmp_path):
    with pytest.raises(Exception, match="not fitted"):
        small_gp().save(tmp_path / "m.soapkrr")
    assert not list(tmp_path.iterdir())


# --- files that are not models ---


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.soapkrr"):
        soapkrr.load(tmp_path / "nothing.soapkrr")


def test_directory(tmp_path):
    with pytest.raises(ModelFileError, match=tmp_path.name):
        soapkrr.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", bytes(range(256)) * 40], ids=["empty", "text", "magic", "noise"])
def test_foreign_files(content, tmp_path):
    (tmp_path / "foreign").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"foreign is not a readable soapkrr model"):
        soapkrr.load(tmp_path / "foreign")


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999])
def test_truncated_files(path, fraction):
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(ModelFileError, match=r"m\.soapkrr"):
        soapkrr.load(path)


def test_flipped_bytes_in_the_arrays_are_found(path):
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        starts = [info.header_offset + 30 + len(info.filename) for info in archive.infolist()]
        sizes = [info.file_size for info in archive.infolist()]
    for start, size in zip(starts, sizes, strict=True):
        damaged = bytearray(content)
        damaged[start + size // 2] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match=r"m\.soapkrr"):
            soapkrr.load(path)


def test_foreign_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelFileError, match=r"f\.zip: .*no model\.json"):
        soapkrr.load(tmp_path / "f.zip")


def test_newer_version_says_update(path, tmp_path):
    with pytest.raises(ModelFileError, match=r"version 99 is newer than 2, .*update soapkrr"):
        soapkrr.load(rewritten(path, tmp_path / "newer.soapkrr", version=99))


def parameters(path):
    return read_header(path)["parameters"]


STATE = ("state", "state__reference_energies", "state__n_observations", "state__process", "state__process__posterior")


@pytest.mark.parametrize("key", ["format", "version", "estimator", "parameters", *STATE])
def test_missing_header_entries(path, tmp_path, key):
    with pytest.raises(ModelFileError):
        soapkrr.load(rewritten(path, tmp_path / "damaged.soapkrr", **{key: None}))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"version": "1"},
        {"estimator": "os.system"},
        {"parameters": {}},
        {"parameters": []},
        {"state__reference_energies": 3},
        {"state__reference_energies": {"Xx": 1.0}},
        {"state__process__kind": "os.system"},
    ],
    ids=str,
)
def test_header_entries_of_another_kind(path, tmp_path, changes):
    with pytest.raises(ModelFileError):
        soapkrr.load(rewritten(path, tmp_path / "damaged.soapkrr", **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": None},
        {"kernel": {"type": "system", "zeta": 2}},
        {"kernel": {"type": "DotProduct", "zeta": -1}},
        {"kernel": {"type": "DotProduct", "command": "x"}},
        {"descriptor": {"type": "DotProduct"}},
        {"surprise": 1},
    ],
    ids=str,
)
def test_parameters_of_another_kind(path, tmp_path, changes):
    with pytest.raises(ModelFileError):
        soapkrr.load(rewritten(path, tmp_path / "damaged.soapkrr", parameters=parameters(path) | changes))


def test_a_descriptor_that_does_not_fit_the_arrays(path, tmp_path):
    term = read_header(path)["state"]["process"]["terms"][0]
    changed = term | {"descriptor": term["descriptor"] | {"n_max": 2}}
    with pytest.raises(ModelFileError, match="do not fit the descriptor"):
        soapkrr.load(rewritten(path, tmp_path / "damaged.soapkrr", state__process__terms=[changed]))


ARRAYS = ["posterior.mean", "posterior.factor", "terms.0.points.0", "terms.0.transform.0"]


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("array", [None, np.zeros(3), np.ones((2, 2))], ids=["gone", "3", "2x2"])
def test_arrays_of_another_shape(path, tmp_path, name, array):
    with pytest.raises(ModelFileError, match="do not fit|members of the file"):
        soapkrr.load(rewritten(path, tmp_path / "damaged.soapkrr", {f"state.process.{name}": array}))


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("content", [None, npy(np.zeros(3)), b"\x93NUMPY", b""], ids=["gone", "3", "cut", "empty"])
def test_members_of_another_length(path, tmp_path, name, content):
    with pytest.raises(ModelFileError):
        soapkrr.load(with_member(path, tmp_path / "damaged.soapkrr", f"state.process.{name}.npy", content))


@pytest.mark.parametrize("content", [b"[1, 2]", b"{", b"\xff\xfe", b"null"])
def test_header_that_is_no_header(path, tmp_path, content):
    with pytest.raises(ModelFileError):
        soapkrr.load(with_member(path, tmp_path / "damaged.soapkrr", "model.json", content))


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_pickles_inside_are_refused_and_not_run(path, tmp_path):
    fired = tmp_path / "fired"
    content = npy(np.array([Bomb(fired)], dtype=object), allow_pickle=True)
    with pytest.raises(ModelFileError):
        soapkrr.load(with_member(path, tmp_path / "bomb.soapkrr", "mean.npy", content))
    with pytest.raises(ModelFileError):
        soapkrr.load(with_member(path, tmp_path / "bomb.soapkrr", "mean.npy", pickle.dumps(Bomb(fired))))
    assert not fired.exists()
    pickle.loads(pickle.dumps(Bomb(fired)))
    assert fired.exists()


# --- writing ---


def test_failure_in_the_middle_leaves_the_old_file(path, model, monkeypatch):
    before = path.read_bytes()

    def fail(self, name, *rest):
        raise OSError("disk full")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_interrupt_in_the_middle_leaves_no_file(tmp_path):
    def interrupted(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "m.soapkrr", interrupted)
    assert not list(tmp_path.iterdir())


def test_a_new_file_has_ordinary_permissions(path, tmp_path):
    (tmp_path / "ordinary").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)


def test_checking_leaves_nothing_behind(tmp_path):
    assert check_writable(tmp_path / "m.soapkrr") == tmp_path / "m.soapkrr"
    assert not list(tmp_path.iterdir())


def test_unwritable_paths_are_named(model, tmp_path):
    (tmp_path / "file").touch()
    for target, why in {tmp_path: "directory", tmp_path / "no" / "m": "does not exist", tmp_path / "file" / "m": "does not exist"}.items():
        with pytest.raises(InputError, match=f"cannot write .*{why}"):
            model.save(target)


def test_a_name_that_is_too_long(model, tmp_path):
    with pytest.raises((InputError, OSError), match="too long"):
        model.save(tmp_path / ("m" * 300))


def test_devices_are_not_replaced(model):
    with pytest.raises(InputError, match="not a regular file"):
        model.save(os.devnull)
