from __future__ import annotations

import re
from collections import Counter

import numpy as np
from functions.generator import generate_tuples
from functions.parameters import parse_parameters

from tests.unit.ray_jobs import naive

DATA = parse_parameters(naive.job()).data


def test_tuples_equal_the_scalar_definition() -> None:
    seeds = [*range(500), 2**32 - 1, 2**32, 2**53 - 1]
    assert generate_tuples(seeds, DATA) == [naive.file_tuple(seed, naive.DATA) for seed in seeds]


def test_a_tuple_depends_on_its_seed_alone() -> None:
    whole = generate_tuples(range(100, 300), DATA)
    assert generate_tuples(range(299, 199, -1), DATA) == whole[:99:-1]
    assert generate_tuples([250], DATA) == [whole[150]]


def test_long_stems_use_as_many_words_as_they_need() -> None:
    parameters = naive.job(lengths=[1, 255])
    data = parse_parameters(parameters).data
    assert generate_tuples(range(40), data) == [naive.file_tuple(k, parameters["data-parameters"]) for k in range(40)]


def test_names_are_a_stem_of_lowercase_letters_and_an_extension() -> None:
    for _, name, priority, length in generate_tuples(range(2000), DATA):
        stem, extension = name.split(".")
        assert re.fullmatch("[a-z]+", stem) and len(stem) == length
        assert DATA.priority[extension] == priority


def test_every_choice_is_equally_likely() -> None:
    amount = 60_000
    tuples = generate_tuples(range(amount), DATA)
    pairs = Counter((priority, length) for _, _, priority, length in tuples)
    letters = Counter(letter for _, name, _, _ in tuples for letter in name.split(".")[0])
    assert len(pairs) == 36 and len(letters) == 26
    for counts in (pairs, letters):
        expected = counts.total() / len(counts)
        chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
        assert chi_square < 3 * len(counts)


def test_neighbouring_seeds_have_nothing_in_common() -> None:
    lengths = np.array([length for *_, length in generate_tuples(range(20_000), DATA)])
    assert abs(np.corrcoef(lengths[:-1], lengths[1:])[0, 1]) < 0.03
