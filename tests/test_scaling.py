import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddcore.files import records
from ddcore.lab.scaling import span, used

LENGTHS = st.lists(st.floats(0.1, 100), min_size=1, max_size=30)


@given(LENGTHS, st.integers(1, 10))
def test_no_order_ends_before_its_bounds_or_after_grahams(lengths, workers):
    """List scheduling ends within sum / workers + (1 - 1 / workers) * longest (Graham, 1966)."""
    found, mean, longest = span(lengths, workers), sum(lengths) / workers, max(lengths)
    assert max(mean, longest) * (1 - 1e-9) <= found <= (mean + (1 - 1 / workers) * longest) * (1 + 1e-9)
    assert used(lengths, workers) == pytest.approx(mean / found)


def test_by_hand():
    assert span([3, 3, 2, 2, 2], 2) == 7
    assert span([1, 1, 10], 2) == 11
    assert span([10, 1, 1], 2) == 10
    assert span([1.0] * 12, 4) == 3
    assert span([5.0], 100) == 5


def test_the_table_of_the_page_is_what_it_says():
    """Of the records as they are now within a quarter; of its own rounded numbers exactly."""
    page = (records.TOP / "notebooks" / "CLUSTER.md").read_text(encoding="utf-8")
    rows = [
        line.split("|")[1:4]
        for line in page.splitlines()
        if re.match(r"\| [\d,]+ \| [\d.]+ \| \d+ % \|", line)
    ]
    table = [
        (int(workers.replace(",", "")), float(hours), float(share.strip(" %")))
        for workers, hours, share in rows
    ]
    assert [workers for workers, _, _ in table] == [1, 10, 100, 300, 1000]
    lengths = [
        record.provenance["seconds"] for record in records.read_all(records.SHIPPED / "figures" / "records")
    ]
    generator = random.Random(0)
    drawn = [generator.choice(lengths) for _ in range(10_000)]
    for workers, hours, share in table:
        assert 100 * table[0][1] / (workers * hours) == pytest.approx(share, abs=5 / hours + 1)
        assert span(drawn, workers) / 3600 == pytest.approx(hours, rel=0.25)
        assert 100 * used(drawn, workers) == pytest.approx(share, rel=0.25)
