"""Every Python block of the README and of each page of the documentation runs, in order, on a small train.xyz; what they name exists."""

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

import soapkrr
from soapkrr.cli import options

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = {page: [(text.count("\n", 0, m.start(1)), m[1]) for m in BLOCK.finditer(text)] for page, text in PAGES.items()}


def silicon(n: int):
    """Rattled diamond cells of two atoms with Lennard-Jones labels, under ASE's names and others, of two config types."""
    rng, frames = np.random.default_rng(0), []
    for k in range(n):
        atoms = bulk("Si", a=rng.uniform(5.2, 5.7))
        atoms.positions += 0.1 * rng.standard_normal((2, 3))
        calculator = LennardJones(sigma=2.1, epsilon=0.5, rc=6.0, smooth=True)
        labels = {kind: calculator.get_property(kind, atoms) for kind in ("energy", "forces", "stress")}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        atoms.info |= {"config_type": ["crystal", "liquid"][k % 2], "dft_energy": labels["energy"]}
        atoms.arrays["dft_forces"] = labels["forces"]
        frames.append(atoms)
    return frames


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A temporary folder, the current one, with the README's train.xyz."""
    write(tmp_path / "train.xyz", silicon(26))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    pyplot.close("all")


def test_the_pages_have_blocks():
    assert {page: text.count("```python") for page, text in PAGES.items()} == {page: len(blocks) for page, blocks in BLOCKS.items()}
    assert len([page for page, blocks in BLOCKS.items() if blocks]) >= 7


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if blocks])
def test_every_python_block_runs(folder, page):
    namespace: dict = {}
    for line, block in BLOCKS[page]:
        exec(compile("\n" * line + block, page, "exec"), namespace)


def test_the_fit_that_chooses_everything():
    assert "`soapkrr.fit(frames)` chooses everything" in PAGES["docs/fitting.md"]
    assert soapkrr.fit(silicon(6)).choices_


def test_every_option_in_the_text_exists():
    parsers = [options.build_parser(words) for words in ((), ("--reference",))]  # `relax` has two faces
    help_text = "".join(sub.format_help() for parser in parsers for sub in parser._subparsers._group_actions[0].choices.values())
    text = "".join(text for page, text in PAGES.items() if page not in ("docs/coming-from.md", "docs/changelog.md"))
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--check"}
    assert {"--optimize", "--by", "--config-noise", "--json"} <= mentioned
    assert {option for option in mentioned if option not in help_text} == set()


def test_every_name_in_the_table_is_public():
    page = PAGES["docs/fitting.md"]
    table = page[page.index("## What there is") : page.index("## A sum of terms")]
    names = set(re.findall(r"`([A-Z]\w+)[`(]", table)) - {"REMatchKernel", "GroupKFold", "GridSearchCV", "Pipeline"}
    assert {"SOAP", "KernelRidge", "CalculatorBaseline", "GivenPoints"} <= names <= set(soapkrr.__all__)


@pytest.mark.parametrize("page", PAGES)
def test_links_into_the_repository_lead_somewhere(page):
    folder = (ROOT / page).parent
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGES[page]) if "://" not in link]
    assert [link for link in links if not (folder / link).exists()] == []


def test_every_public_name_is_in_the_reference():
    named = set(re.findall(r":: soapkrr\.(\w+)$", PAGES["docs/api.md"], re.MULTILINE))
    assert named == {name for name in soapkrr.__all__ if callable(getattr(soapkrr, name))}
