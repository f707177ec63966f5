"""The job's results worked out the slow and obvious way: one tuple, one batch, one word at a time."""

from __future__ import annotations

from fractions import Fraction
from statistics import mean, pvariance
from typing import Any

MASK = 2**64 - 1
GOLDEN_GAMMA = 0x9E3779B97F4A7C15

DATA: dict[str, Any] = {
    "amount": 53,
    "offset": 0,
    "lengths": [2, 3, 4, 5, 6, 7],
    "extensions": ["txt", "py", "md", "ipynb", "yaml", "sh"],
    "priority": {"txt": 1, "py": 2, "md": 3, "ipynb": 4, "yaml": 5, "sh": 6},
    "tuple-batch": 5,
    "stats-batch": 5,
}


def job(workers: int = 2, actors: int = 2, serve: dict[str, Any] | None = None, **data: Any) -> dict[str, Any]:
    """The job's input with some of its data parameters replaced."""
    return {
        "process-parameters": {"worker-number": workers, "actor-number": actors},
        "storage-parameters": {},
        "data-parameters": DATA | {key.replace("_", "-"): value for key, value in data.items()},
        "serve-parameters": serve or {},
    }


def mix(word: int) -> int:
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK
    return word ^ (word >> 31)


def random_word(seed: int, index: int) -> int:
    return mix((mix(seed * GOLDEN_GAMMA & MASK) + index * GOLDEN_GAMMA) & MASK)


def file_tuple(seed: int, data: dict[str, Any]) -> tuple[int, str, int, int]:
    word = random_word(seed, 0)
    extension = data["extensions"][(word >> 32) * len(data["extensions"]) >> 32]
    length = data["lengths"][(word & 0xFFFFFFFF) * len(data["lengths"]) >> 32]
    stem = ""
    for position in range(length):
        bits = random_word(seed, 1 + position // 4) >> (16 * (position % 4)) & 0xFFFF
        stem += chr(ord("a") + (bits * 26 >> 16))
    return seed, f"{stem}.{extension}", data["priority"][extension], length


def division(data: dict[str, Any], number: int) -> list[list[tuple[int, str, int, int]]]:
    tuples = [file_tuple(seed, data) for seed in range(data["offset"], data["offset"] + data["amount"])]
    lists: list[list[tuple[int, str, int, int]]] = [[] for _ in range(number)]
    for index, element in enumerate(sorted(tuples, key=lambda t: (t[-2], t[-1]))):
        lists[index % number].append(element)
    return lists


def letter_numbers(text: str) -> list[int]:
    return [ord(c.lower()) - ord("a") + 1 for c in text if c.isalpha()]


def batches(share: list[Any], size: int) -> list[list[Any]]:
    return [share[start : start + size] for start in range(0, len(share), size)]


def statistics(batch: list[tuple[int, str, int, int]]) -> dict[str, tuple[float, float]]:
    seeds, names, priorities, lengths = zip(*batch, strict=True)
    letters = [number for name in names for number in letter_numbers(name)]
    values = {"seed": seeds, "name": letters, "priority": priorities, "length": lengths}
    exact = {key: [Fraction(number) for number in numbers] for key, numbers in values.items()}
    return {key: (float(mean(numbers)), float(pvariance(numbers))) for key, numbers in exact.items()}


def output(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """The whole job: every summary that the run must serve."""
    data, process = parameters["data-parameters"], parameters["process-parameters"]
    summaries = []
    for worker, share in enumerate(division(data, process["worker-number"])):
        actor = worker % process["actor-number"] + 1
        rows = [(worker + 1, actor, index, batch) for index, batch in enumerate(batches(share, data["tuple-batch"]), 1)]
        for index, part in enumerate(batches(rows, data["stats-batch"]), 1):
            summaries.append(summary(f"{worker + 1}-{actor}-{index}", part))
    return summaries


def summary(name: str, rows: list[tuple[int, int, int, list[Any]]]) -> dict[str, Any]:
    workers, actors, indexes, tuples = (list(column) for column in zip(*rows, strict=True))
    stats = [statistics(batch) for batch in tuples]
    return {
        "id": name,
        "workers": workers,
        "actors": actors,
        "batches": indexes,
        "counts": [len(batch) for batch in tuples],
        **{
            key: {"mean": [row[key][0] for row in stats], "variance": [row[key][1] for row in stats]}
            for key in ("seed", "name", "priority", "length")
        },
    }
