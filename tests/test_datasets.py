"""Data that come with the package: the same as in the repository, in the wheel, read with their labels."""

import re
from configparser import ConfigParser
from importlib.metadata import metadata, requires
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

import soapkrr
from soapkrr import datasets
from soapkrr.errors import installing
from soapkrr.labels import read_labels

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["train.xyz", "test.xyz", "card.json"])
@pytest.mark.parametrize("folder", datasets.names())
def test_the_package_has_the_files_of_the_repository(folder, name):
    """To the byte, so that there is nothing to keep in step: copy `data/NAME` over after making it again."""
    assert (ROOT / "soapkrr/datasets" / folder / name).read_bytes() == (ROOT / "data" / folder / name).read_bytes()


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("name", datasets.names())
def test_sets_are_what_ase_reads(name, part):
    frames, expected = getattr(datasets.load(name), part), read(ROOT / f"data/{name}/{part}.xyz", ":")
    assert frames == expected
    for found, wanted in zip(frames, expected, strict=True):
        assert found.info["config_type"] == wanted.info["config_type"] and found.get_potential_energy() == wanted.get_potential_energy()
        np.testing.assert_array_equal(found.get_forces(), wanted.get_forces())


@pytest.mark.parametrize("name", datasets.names())
def test_sets_show_what_they_are(name):
    found = datasets.load(name)
    assert {"name", "about", "level", "labels", "licence", "citation"} == set(found.card) and found.card["name"] == name
    assert all(found.card[word] in repr(found) for word in ("about", "level", "licence")) and "<table>" in found._repr_html_()


def test_the_sets_are_small():
    assert sum(path.stat().st_size for path in (ROOT / "soapkrr/datasets").rglob("*.*")) < 4e6


def test_a_set_that_is_not_there():
    with pytest.raises(soapkrr.InputError, match=r"`name` must be one of \[.*'silicon'.*\], received 'germanium'"):
        datasets.load("germanium")


def test_silicon_is_labelled():
    train, test = datasets.silicon()
    labels = read_labels([*train, *test])
    assert sum(label.has("energy") for label in labels) == sum(label.has("forces") for label in labels) == 258
    assert sum(label.has("stress") for label in labels) == 257


def test_every_call_reads_anew():
    train, _ = datasets.silicon()
    train[0].positions += 1.0
    assert datasets.silicon().train[0] != train[0]


# --- what is installed ---


def setup() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_the_wheel_gets_every_file_that_is_no_module():
    """By the patterns of `package_data`; in CI the package is installed from a wheel, and the tests after this one look into that."""
    patterns = {package: value.split(", ") for package, value in setup()["options.package_data"].items()}
    there = {p for p in (ROOT / "soapkrr").rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc", ".nbi", ".nbc")}
    packed = {p for package, globs in patterns.items() for glob in globs for p in (ROOT / package.replace(".", "/")).glob(glob)}
    assert len(there) > 10 and there == packed


@pytest.mark.parametrize("name", ["py.typed", "datasets/silicon/train.xyz", "datasets/silicon/test.xyz", "backends/gpu/soap.cu"])
def test_what_is_installed_holds(name):
    assert (files("soapkrr") / name).is_file()


def test_metadata_of_what_is_installed():
    told = metadata("soapkrr")
    assert told["Name"] == setup()["metadata"]["name"] and setup()["metadata"]["version"] == soapkrr.__version__
    assert "SOAP" in told["Summary"] and told["Description-Content-Type"] == "text/markdown"
    assert {"numpy", "numba", "ase", "scikit-learn"} <= {re.match(r"[\w-]+", line)[0] for line in requires("soapkrr")}


# --- what to install ---


def test_messages_tell_how_to_install_from_a_checkout_too():
    assert installing("plot") == 'pip install "soapkrr[plot]" (in a checkout: pip install ".[plot]")'
    modules = [p for p in (ROOT / "soapkrr").rglob("*.py") if p.name != "errors.py"]
    texts = {p: p.read_text(encoding="utf-8") for p in modules}
    assert [name for name, text in texts.items() if "soapkrr[" in text] == []
    named = {extra for text in texts.values() for extra in re.findall(r"installing\(['\"](\w+)['\"]\)", text)}
    assert named == {"plot", "dscribe", "gpu", "distributed", "observables"} and named <= set(setup()["options.extras_require"])
