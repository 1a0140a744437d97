"""All cycles of an experiment: what is still to do, done by several processes side by side.

The cycles of an arm and a seed follow each other; everything else is independent. Arms that train
alike share the first cycle of a seed, since they start from the same labels.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import torch

from worker.child_process import tie_to_parent
from worker.simulation.cycle import Bench, Line, Order, first_labeled, next_labeled
from worker.simulation.journal import Journal
from worker.simulation.pictures import LabeledData
from worker.simulation.protocol import Arm, Protocol


@dataclass(frozen=True)
class Machine:
    """Where an experiment runs: device, processes at once, folder of pretrained weights."""

    device: str
    jobs: int
    weights_dir: Path


def run_grid(
    data: LabeledData,
    protocol: Protocol,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    journal: Journal,
    machine: Machine,
    say: Callable[[str], None],
) -> None:
    """Run every cycle that the journal lacks; `say` tells of each one and of the time left."""
    todo = open_orders(data, protocol, arms, seeds, journal.lines)
    total = len(arms) * len(seeds) * protocol.cycles
    done = sum(
        line["arm"] in {arm.name for arm in arms} and line["seed"] in seeds
        for line in journal.lines
    )
    if not todo:
        return
    started = time.monotonic()
    before = done
    with ProcessPoolExecutor(
        machine.jobs,
        # A fork would inherit torch's threads, and hang.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare,
        initargs=(data, protocol, machine, os.getpid()),
    ) as pool:
        # No more in the queue than can run: what is finished first decides what comes next.
        running: dict[Future[list[Line]], Order] = {}
        while todo or running:
            while todo and len(running) < machine.jobs:
                order = todo.pop(0)
                running[pool.submit(_run, order)] = order
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                order = running.pop(future)
                for arm, line in zip(order.arms, future.result(), strict=True):
                    journal.add(line)
                    done += 1
                    if order.cycle < protocol.cycles:
                        labeled = next_labeled(order.labeled, line)
                        todo.append(Order(order.seed, order.cycle + 1, (arm,), labeled))
                    pace = (time.monotonic() - started) / (done - before)
                    say(told(line, protocol, done, total, pace * (total - done)))
                # Whole seeds first: an interrupted experiment then has seeds to show.
                todo.sort(key=lambda order: order.seed)


def open_orders(
    data: LabeledData,
    protocol: Protocol,
    arms: Sequence[Arm],
    seeds: Sequence[int],
    lines: Sequence[Line],
) -> list[Order]:
    """The next cycle of every arm and seed that is not finished, as the journal has it."""
    orders = []
    for seed in seeds:
        starting: dict[str, list[Arm]] = {}
        for arm in arms:
            labeled = first_labeled(data, protocol, seed)
            cycle = 1
            mine = [line for line in lines if (line["arm"], line["seed"]) == (arm.name, seed)]
            for line in sorted(mine, key=lambda line: line["cycle"]):
                labeled = next_labeled(labeled, line)
                cycle += 1
            if cycle == 1:
                starting.setdefault(arm.training_key, []).append(arm)
            elif cycle <= protocol.cycles:
                orders.append(Order(seed, cycle, (arm,), labeled))
        labeled = first_labeled(data, protocol, seed)
        orders += [Order(seed, 1, tuple(group), labeled) for group in starting.values()]
    return orders


def told(line: Line, protocol: Protocol, done: int, total: int, seconds_left: float) -> str:
    """A finished cycle in a line for people."""
    figure = line[protocol.figure]
    value = "no figure" if figure is None else f"{figure:.3f}"
    hours, minutes = divmod(round(seconds_left / 60), 60)
    left = f"{hours} h {minutes} min" if hours else f"{minutes} min"
    return (
        f"[{done}/{total}, about {left} left] seed {line['seed']}, {line['arm']}, cycle "
        f"{line['cycle']}: {line['images']} images, {line['boxes']} boxes, {protocol.figure} "
        f"{value}, {line['seconds']['total']:.0f} s"
    )


_bench: Bench | None = None


def _prepare(data: LabeledData, protocol: Protocol, machine: Machine, parent_pid: int) -> None:
    global _bench
    if sys.platform == "linux":
        tie_to_parent(parent_pid)
    _bench = Bench(data, protocol, torch.device(machine.device), machine.weights_dir)


def _run(order: Order) -> list[Line]:
    assert _bench is not None, "every process of the pool is prepared"
    return _bench.run(order)
