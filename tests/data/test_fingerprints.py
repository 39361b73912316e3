"""What two processes of a job compare of their data."""

import numpy as np

from nightjax.data import fingerprints
from nightjax.data.conversion import ConvertedSource
from nightjax.data.sources import JoinedSource, ListSource


def records(count=40, changed=()):
    return [
        {"image_id": f"{i}", "image": b"\x00" * (5 + (i in changed)), "gps": np.full(2, np.nan)} for i in range(count)
    ]


def test_equal_records_have_equal_facts_in_any_order_of_their_fields():
    one = ListSource(records())
    other = ListSource([dict(reversed(record.items())) for record in records()])
    assert fingerprints.facts(one) == fingerprints.facts(other)


def test_other_records_have_other_facts():
    facts = fingerprints.facts(ListSource(records()))
    assert facts != fingerprints.facts(ListSource(records(changed=(0,))))
    assert facts != fingerprints.facts(ListSource(records(41)))
    joined = fingerprints.facts(JoinedSource([ListSource(records(3)), ListSource(records(4))]))
    assert [part["records"] for part in joined["parts"]] == [3, 4]


def test_what_is_stored_counts_not_what_labels_become():
    source = ListSource(records())
    converted = ConvertedSource(source, np.zeros(256, np.uint8), source.classes)
    assert fingerprints.facts(converted) == fingerprints.facts(source)
