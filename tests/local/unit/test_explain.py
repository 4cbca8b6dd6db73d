"""`make explain`: which transfer is meant, and how the sweeper's answer reads."""

import pytest

from landfall_local import explain
from landfall_local.settings import Problem
from landfall_local.tracking import Transfer


def transfer(identifier: str, tenant: str = "harbour-key") -> Transfer:
    return Transfer(tenant, identifier, None, "OPEN", None, "", None, 0, 0, 0)


class Seen:
    """A table with these transfers."""

    def __init__(self, *transfers: Transfer):
        self._transfers = list(transfers)

    def transfers(self) -> list[Transfer]:
        return self._transfers


def test_a_transfer_is_found_by_its_id_or_by_the_beginning_of_it():
    seen = Seen(transfer("4d241343-aa"), transfer("eea99dc7-bb"))
    for wanted in ("4d241343-aa", "4d241343"):
        assert explain.find(seen, wanted, None).identifier == "4d241343-aa"


def test_a_whole_id_that_another_one_begins_with_is_meant_as_it_is():
    assert explain.find(Seen(transfer("t-1"), transfer("t-10")), "t-1", None).identifier == "t-1"


def test_a_site_tells_two_transfers_of_one_id_apart():
    seen = Seen(transfer("t-1", "harbour-key"), transfer("t-1", "lagoon-key"))
    assert explain.find(seen, "t-1", "lagoon-key").tenant == "lagoon-key"
    with pytest.raises(Problem, match="more than one.*SITE=name"):
        explain.find(seen, "t-1", None)


def test_a_transfer_that_nobody_has_seen_is_named_as_such():
    with pytest.raises(Problem, match="no transfer t-9 was ever seen here"):
        explain.find(Seen(transfer("t-1")), "t-9", None)


def test_a_transfer_of_another_site_is_not_shown_as_this_ones():
    with pytest.raises(Problem, match="another site's"):
        explain.find(Seen(transfer("t-1", "harbour-key")), "t-1", "lagoon-key")


def test_the_verdict_stands_first_and_every_entry_has_its_time_its_function_and_its_cause():
    answer = {
        "verdict": "waiting for the server app's first file since 22 Nov 07:00 UTC",
        "health": {"waiting_for": {}},
        "timeline": [
            {"at_ms": 1_763_794_800_007, "by": "processor", "what": "saw the transfer for the first time", "cause": None},
            {"at_ms": 1_763_794_860_000, "by": "sweeper", "what": "queued an event again: nobody had handled it", "cause": "m-1"},
        ],
    }
    assert explain.words(answer).splitlines() == [
        "waiting for the server app's first file since 22 Nov 07:00 UTC",
        "",
        "2025-11-22 07:00:00.007 UTC  processor  saw the transfer for the first time",
        "2025-11-22 07:01:00.000 UTC  sweeper    queued an event again: nobody had handled it  [m-1]",
    ]
