"""COMPARISON BASELINE, not an example: the processing job with its patterns written one for one.

Tuples are made one at a time in the driver, every batch of five is stored with ray.put and costs one actor call, and
results are waited for one by one. Only the CPUs that are asked for differ: a whole one for every actor and task would
never be granted on two CPUs. It ends where the served job starts Serve.
"""

from __future__ import annotations

import json
import random
import string
import sys
from importlib.metadata import version
from typing import Any

import ray

FileTuple = tuple[int, str, int, int]
Stats = dict[str, Any]


def generate_file_tuple(seed: int, lengths: list[int], extensions: list[str], priority: dict[str, int]) -> FileTuple:
    generator = random.Random(seed)
    length = generator.choice(lengths)
    extension = generator.choice(extensions)
    stem = "".join(generator.choice(string.ascii_lowercase) for _ in range(length))
    return seed, f"{stem}.{extension}", priority[extension], length


def division_round_robin(target_list: list[FileTuple], number: int) -> list[list[FileTuple]]:
    lists: list[list[FileTuple]] = [[] for _ in range(number)]
    i = 0
    for element in sorted(target_list, key=lambda x: (x[-2], x[-1])):
        lists[i].append(element)
        i = (i + 1) % number
    return lists


def generate_file_batches(data: dict[str, Any], number: int) -> list[list[FileTuple]]:
    file_tuples = []
    for seed in range(data["amount"]):
        file_tuples.append(generate_file_tuple(seed, data["lengths"], data["extensions"], data["priority"]))
    return division_round_robin(file_tuples, number)


@ray.remote(num_cpus=0.01)
class Provider:
    def __init__(self) -> None:
        import numpy as np

        self.np = np

    def letter_numbers(self, text: str) -> list[int]:
        return [ord(c.lower()) - ord("a") + 1 for c in text if c.isalpha()]

    def batch_stats(self, data: list[int]) -> dict[str, float]:
        return {"mean": float(self.np.mean(data)), "variance": float(self.np.var(data))}

    def batch_process_tuples(
        self, worker_index: int, actor_index: int, batch_index: int, tuples: list[FileTuple]
    ) -> Stats:
        seeds, names, priorities, lengths = [], [], [], []
        for seed, name, priority, length in tuples:
            seeds.append(seed)
            names.extend(self.letter_numbers(name))
            priorities.append(priority)
            lengths.append(length)
        return {
            "worker": worker_index,
            "actor": actor_index,
            "batch": batch_index,
            "seed": self.batch_stats(seeds),
            "name": self.batch_stats(names),
            "priority": self.batch_stats(priorities),
            "length": self.batch_stats(lengths),
        }

    def batch_process_stats(self, worker_index: int, actor_index: int, batch_index: int, stats: list[Stats]) -> Stats:
        summary: Stats = {"id": f"{worker_index}-{actor_index}-{batch_index}"}
        for key, values in (("worker", "workers"), ("actor", "actors"), ("batch", "batches")):
            summary[values] = [row[key] for row in stats]
        for value in ("seed", "name", "priority", "length"):
            summary[value] = {key: [row[value][key] for row in stats] for key in ("mean", "variance")}
        return summary


@ray.remote(num_cpus=0.01)
def preprocess(
    worker_index: int, actor_index: int, actor_ref: Any, data: dict[str, Any], file_tuples: list[FileTuple]
) -> list[Stats]:
    refs = []
    for batch_index, batch in enumerate(full_batches(file_tuples, data["tuple-batch"]), 1):
        batch_ref = ray.put(batch)
        refs.append(actor_ref.batch_process_tuples.remote(worker_index, actor_index, batch_index, batch_ref))
    return wait_one_by_one(refs)


@ray.remote(num_cpus=0.01)
def collector(
    worker_index: int, actor_index: int, actor_ref: Any, data: dict[str, Any], batch_stats: list[Stats]
) -> list[Stats]:
    refs = []
    for batch_index, batch in enumerate(full_batches(batch_stats, data["stats-batch"]), 1):
        batch_ref = ray.put(batch)
        refs.append(actor_ref.batch_process_stats.remote(worker_index, actor_index, batch_index, batch_ref))
    return wait_one_by_one(refs)


def full_batches(elements: list[Any], size: int) -> list[list[Any]]:
    batches, batch = [], []
    for element in elements:
        batch.append(element)
        if size <= len(batch):
            batches.append(batch)
            batch = []
    return batches


def wait_one_by_one(refs: list[Any]) -> list[Any]:
    results = []
    while refs:
        done_refs, refs = ray.wait(refs)
        for done_ref in done_refs:
            results.append(ray.get(done_ref))
    return results


def parallel_processing(process: dict[str, Any], data: dict[str, Any]) -> None:
    worker_number, actor_number = process["worker-number"], process["actor-number"]
    file_batch_refs = [ray.put(file_batch) for file_batch in generate_file_batches(data, worker_number)]
    actor_refs = [Provider.remote() for _ in range(actor_number)]

    task_1_refs = []
    for worker, file_batch_ref in enumerate(file_batch_refs):
        actor = worker % actor_number
        task_1_refs.append(preprocess.remote(worker + 1, actor + 1, actor_refs[actor], data, file_batch_ref))

    task_2_refs: list[Any] = []
    while task_1_refs:
        done_refs, task_1_refs = ray.wait(task_1_refs)
        for output_ref in done_refs:
            worker = len(task_2_refs)
            actor = worker % actor_number
            task_2_refs.append(collector.remote(worker + 1, actor + 1, actor_refs[actor], data, output_ref))

    summaries = [summary for part in wait_one_by_one(task_2_refs) for summary in part]
    ray.put(summaries)
    print(f"Starting Serve would follow, {len(summaries)} summaries")


if __name__ == "__main__":
    print("Python version is:" + sys.version)
    print("Ray version is:" + version("ray"))
    print("NumPy version is:" + version("numpy"))
    job_input = json.loads(sys.argv[1])
    ray.init()
    parallel_processing(job_input["process-parameters"], job_input["data-parameters"])
