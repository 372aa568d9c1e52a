"""Model files: the same bits come back, nothing but a whole model is accepted, and writing is all or nothing."""

import errno
import io
import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import time
import tracemalloc
import zipfile
from contextlib import nullcontext
from datetime import datetime

import numpy as np
import pytest
import stored_models
from small import crystals, lennard_jones, small_gp, soap

import soapkrr
from soapkrr import DotProduct, InputError, ModelFileError, RadialScaling, SparseGP
from soapkrr.descriptors.cutoff import Cosine, Polynomial
from soapkrr.modelfile import archive, check_writable, read_header, write_whole, writing


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
        if x is None and y is None:  # the domain of a file that does not state it
            assert name == "outside"
            continue
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


# --- files written by earlier versions ---

STORED = sorted(path.name for path in stored_models.HERE.glob("*.soapkrr"))


def test_every_kind_of_every_version_is_stored():
    assert [f"{version}-{kind}.soapkrr" for version in "12" for kind in sorted(stored_models.models())] == STORED


@pytest.mark.parametrize("name", STORED)
def test_stored_files_predict_what_they_did(name):
    """Compared with the largest value of each kind; the rest is rounding of other processors."""
    found = stored_models.predictions(soapkrr.load(stored_models.HERE / name), stored_models.structures())
    wanted = json.loads((stored_models.HERE / "predictions.json").read_text())[name]
    assert found.keys() == wanted.keys()
    for kind, values in wanted.items():
        np.testing.assert_allclose(found[kind], values, rtol=0, atol=1e-9 * np.abs(values).max(), err_msg=kind)


@pytest.mark.parametrize("name", [name for name in STORED if name.startswith("1")])
def test_files_of_version_1_become_version_2(name, tmp_path):
    """The same numbers; what was not known of the fit remains unknown."""
    old = soapkrr.load(stored_models.HERE / name)
    old.save(tmp_path / "m.soapkrr")
    new, frames = soapkrr.load(tmp_path / "m.soapkrr"), stored_models.structures()
    same(old.predict(frames, uncertainty=True), new.predict(frames, uncertainty=True))
    assert new.origin_ == old.origin_ == {} and read_header(tmp_path / "m.soapkrr")["version"] == 2


# --- where a fit comes from ---


def test_software_date_and_data_are_stated(model, path):
    header = read_header(path)
    assert header["origin"] == model.origin_ == soapkrr.load(path).origin_
    assert model.origin_["software"] == f"soapkrr {soapkrr.__version__}" and len(model.origin_["data_sha256"]) == 64
    assert datetime.fromisoformat(model.origin_["date"]).tzinfo is not None


def test_saving_later_keeps_date_and_bytes(path, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 2e9)
    soapkrr.load(path).save(tmp_path / "later.soapkrr")
    assert (tmp_path / "later.soapkrr").read_bytes() == path.read_bytes()


def test_the_data_hash_is_of_structures_and_labels_in_any_order(model, frames):
    def hashed(frames):
        return small_gp().fit(frames).origin_["data_sha256"]

    moved = [atoms.copy() for atoms in frames]
    moved[0].positions[0, 0] += 1e-9
    assert hashed(frames[::-1]) == model.origin_["data_sha256"]
    assert hashed([lennard_jones(atoms, "energy", "forces") for atoms in frames]) != model.origin_["data_sha256"]
    assert hashed([lennard_jones(atoms, "energy", "forces", "stress") for atoms in moved]) != model.origin_["data_sha256"]


def test_the_data_hash_of_a_property_is_of_its_values(frames):
    values = np.linspace(1, 2, len(frames))

    def hashed(values):
        return soapkrr.PropertyGP(soap(), DotProduct(zeta=2)).fit(frames, values).origin_["data_sha256"]

    assert hashed(values) == hashed(values.copy()) != hashed(values[::-1])


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


# --- digests: nothing that was changed is loaded ---


def test_another_number_with_a_valid_crc(path, tmp_path):
    """What the checksums of the zip cannot tell."""
    name = "state.process.posterior.mean.npy"
    array = np.load(io.BytesIO(members_of(path)[name]))
    with pytest.raises(ModelFileError, match="posterior.mean is damaged or was changed"):
        soapkrr.load(with_member(path, tmp_path / "changed.soapkrr", name, npy(1.001 * array)))


def test_another_header_with_a_valid_crc(path, tmp_path):
    text = members_of(path)["model.json"].replace(b'"signal": 3.0', b'"signal": 3.5')
    with pytest.raises(ModelFileError, match=r"model\.json is damaged or was changed"):
        soapkrr.load(with_member(path, tmp_path / "changed.soapkrr", "model.json", text))


def test_a_member_that_occurs_twice(path):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as file:
        file.writestr("model.json", members_of(path)["model.json"])
    with pytest.raises(ModelFileError, match="a member occurs twice"):
        soapkrr.load(path)


