"""Dividing work over clusters."""

from __future__ import annotations

import random

import pytest

from airflow_provider_ray.client.errors import RayConfigError
from airflow_provider_ray.fan_out.division import Piece, divide_items, divide_range, read_weights, weighted_shares

GIB = 2**30
WEIGHTS = {"CPU": 0.6, "memory": 0.2, "GPU": 0.2}


def test_each_resource_is_compared_with_the_largest_cluster() -> None:
    clusters = [{"CPU": 8.0, "memory": 16.0 * GIB}, {"CPU": 4.0, "memory": 32.0 * GIB, "GPU": 2.0}]
    # 0.6 * 1 + 0.2 * 0.5 and 0.6 * 0.5 + 0.2 * 1 + 0.2 * 1
    assert weighted_shares(clusters, WEIGHTS) == pytest.approx([0.7 / 1.4, 0.7 / 1.4])
    assert weighted_shares(clusters, {"CPU": 3}) == pytest.approx([2 / 3, 1 / 3])
    assert weighted_shares(clusters, {"GPU": 1, "memory": 0}) == [0.0, 1.0]


def test_the_unit_of_a_resource_does_not_matter() -> None:
    sizes = [1.0, 3.0, 4.0]
    in_bytes = weighted_shares([{"CPU": 2.0, "memory": size * GIB} for size in sizes], WEIGHTS)
    assert in_bytes == pytest.approx(weighted_shares([{"CPU": 2.0, "memory": size} for size in sizes], WEIGHTS))


def test_a_cluster_with_nothing_free_gets_nothing() -> None:
    shares = weighted_shares([{"CPU": 4.0}, {}, {"CPU": 4.0}], {"CPU": 1})
    assert shares == [0.5, 0.0, 0.5]
    assert [piece.amount for piece in divide_range(401, shares)] == [201, 0, 200]
    assert divide_items("abc", [1, 1, 1], shares)[1] == []


def test_nothing_anywhere_is_no_share_for_anybody() -> None:
    assert weighted_shares([{}, {"memory": 1.0}], {"CPU": 1}) == [0.0, 0.0]


def test_a_custom_resource_has_to_be_known_to_a_cluster() -> None:
    assert weighted_shares([{"tpu": 1.0}, {}], {"tpu": 1}) == [1.0, 0.0]
    assert weighted_shares([{}, {}], {"tpu": 1}, known=[{"tpu": 4.0}]) == [0.0, 0.0]
    with pytest.raises(RayConfigError, match=r"weights: got unknown resources \['gpus'\]; expected some of .*'GPU'"):
        weighted_shares([{"CPU": 1.0}], {"CPU": 1, "gpus": 1})


@pytest.mark.parametrize(
    ("weights", "field", "named"),
    [
        ({"CPU": -0.1, "GPU": 1}, "weights['CPU']", "-0.1"),
        ({"CPU": "much"}, "weights['CPU']", "'much'"),
        ({"CPU": True}, "weights['CPU']", "True"),
        ({"CPU": float("nan")}, "weights['CPU']", "nan"),
        ({"CPU": float("inf")}, "weights['CPU']", "inf"),
        ({1: 1}, "weights", "1: 1"),
        ({"CPU": 0, "GPU": 0.0}, "weights", "{'CPU': 0, 'GPU': 0}"),
        ({"cpu": 1}, "weights", "'cpu'"),
        ("CPU", "weights", "'CPU'"),
    ],
)
def test_weights_that_cannot_divide_are_named(weights: object, field: str, named: str) -> None:
    with pytest.raises(RayConfigError) as caught:
        read_weights(weights)
    assert (caught.value.field, caught.value.got) == (field, named)


@pytest.mark.parametrize(("given", "read"), [({"CPU": "0.5", "TPU": 1}, {"CPU": 0.5, "TPU": 1}), ({}, {}), (None, {})])
def test_weights_may_be_text_or_none_at_all(given: object, read: dict[str, float]) -> None:
    assert read_weights(given) == read


