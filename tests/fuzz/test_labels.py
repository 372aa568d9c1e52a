"""Labels that are right are fitted, those that cannot be used are refused, and what looks wrong is named."""

from harness import REFUSED, RIGHT, Limits, failures, run
from labels import MAKERS, attempts


def test_labels():
    """Each kind of labels with each kind of model."""
    table = run("labels", attempts(3 * len(MAKERS), seed=1), Limits(seconds=30))
    assert not failures(table)
    assert table.total()[RIGHT] > len(MAKERS) and table.total()[REFUSED] > len(MAKERS)
