"""`make test` counts what it runs."""

import pytest

from landfall_local import verify
from landfall_local.verify import Count


@pytest.mark.parametrize(("script", "count"), [("exit 0", Count(1, 0)), ("exit 1", Count(0, 1)), ("exec sleep 30", Count(0, 1))])
def test_a_simulation_is_one_test_that_passes_or_fails_and_one_that_hangs_is_ended(monkeypatch, script, count):
    monkeypatch.setattr(verify, "binary", lambda _: "/bin/sh")
    monkeypatch.setattr(verify, "_SIMULATION_SECONDS", 1)
    assert verify._simulation("a run", ("-c", script)) == count


def test_the_end_of_a_test_program_is_counted():
    line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.42s"
    assert [int(number) for number in verify._RESULT.match(line).groups()] == [12, 3]