def test_pieces_follow_each_other() -> None:
    assert divide_range(10, [0.5, 0.3, 0.2], offset=7) == [Piece(7, 5), Piece(12, 3), Piece(15, 2)]


def test_what_rounding_leaves_goes_to_the_largest_remainder() -> None:
    assert [piece.amount for piece in divide_range(10, [1, 1, 1])] == [4, 3, 3]
    assert [piece.amount for piece in divide_range(10, [0.55, 0.28, 0.17])] == [5, 3, 2]
    assert [piece.amount for piece in divide_range(2, [1, 0, 1])] == [1, 0, 1]
    assert [piece.amount for piece in divide_range(0, [1, 1])] == [0, 0]


def test_every_number_is_in_one_piece_however_large_the_range() -> None:
    chance = random.Random(4)
    for _ in range(300):
        shares = [chance.choice([0.0, chance.random(), 1e-12, 1e12]) for _ in range(chance.randint(1, 9))] + [0.1]
        amount, offset = chance.choice([0, 1, 7, 400, 10**9, 10**18 + 7]), chance.randint(0, 99)
        end = offset
        for piece, share in zip(divide_range(amount, shares, offset), shares, strict=True):
            assert piece.offset == end
            assert piece.amount >= 0
            assert share or not piece.amount
            end += piece.amount
        assert end == offset + amount


def test_the_heaviest_item_goes_first_and_to_where_it_weighs_least() -> None:
    # 8 -> a (8/3 < 8/1), 5 -> a (13/3 < 5/1), 4 -> b (17/3 > 4/1), 3 -> a (16/3 < 7/1)
    assert divide_items(["c", "e", "h", "d"], [3, 5, 8, 4], [3, 1]) == [["c", "e", "h"], ["d"]]


def test_every_item_goes_to_one_cluster_and_the_loads_fit_the_shares() -> None:
    chance = random.Random(5)
    for _ in range(50):
        sizes = [chance.uniform(1, 10) for _ in range(400)]
        shares = [chance.uniform(0.1, 1) for _ in range(chance.randint(2, 6))]
        divided = divide_items(range(400), sizes, shares)
        assert sorted(number for numbers in divided for number in numbers) == list(range(400))
        assert divided == divide_items(range(400), sizes, shares)
        loads = [
            sum(sizes[number] for number in numbers) / share for numbers, share in zip(divided, shares, strict=True)
        ]
        fair = sum(sizes) / sum(shares)
        assert max(loads) - fair < max(sizes) / min(shares)
        assert all(load == pytest.approx(fair, rel=0.2) for load in loads)


def test_items_without_size_are_divided_too() -> None:
    divided = divide_items(["a", "b", "c"], [0, 0, 0], [1, 1])
    assert sorted(item for items in divided for item in items) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("divide", "field"),
    [
        (lambda: divide_range(-1, [1]), "amount"),
        (lambda: divide_range(1.5, [1]), "amount"),  # type: ignore[arg-type]
        (lambda: divide_range(1, [1], offset=-1), "offset"),
        (lambda: divide_range(1, [0, 0]), "shares"),
        (lambda: divide_range(1, []), "shares"),
        (lambda: divide_range(1, [1, -1]), "shares"),
        (lambda: divide_items(["a"], [-1], [1]), "sizes"),
        (lambda: divide_items(["a"], [float("nan")], [1]), "sizes"),
        (lambda: divide_items(["a"], [], [1]), "sizes"),
        (lambda: divide_items(["a", "b"], [10**400, 1], [1]), "sizes"),
        (lambda: divide_items(["a"], [1], [0]), "shares"),
    ],
)
def test_what_cannot_be_divided_is_named(divide: object, field: str) -> None:
    with pytest.raises(RayConfigError) as caught:
        divide()  # type: ignore[operator]
    assert caught.value.field == field