def test_members_that_nothing_refers_to(path):
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(ModelFileError, match="members of the file"):
        soapkrr.load(path)


@pytest.mark.parametrize("dtype", ["<c16", "S8", "<f4", ">f8", "<i8"])
def test_arrays_of_other_types(path, tmp_path, dtype):
    array = np.zeros(12, dtype)
    with pytest.raises(ModelFileError, match="posterior.mean"):
        soapkrr.load(rewritten(path, tmp_path / "typed.soapkrr", {"state.process.posterior.mean": array}))


# --- memory: no more than three times the file ---


def peak_memory(call):
    """Bytes that a call allocates at most; it must raise `ModelFileError`."""
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_compressed_members_are_not_unpacked(path, tmp_path):
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "bomb.soapkrr", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr("state.process.more.npy", npy(np.zeros(2**24)))
    assert peak_memory(lambda: soapkrr.load(tmp_path / "bomb.soapkrr")) < 2**20


def test_an_array_is_no_larger_than_its_member(path, tmp_path):
    """A header of four rows that promises 10¹²."""
    content = npy(np.zeros((4, 4))).replace(b"(4, 4), }           ", b"(1000000, 1000000), }")
    with pytest.raises(ModelFileError, match="which its .* bytes do not hold|no array"):
        soapkrr.load(with_member(path, tmp_path / "vast.soapkrr", "state.process.posterior.factor.npy", content))


def test_loading_takes_little_more_than_the_file(tmp_path):
    """Half of the numbers of a large model are its triangles."""
    model = small_gp(n_sparse=400, threads=1).fit(crystals(120))
    model.save(tmp_path / "large.soapkrr")
    soapkrr.load(tmp_path / "large.soapkrr")
    tracemalloc.start()
    soapkrr.load(tmp_path / "large.soapkrr")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * (tmp_path / "large.soapkrr").stat().st_size + 2**20


# --- files with right digests whose contents cannot be ---


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"parameters__signal": -1.0}, "`signal` must be a positive"),
        ({"parameters__noise": {"energy": 0.0}}, "noise..energy... must be a positive"),
        ({"parameters__baseline": 3}, "`baseline` must be a mapping"),
        ({"parameters__baseline": 7}, "`baseline` must be a mapping"),
        ({"parameters__baseline": {"Ar": float("nan")}}, "`baseline` must give elements a finite energy"),
        ({"parameters__baseline": [{"type": "DotProduct"}]}, "`baseline` must be"),
        ({"parameters__observations": {"type": "DotProduct"}}, "`observations` must be"),
        ({"parameters__representers": "atoms"}, "`representers` must be"),
        ({"parameters__tolerance": 2.0}, "`tolerance` is a fraction"),
        ({"parameters__descriptor__r_cut": 1e9}, "`r_cut` must be at most 100"),
        ({"parameters__descriptor__cutoff__width": 1e-12}, "larger than 256 MiB"),
        ({"state__noise": {"energy": -0.1}}, "noise.'energy'. is -0.1, expected a positive"),
        ({"state__noise": {"charge": 0.1}}, "noise and triangles are of"),
        ({"state__n_observations": {"energy": 1.5}}, "n_observations.'energy'. is 1.5, expected an integer"),
        ({"state__reference_energies": {"Ar": float("inf")}}, "reference_energies.'Ar'. is inf"),
        ({"state__reference_energies": {"Ar": "1"}}, "reference_energies.'Ar'. is '1'"),
        ({"state__process__posterior__condition": -1.0}, "posterior.condition is -1.0"),
        ({"state__process__terms": []}, "members of the file"),
        ({"origin": {"date": 3}}, "`origin` may state"),
    ],
    ids=str,
)
def test_values_out_of_range(path, tmp_path, changes, match):
    with pytest.raises(ModelFileError, match=match):
        soapkrr.load(rewritten(path, tmp_path / "changed.soapkrr", **changes))


