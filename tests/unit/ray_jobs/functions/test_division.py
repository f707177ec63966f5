from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from functions.division import BLOCK, division_round_robin, sort_keys
from functions.parameters import parse_parameters

from tests.unit.ray_jobs import naive


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 53])
@pytest.mark.parametrize(
    "data",
    [
        {},
        {"offset": 10_007},
        {"priority": {"txt": -5, "py": 9, "md": 9, "ipynb": 0, "yaml": 2**31, "sh": -(2**31)}},
        {"lengths": [7, 2, 2, 5]},
        {"lengths": list(range(1, 256))},
    ],
)
def test_shares_equal_the_round_robin_over_the_sorted_tuples(workers: int, data: dict[str, Any]) -> None:
    parameters = naive.job(workers, **data)
    expected = naive.division(parameters["data-parameters"], workers)
    offset = parameters["data-parameters"]["offset"]
    shares = division_round_robin(parse_parameters(parameters).data, workers)
    assert [(share + offset).tolist() for share in shares] == [[t[0] for t in share] for share in expected]


def test_every_tuple_is_dealt_once_across_blocks() -> None:
    data = parse_parameters(naive.job(amount=3 * BLOCK + 17)).data
    shares = division_round_robin(data, 7)
    assert np.array_equal(np.sort(np.concatenate(shares)), np.arange(data.amount))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("extensions", "size"), [(1, 1), (2, 2), (300, 4)])
def test_keys_take_the_smallest_type_that_holds_every_rank(extensions: int, size: int) -> None:
    names = [f"e{number}" for number in range(extensions)]
    priority = {name: number for number, name in enumerate(names)}
    parameters = naive.job(lengths=list(range(1, 256)), extensions=names, priority=priority)
    keys = sort_keys(parse_parameters(parameters).data)
    assert keys.dtype.itemsize == size
    tuples = [naive.file_tuple(seed, parameters["data-parameters"]) for seed in range(53)]
    assert keys.tolist() == [priority * 255 + length - 1 for _, _, priority, length in tuples]
