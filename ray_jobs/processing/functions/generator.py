"""Generates made-up files as tuples (seed, name, priority, length), each a function of its seed alone.

The generator is counter-based: word i of seed k is a hash of (k, i). Any range of seeds can therefore be generated
anywhere and in any order, with the same result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from functions.parameters import DataParameters

Words = NDArray[np.uint64]

ALPHABET = 26
LETTERS_PER_WORD = 4
GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def mix(words: Words) -> Words:
    """Scramble 64-bit words so that adjacent inputs give unrelated outputs (the SplitMix64 finalizer)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def random_words(seeds: Words, index: int) -> Words:
    """Return word number `index` of every seed."""
    return mix(mix(seeds * GOLDEN_GAMMA) + GOLDEN_GAMMA * np.array([index], np.uint64))


def scale(bits: Words, width: int, size: int) -> Words:
    """Map random numbers of `width` bits evenly onto 0 .. size - 1, without a division."""
    return (bits * np.uint64(size)) >> np.uint64(width)


def choices(seeds: Words, data: DataParameters) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the list positions of every seed's extension and length."""
    words = random_words(seeds, 0)
    extension = scale(words >> np.uint64(32), 32, len(data.extensions))
    length = scale(words & np.uint64(0xFFFFFFFF), 32, len(data.lengths))
    return extension.astype(np.intp), length.astype(np.intp)


def stem_letters(seeds: Words, longest: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the letters (a is 0) at stem position 0, 1, ... longest - 1 of every seed."""
    for position in range(longest):
        word, lane = divmod(position, LETTERS_PER_WORD)
        if lane == 0:
            words = random_words(seeds, 1 + word)
        bits = (words >> np.uint64(16 * lane)) & np.uint64(0xFFFF)
        yield scale(bits, 16, ALPHABET).astype(np.uint8)


def generate_tuples(seeds: Sequence[int], data: DataParameters) -> list[tuple[int, str, int, int]]:
    """Generate the tuples of these seeds, including names; meant for inspection and tests, not for millions."""
    words = np.asarray(seeds, np.uint64)
    extensions, lengths = choices(words, data)
    letters = np.stack([*stem_letters(words, max(data.lengths))], axis=1) + np.uint8(ord("a"))
    tuples = []
    for row, seed in enumerate(words.tolist()):
        extension, length = data.extensions[extensions[row]], data.lengths[lengths[row]]
        stem = letters[row, :length].tobytes().decode()
        tuples.append((seed, f"{stem}.{extension}", data.priority[extension], length))
    return tuples