@pytest.mark.parametrize("signal", [-3.0, 0.0, float("nan"), float("inf"), "3", None, True])
def test_signals_are_positive_and_finite(path, tmp_path, signal):
    term = read_header(path)["state"]["process"]["terms"][0]
    with pytest.raises(ModelFileError, match="signal"):
        soapkrr.load(rewritten(path, tmp_path / "changed.soapkrr", state__process__terms=[term | {"signal": signal}]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", sorted(stored_models.models()))
def test_arrays_are_finite(kind, value, tmp_path):
    """Every array of numbers of every kind, one after the other."""
    path = stored_models.HERE / f"2-{kind}.soapkrr"
    declared = read_header(path)["arrays"]
    for name in [name for name, entry in declared.items() if entry["dtype"] == "<f8" and np.prod(entry["shape"])]:
        array = np.load(io.BytesIO(members_of(path)[f"{name}.npy"]))
        array.flat[-1] = value
        unknown = name.endswith("sigma") and np.isnan(value)
        with nullcontext() if unknown else pytest.raises(ModelFileError, match="not finite"):
            soapkrr.load(rewritten(path, tmp_path / "changed.soapkrr", {name: array}))


def test_structures_of_an_exact_process_fit_its_environments(tmp_path):
    path = stored_models.HERE / "2-exact-cholesky.soapkrr"
    for name, array in {"numbers": np.array([18] * 5 + [10]), "sizes": np.array([2, 2, 3]), "positions": np.zeros((5, 3))}.items():
        with pytest.raises(ModelFileError):
            soapkrr.load(rewritten(path, tmp_path / "changed.soapkrr", {f"state.process.structures.{name}": array}))


def test_version_1_is_checked_too(tmp_path):
    path = stored_models.HERE / "1-sparse-terms.soapkrr"
    for changes in ({"parameters__baseline": 3}, {"noise": {"energy": -1.0}}):
        with pytest.raises(ModelFileError):
            soapkrr.load(rewritten(path, tmp_path / "changed.soapkrr", **changes))


# --- writing ---


def with_room(write, room):
    """The function ``write`` on a disk with room for so many bytes."""
    written = 0

    def counted(content):
        nonlocal written
        written += len(content)
        if written > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(content)

    return counted


def test_a_disk_that_is_full_anywhere(model, path, monkeypatch, tmp_path):
    """Wherever it happens, one error that names the file; the old file and the model stay."""
    before, size = path.read_bytes(), path.stat().st_size
    for room in np.linspace(0, size - 1, 40).astype(int):

        def limited(handle, mode, room=room):
            file = open(handle, mode)
            file.write = with_room(file.write, room)
            return file

        with monkeypatch.context() as patch:
            patch.setattr(writing, "open", limited, raising=False)
            with pytest.raises(OSError, match=r"No space left on device: .*m\.soapkrr") as caught:
                model.save(path)
        assert caught.value.errno == errno.ENOSPC
        assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    model.save(tmp_path / "elsewhere.soapkrr")
    assert (tmp_path / "elsewhere.soapkrr").read_bytes() == before


@pytest.mark.parametrize("name", ["fsync", "replace", "chmod"])
def test_a_disk_that_fails_at_the_end(model, path, monkeypatch, name):
    before = path.read_bytes()

    def fails(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, name, fails)
    with pytest.raises(OSError, match=r"No space left on device: .*m\.soapkrr"):
        model.save(path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_file_and_folder_are_on_the_disk_before_success(model, tmp_path, monkeypatch):
    """The file before it gets its name, the folder after that."""
    calls, fsync, replace = [], os.fsync, os.replace

    def synced(handle):
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def replaced(*paths):
        calls.append("name")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    model.save(tmp_path / "m.soapkrr")
    assert calls == ["file", "name", "folder"]


def test_a_symbolic_link_stays(model, tmp_path):
    (tmp_path / "folder").mkdir()
    link, target = tmp_path / "link", tmp_path / "folder" / "m.soapkrr"
    for there in (False, True):
        link.unlink(missing_ok=True)
        link.symlink_to("folder/m.soapkrr")
        assert target.exists() == there
        model.save(link)
        assert link.is_symlink() and os.readlink(link) == "folder/m.soapkrr" and target.is_file() and not target.is_symlink()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["folder", "link", "m.soapkrr"]
    soapkrr.load(link)


def test_links_that_lead_nowhere(model, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("no/m.soapkrr")
    for name in ("loop", "gone"):
        with pytest.raises(InputError, match=f"cannot write .*{name}"):
            model.save(tmp_path / name)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_mode_of_a_replaced_file_is_kept(model, path, mode):
    path.chmod(mode)
    model.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_sigterm_in_the_middle_leaves_no_file(tmp_path):
    (tmp_path / "m.soapkrr").write_bytes(b"old")
    code = (
        "import os, signal, sys\n"
        "from soapkrr.modelfile import write_whole\n"
        "def write(file):\n    file.write(b'half'); os.kill(os.getpid(), signal.SIGTERM); print('survived')\n"
        "write_whole(sys.argv[1], write)"
    )
    ended = subprocess.run([sys.executable, "-c", code, tmp_path / "m.soapkrr"], capture_output=True)
    assert ended.returncode == -signal.SIGTERM and ended.stdout == b""
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_sigterm_is_left_to_who_handles_it(tmp_path):
    """A program's own handler is not replaced, and the default one is back afterwards."""
    own = lambda *args: None  # noqa: E731
    for handler in (own, signal.SIG_DFL):
        before = signal.signal(signal.SIGTERM, handler)
        try:
            write_whole(tmp_path / "m", lambda file: file.write(b"whole"))
            assert signal.getsignal(signal.SIGTERM) is handler
        finally:
            signal.signal(signal.SIGTERM, before)


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
