"""Answers of any length: decoded piece by piece, with the same result as in one go."""

from __future__ import annotations

import json
import random
import threading
import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from airflow_provider_ray.client import pacing
from airflow_provider_ray.client.api.decoding import decoded, decoded_rows
from airflow_provider_ray.client.api.models import JobDetails, Node

MIB = 2**20


def record(number: int, **more: Any) -> dict[str, Any]:
    return {"type": "SUBMISSION", "submission_id": f"j{number}", "status": "FAILED", "start_time": number, **more}


def odd_records() -> list[dict[str, Any]]:
    """Records that look like the end of one and the beginning of another, and hold what Python's json alone writes."""
    chosen = random.Random(7)
    odd: list[Any] = [
        '}, {"',
        '"}, {',
        '\\"}, {"',
        "}]",
        "\\",
        '\\\\"',
        "\0",
        "\ud83d",
        "😀",
        "é",
        "\n",
        "NaN",
        "{",
        "]",
    ]
    nested: list[Any] = [[{"a": 1}, {"b": 2}], {"a": [{}, {"x": float("nan")}]}, float("-inf"), "\ud83d", None, 2**70]
    return [
        record(
            number,
            message="".join(chosen.choices(odd, k=chosen.randrange(20))),
            runtime_env=chosen.choice(nested),
            metadata={"airflow_note": chosen.choice(odd)},
        )
        for number in range(300)
    ]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " : ")], ids=["short", "usual", "wide"])
@pytest.mark.parametrize("size", [50, 500, 5000])
def test_pieces_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch, separators: tuple[str, str], size: int) -> None:
    text = json.dumps(odd_records(), separators=separators).encode()
    monkeypatch.setattr(pacing, "DECODED_AT_ONCE_BYTES", 10 * MIB)
    whole = decoded(text, list[JobDetails])
    monkeypatch.setattr(pacing, "DECODED_AT_ONCE_BYTES", size)
    assert decoded(text, list[JobDetails]) == decoded(b" \n" + text + b"\n", list[JobDetails]) == whole
    assert len(whole) == 300
    rows = b'{"result": true, "data": {"result": {"total": 300, "result": %s, "more": [{}, {"a": 1}]}}}' % text
    assert decoded_rows(rows, list[JobDetails]) == whole
    assert not any("\0" in (job.message or "") or "\ud83d" in (job.message or "") for job in whole)


class Answer(msgspec.Struct):
    applications: list[JobDetails]


@pytest.mark.parametrize("size", [1, 7, 50, 500, 5000])
def test_an_answer_that_is_no_list_is_cleaned_piece_by_piece(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    text = json.dumps({"applications": odd_records(), "numbers": [float("nan"), float("-inf"), 1] * 300}).encode()
    monkeypatch.setattr(pacing, "DECODED_AT_ONCE_BYTES", 10 * MIB)
    whole = decoded(text, Answer)
    monkeypatch.setattr(pacing, "DECODED_AT_ONCE_BYTES", size)
    assert decoded(text, Answer) == whole
    assert len(whole.applications) == 300
    assert not any("\0" in (job.message or "") for job in whole.applications)


@pytest.mark.parametrize("odd", ["\0", "\ud83d", float("nan")], ids=["NUL", "half a pair", "NaN"])
@pytest.mark.parametrize("place", ["list", "rows", "object"])
def test_what_json_alone_reads_takes_little_memory(monkeypatch: pytest.MonkeyPatch, odd: object, place: str) -> None:
    monkeypatch.setattr(pacing, "DECODED_AT_ONCE_BYTES", 10_000)
    jobs = [record(number, metadata={"a": "b"}, runtime_env={"c": "\\"}) for number in range(6000)]

    def peak() -> int:
        text = json.dumps({"data": {"result": {"result": jobs}}} if place == "rows" else jobs).encode()
        tracemalloc.start()
        try:
            if place == "rows":
                assert len(decoded_rows(text, list[JobDetails])) == len(jobs)
            else:
                assert len(decoded(text, list[JobDetails] if place == "list" else tuple[JobDetails, ...])) == len(jobs)
            return tracemalloc.get_traced_memory()[1] // len(text)
        finally:
            tracemalloc.stop()

    usual = peak()
    jobs[3000]["runtime_env"] = {"c": odd}
    assert peak() <= usual + 4


def test_an_error_in_a_piece_says_where_it_is_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "DECODED_AT_ONCE_BYTES", 500)
    for value in (float("nan"), "soon", 2**70, [1]):
        jobs = [record(number, end_time=value if number == 123 else 1) for number in range(200)]
        with pytest.raises(msgspec.ValidationError, match=r"at `\$\[123\]\.end_time`"):
            decoded(json.dumps(jobs).encode(), list[JobDetails])


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 1000,
        b"[" + b'{"status": "A"}, ' * 100,
        b"[" + b'{"status": "A"} ' * 100 + b"]",
        b"[" + b'{"status": "A"}, ' * 100 + b'{"status": ]',
        b"x" * 1000,
        b'"' + b"x" * 1000,
        "[]".encode("utf-16") * 1000,
        b'[{"status": "\xff\xfe"}' + b', {"status": "A"}' * 100 + b"]",
    ],
)
def test_what_is_no_list_is_an_error(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(pacing, "DECODED_AT_ONCE_BYTES", 100)
    with pytest.raises((ValueError, RecursionError)):
        decoded(text, list[JobDetails])


def test_a_record_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "DECODED_AT_ONCE_BYTES", 1000)
    monkeypatch.setattr(pacing, "RECORD_BYTES", 10_000)
    for filling in (b"[],", b'{"a": 1}, {"a": 1},', b'"x",'):
        text = b'[{"status": "A", "x": [' + filling * 30_000 + b"1]}]"
        with pytest.raises(ValueError, match=r"more than 10000 bytes|truncated"):
            decoded(text, list[JobDetails])


SLOW: dict[str, Callable[[int], bytes]] = {
    "many small records": lambda size: b"[" + b",".join([b'{"status":""}'] * (size // 14)) + b"]",
    "many entries": lambda size: json.dumps(
        [record(number, metadata={f"{key:04}": "" for key in range(1000)}) for number in range(size // 13_000)]
    ).encode(),
    "much that json alone reads": lambda size: json.dumps(
        [record(number, runtime_env=[float("nan")] * 1000) for number in range(size // 5000)]
    ).encode(),
}


@pytest.mark.parametrize("case", SLOW)
def test_decoding_lets_other_threads_go_on(case: str) -> None:
    text = SLOW[case](8 * MIB)
    gone_on: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.is_set():
            gone_on.append(time.monotonic())
            time.sleep(0.005)

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.monotonic()
    decoded(text, list[JobDetails])
    took = time.monotonic() - started
    done.set()
    thread.join()
    longest = max(later - sooner for sooner, later in pairwise(gone_on))
    assert longest < max(0.5, took / 3)


def test_short_answers_need_no_pieces() -> None:
    assert decoded(b"[]", list[JobDetails]) == decoded(b" [ ] ", list[JobDetails]) == []
    assert decoded_rows(b'{"data":{"result":{"result":[{"node_id":"n","state":"ALIVE"}]}}}', list[Node])[0].is_alive
