"""All, any, or some of several clusters."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.clusters.quorum import check_wanted, how_many


@pytest.mark.parametrize(("wanted", "number"), [("all", 3), ("any", 1), (2, 2), ("2", 2), (3, 3)])
def test_how_many_are_enough(wanted: Any, number: int) -> None:
    assert how_many(wanted, 3) == number


@pytest.mark.parametrize("wanted", [4, 0, -1, "most", True, 1.5, None, "4", [1], {}])
def test_what_cannot_be_met_is_named(wanted: Any) -> None:
    with pytest.raises(RayConfigError) as caught:
        how_many(wanted, 3, what="clusters of the moon")
    assert (caught.value.field, caught.value.got) == ("policy", repr(wanted))
    assert caught.value.expected == "'all', 'any' or a number from 1 to 3, the number of clusters of the moon"


@pytest.mark.parametrize("wanted", ["all", "any", 1, "7", 10**6])
def test_what_some_number_of_clusters_could_meet(wanted: Any) -> None:
    check_wanted(wanted, None)


@pytest.mark.parametrize("wanted", [0, -1, "most", "", True, 1.5, None, [1], {}])
def test_what_no_number_of_clusters_could_meet_is_named(wanted: Any) -> None:
    with pytest.raises(RayConfigError) as caught:
        check_wanted(wanted, None)
    assert (caught.value.field, caught.value.got) == ("policy", repr(wanted))
    assert caught.value.expected == "'all', 'any' or a number of at least 1"


def test_what_a_known_number_of_clusters_cannot_meet_is_named() -> None:
    check_wanted(2, 2)
    with pytest.raises(RayConfigError, match="policy: got 3; expected .* from 1 to 2, the number of clusters"):
        check_wanted(3, 2)
