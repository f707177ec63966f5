from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ray.client.config import ClusterConfig
from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.client.labels import read_labels


@pytest.mark.parametrize(
    "labels", [{"site": "hpc", "gpu": "true"}, "site=hpc,gpu=true", " site = hpc , gpu=true\n"], ids=repr
)
def test_an_object_and_a_string_say_the_same(labels: Any) -> None:
    assert read_labels({"labels": labels}) == {"site": "hpc", "gpu": "true"}
    assert ClusterConfig.from_fields(host="h", extra={"labels": labels}).labels == {"site": "hpc", "gpu": "true"}


@pytest.mark.parametrize("extra", [{}, {"labels": None}, {"labels": ""}, {"labels": {}}], ids=repr)
def test_none_are_no_error(extra: dict[str, Any]) -> None:
    assert read_labels(extra) == {}


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        (["site"], "list"),
        (True, "bool"),
        ({"gpu": True}, "True of type bool"),
        ({"gpu": None}, "None of type NoneType"),
        ({1: "a"}, "1 of type int"),
        ({"a,b": "c"}, "'a,b'"),
        ({"a": "b=c"}, "'b=c'"),
        ({"a": "b c"}, "'b c'"),
        ({"a": ""}, "''"),
        ({"": "a"}, "''"),
        ("site", "'site'"),
        ("site=", "'site=' without a value"),
        ("=hpc", "'=hpc' without a key"),
        ("site=hpc,", "''"),
        ("site=hpc,site=lab", "'site' twice"),
        ("site=hpc, gpu =", "'gpu =' without a value"),
        ("a=b=c", "'b=c'"),
        ("a=b c", "'b c'"),
        (" ", "''"),
    ],
    ids=repr,
)
def test_what_is_none_is_named(labels: Any, got: str) -> None:
    with pytest.raises(RayConfigError) as caught:
        read_labels({"labels": labels})
    assert caught.value.field == "labels"
    assert caught.value.got == got
