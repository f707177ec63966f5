from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from functions.division import BLOCK, division_round_robin
from functions.generator import generate_tuples
from functions.parameters import parse_parameters
from functions.statistics import VALUES, batch_statistics, letter_numbers, summarize

from tests.unit.ray_jobs import naive


def summaries(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """The job's output without Ray in between."""
    job = parse_parameters(parameters)
    result = []
    for worker, share in enumerate(division_round_robin(job.data, job.process.worker_number), 1):
        rows = batch_statistics(share, job.data)
        actor = (worker - 1) % job.process.actor_number + 1
        rows["worker"], rows["actor"], rows["batch"] = worker, actor, np.arange(1, len(rows) + 1)
        result += summarize(worker, actor, rows, job.data.stats_batch)
    return result


@pytest.mark.parametrize(
    "parameters",
    [
        naive.job(),
        naive.job(workers=3, actors=2, amount=101, tuple_batch=7, stats_batch=4),
        naive.job(workers=1, actors=4, amount=30, tuple_batch=5, stats_batch=3),
        naive.job(amount=40, tuple_batch=1, stats_batch=1),
        naive.job(amount=9, tuple_batch=1000, stats_batch=1000),
        naive.job(workers=9, amount=9),
        naive.job(workers=1, actors=1, amount=1),
        naive.job(offset=2**53 - 53),
        naive.job(
            extensions=["7z", "tar.gz", "MP3", "²", "1"], priority={"7z": -3, "tar.gz": 0, "MP3": 2, "²": 2, "1": 7}
        ),
        naive.job(lengths=[1, 255, 1, 64]),
        naive.job(amount=5000, tuple_batch=999, stats_batch=2),
    ],
)
def test_summaries_equal_those_of_the_tuples_one_by_one(parameters: dict[str, Any]) -> None:
    found, expected = summaries(parameters), naive.output(parameters)
    plain = ("id", "workers", "actors", "batches", "counts")
    assert [[row[key] for key in plain] for row in found] == [[row[key] for key in plain] for row in expected]
    for value in VALUES:
        for key in ("mean", "variance"):
            actual, desired = ([number for row in rows for number in row[value][key]] for rows in (found, expected))
            np.testing.assert_allclose(actual, desired, rtol=1e-12, atol=1e-12)


def test_statistics_equal_numpys_own_of_the_real_tuples() -> None:
    data = parse_parameters(naive.job(workers=1, amount=2003, offset=10_000_000)).data
    (share,) = division_round_robin(data, 1)
    rows = batch_statistics(share, data)
    for row, batch in zip(rows, naive.batches((share + data.offset).tolist(), 5), strict=True):
        seeds, names, priorities, lengths = zip(*generate_tuples(batch, data), strict=True)
        letters = [number for name in names for number in letter_numbers(name)]
        for value, numbers in zip(VALUES, (seeds, letters, priorities, lengths), strict=True):
            np.testing.assert_allclose(row[value], [np.mean(numbers), np.var(numbers)], rtol=1e-12, atol=1e-12)


def test_every_tuple_counts_exactly_once() -> None:
    rows = summaries(naive.job(workers=3, amount=10_007, offset=1_000_003, tuple_batch=7))
    counts = np.array([count for row in rows for count in row["counts"]])
    means = np.array([mean for row in rows for mean in row["seed"]["mean"]])
    assert counts.sum() == 10_007
    assert round(float(counts @ means)) == sum(range(1_000_003, 1_000_003 + 10_007))


def test_variance_of_few_large_seeds_loses_no_digits() -> None:
    data = parse_parameters(naive.job(workers=1, amount=5, offset=2**52)).data
    (row,) = batch_statistics(np.arange(5, dtype=np.uint32), data)
    assert row["seed"].tolist() == [2**52 + 2, 2]


def test_a_single_letter_has_no_variance() -> None:
    parameters = naive.job(amount=300, lengths=[1], extensions=["1"], priority={"1": 1}, tuple_batch=1)
    data = parse_parameters(parameters).data
    rows = batch_statistics(np.arange(300, dtype=np.uint32), data)
    letters = [letter_numbers(name) for _, name, _, _ in generate_tuples(range(300), data)]
    assert rows["name"].tolist() == [[letter, 0] for (letter,) in letters]


def test_results_do_not_depend_on_where_a_chunk_or_a_block_begins() -> None:
    data = parse_parameters(naive.job(amount=2 * BLOCK, tuple_batch=64)).data
    tuples = np.arange(2 * BLOCK, dtype=np.uint32)
    cut = 64 * 300
    parts = [batch_statistics(tuples[:cut], data), batch_statistics(tuples[cut:], data)]
    assert np.array_equal(np.concatenate(parts), batch_statistics(tuples, data))


def test_letters_are_counted_without_digits_and_dots() -> None:
    assert letter_numbers("aZ.7b") == [1, 26, 2]
