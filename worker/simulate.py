"""`python -m worker.simulate`: compare strategies on data whose labels are known.

Every arm starts from the same random images, and in each cycle trains, is tested, and "labels" what
its strategy selects, for several seeds. No server is needed; the code is the one the worker runs.

    python -m worker.simulate --data path/to/folder --out results --arms random mi-aod plain
    python -m worker.simulate --scenes 300 200 --out results
    python -m worker.simulate --experiment voc07+12-retinanet --data VOCdevkit --out results

An interrupted run goes on at the cycle it was in: repeat the command. More arms and seeds can join
later in the same way. In the folder afterwards: `cycles.jsonl` (one line per cycle), `cycles.csv`,
`curves.png`, `report.md`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from worker.miaod.config import PRESETS
from worker.miaod.strategies import require_measure
from worker.scenes import write_voc
from worker.simulation.grid import Machine, run_grid
from worker.simulation.journal import Journal
from worker.simulation.pictures import DataRefused, LabeledData, read_data
from worker.simulation.plot import PlotRefused, draw_curves
from worker.simulation.protocol import Protocol, parse_arm, parse_settings, to_json
from worker.simulation.published import EXPERIMENTS, Published, beside, read_published
from worker.simulation.report import curves_of, markdown, write_csv

DEFAULT_ARMS = ("random", "mi-aod", "entropy", "core-set", "plain")
SCENES_SEED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run an experiment, or go on with it; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        published = EXPERIMENTS.get(arguments.experiment or "")
        arms = [parse_arm(text) for text in arguments.arms or _default_arms(published)]
        protocol = _protocol(arguments, published)
        data = _data(arguments, published)
        protocol.check(len(data.pool))
        for arm in arms:
            require_measure(arm.strategy, protocol.config(arm))
        journal = Journal(
            arguments.out / "cycles.jsonl",
            {"data": _described(data), "protocol": to_json(protocol)},
        )
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        machine = Machine(_device(arguments.device), arguments.jobs, arguments.weights)
        run_grid(data, protocol, arms, arguments.seeds, journal, machine, _say)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        if journal.lines:
            _write_report(arguments.out, journal, protocol, arguments.baseline, published)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m worker.simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the results; an old one is continued")
    add("--data", type=Path, help="folder in VOC or COCO layout")
    add(
        "--scenes",
        type=int,
        nargs=2,
        metavar=("POOL", "TEST"),
        help="draw so many scenes instead of reading a folder",
    )
    add("--pool-list", default="trainval", help="list of the pool (default: %(default)s)")
    add("--test-list", default="test", help="list of the test set (default: %(default)s)")
    add("--corners", choices=("voc", "zero-based"), default="voc", help="of VOC files")
    add(
        "--hold-out",
        type=int,
        metavar="N",
        help="test on N images of the pool instead: for choosing settings",
    )
    add("--experiment", choices=sorted(EXPERIMENTS), help="an experiment of the paper")
    add(
        "--arms",
        nargs="+",
        metavar="ARM",
        help="mi-aod, random, entropy, core-set, or plain (random selection, training without "
        "MI-AOD's losses); options behind a colon, as mi-aod:diversity=4,class_balance=1 or "
        f"mi-aod:mil_attention=paper (default: {' '.join(DEFAULT_ARMS)})",
    )
    add("--baseline", default="random", help="arm the others are compared with")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    add("--initial", type=int, default=30, help="images labeled at the start")
    add("--budget", type=int, default=30, help="images that a cycle adds")
    add("--cycles", type=int, default=5, help="cycles that train")
    add("--preset", default="cpu", choices=sorted(PRESETS), help="of the training")
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings of the training")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--jobs", type=int, default=1, help="cycles to run side by side")
    add("--weights", type=Path, default=Path("data/weights"), help="folder of ImageNet weights")
    return parser


def _default_arms(published: Published | None) -> Sequence[str]:
    return tuple(published.reported) if published else DEFAULT_ARMS


def _protocol(arguments: argparse.Namespace, published: Published | None) -> Protocol:
    if published:
        return published.protocol
    return Protocol(
        initial=arguments.initial,
        budget=arguments.budget,
        cycles=arguments.cycles,
        training={"preset": arguments.preset, **parse_settings(arguments.set)},
    )


def _data(arguments: argparse.Namespace, published: Published | None) -> LabeledData:
    if arguments.scenes and not published:
        folder = arguments.out / "scenes"
        if not folder.exists():
            _say(f"drawing {sum(arguments.scenes)} scenes")
            num_pool, num_test = arguments.scenes
            write_voc(folder, num_pool, num_test, seed=SCENES_SEED)
        data = read_data(folder, pool_list="trainval", test_list="test")
    elif arguments.data is None:
        raise DataRefused("say what to learn from: --data FOLDER, or --scenes POOL TEST")
    elif published:
        data = read_published(published.layout, arguments.data)
    else:
        data = read_data(
            arguments.data,
            pool_list=arguments.pool_list,
            test_list=arguments.test_list,
            corners=arguments.corners,
        )
    return data.hold_out(arguments.hold_out) if arguments.hold_out else data


def _described(data: LabeledData) -> dict[str, object]:
    return {
        "sha256": data.sha256(),
        "classes": list(data.class_names),
        "pool": len(data.pool),
        "test": len(data.test),
    }


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _write_report(
    out: Path, journal: Journal, protocol: Protocol, baseline: str, published: Published | None
) -> None:
    text = markdown(journal.lines, protocol.figure, baseline)
    curves = curves_of(journal.lines, protocol.figure)
    if published:
        ours = {
            c.arm: dict(zip(c.images, c.values_SK.mean(axis=0).tolist(), strict=True))
            for c in curves
        }
        text += "\n" + beside(published, ours)
    (out / "report.md").write_text(text, encoding="utf-8")
    write_csv(journal.lines, out / "cycles.csv")
    print(text)
    try:
        if curves:
            draw_curves(curves, out / "curves.png", figure=protocol.figure)
    except PlotRefused as error:
        print(error, file=sys.stderr)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
