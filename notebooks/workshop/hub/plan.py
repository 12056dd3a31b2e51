"""What one server for a class needs: memory, cores, and what a GPU costs, if any.

    python notebooks/workshop/hub/plan.py --learners 30 --chapters 5,6
    python notebooks/workshop/hub/plan.py --learners 30 --chapters 5,6 --cores 8
    python notebooks/workshop/hub/plan.py --learners 30 --chapters 5 --model qwen3-0.6b --gpu L4 --price 0.80 --hours 3

It counts with what a learner takes in each chapter, as `rehearse.py` measured it (`measured.json`, with COURSE_SMALL=1
and one thread). `--measured FILE` takes a rehearsal on your own server instead: rehearse.py ... --json FILE.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from course_utils.config import Qwen3Config
from course_utils.errors import InputError
from course_utils.family import FAMILY, SHORT_NAMES, find_repo_id
from course_utils.number import finite_number, require_whole_number
from course_utils.planner import GPUS, USABLE, Gpu, cache_bytes, weight_bytes, workspace_bytes

MEASURED = Path(__file__).resolve().parent / "measured.json"
WAIT = 20.0
"""Seconds that a class waits for the slowest cell when everybody runs it at the same moment."""
HUB, SYSTEM = 0.4e9, 1e9
"""Bytes of JupyterHub with its proxy, and of the system around them."""
CUDA = 0.5e9
"""Bytes of a GPU that each process takes for CUDA itself, about."""
CONTEXT = 2048
"""Tokens of the longest text that a learner generates with a model of the hub."""


@dataclass(frozen=True)
class Taken:
    """What one learner takes in some chapters, of which the largest counts.

    Attributes:
        kernel, server: bytes of memory.
        start: seconds of a core until JupyterLab and the first cell are there.
        slowest: seconds of the slowest cell on one core.
        chapter: seconds of a core for the longest chapter.
    """

    kernel: float
    server: float
    start: float
    slowest: float
    chapter: float


@dataclass(frozen=True)
class Needs:
    """What a class needs.

    Attributes:
        memory: bytes, all together.
        cores: of processors.
        start: seconds until the last learner has a first result, if all come at once.
        slowest: seconds of the slowest cell, if all run it at once.
        chapter: seconds of the longest chapter, if all run it from top to bottom at once.
        per_gpu: learners who share a GPU; None without one.
        gpus: how many; 0 without one.
        cost: of the GPUs, in the currency of their price.
    """

    memory: float
    cores: int
    start: float
    slowest: float
    chapter: float
    per_gpu: int | None
    gpus: int
    cost: float


def read_measured(file: Path, chapters: str) -> Taken:
    """What a rehearsal measured, of the chapters with these numbers, such as "5,6".

    Raises:
        InputError: if the file is no rehearsal, or has not all of these chapters.
    """
    try:
        runs = [run for each in json.loads(file.read_text(encoding="utf-8"))["runs"] for run in each]
        known = {run["chapter"].partition("_")[0].lstrip("0") for run in runs}
        wanted = {number.strip().lstrip("0") for number in chapters.split(",")}
        runs = [run for run in runs if run["chapter"].partition("_")[0].lstrip("0") in wanted]
        if not wanted <= known:
            raise InputError(f"Nothing was measured for chapters {chapters!r}: give some of "
                             f"{', '.join(sorted(known, key=int))}, with commas between them.")
        most = {name: max(run[name] for run in runs) for name in ("peak", "server", "slowest", "core_seconds")}
        start = min(run["server_core_seconds"] + run["opened"] for run in runs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(file)!r} is no rehearsal ({error}): write one with rehearse.py --json.") from error
    return Taken(most["peak"], most["server"], start, most["slowest"], most["core_seconds"])


def plan_class(learners: int, taken: Taken, cores: int | None = None, config: Qwen3Config | None = None,
               gpu: Gpu | None = None, price: float = 0.0, hours: float = 1.0) -> Needs:
    """Work out what a class needs.

    Args:
        learners: how many at once.
        taken: by each of them.
        cores: that there are; None finds as many as let nobody wait for longer than `WAIT` for a cell.
        config: of a model of the hub beside the bundled one; None is the bundled one alone.
        gpu: of which kind; None computes on the processors. Each learner's process has weights of its own on a GPU, on
            processors all share those of the file.
        price: of one GPU for an hour.
        hours: that the class takes.

    Raises:
        InputError: if a number is none or too small, or one learner does not fit on the GPU.
    """
    learners = require_whole_number("learners", learners, 1)
    needed = max(2, math.ceil(learners * taken.slowest / WAIT))
    cores = needed if cores is None else require_whole_number("cores", cores, 1)
    for name, value in (("price", price), ("hours", hours)):
        if (found := finite_number(value)) is None or found < 0:
            raise InputError(f"{name} is {value!r}: give a number from 0 on.")
    own, shared = taken.kernel + taken.server, HUB + SYSTEM
    per_gpu, gpus = None, 0
    if config is not None and gpu is None:
        own += cache_bytes(config, CONTEXT) + workspace_bytes(config, CONTEXT)
        shared += weight_bytes(config)
    if gpu is not None:
        model = (0 if config is None else
                 weight_bytes(config) + cache_bytes(config, CONTEXT) + workspace_bytes(config, CONTEXT))
        per_gpu = int(USABLE * gpu.memory // (CUDA + model))
        if per_gpu == 0:
            raise InputError(f"The model of one learner does not fit on one {gpu.name}: take a larger GPU or a smaller "
                             "model.")
        gpus = math.ceil(learners / per_gpu)
    return Needs(learners * own + shared, cores, *(max(1, learners / cores) * seconds for seconds in (
        taken.start, taken.slowest, taken.chapter)), per_gpu, gpus, gpus * price * hours)


def describe(learners: int, needs: Needs, gpu: Gpu | None) -> str:
    """The needs in a few lines."""
    per_learner = (needs.memory - HUB - SYSTEM) / learners
    lines = [f"Memory  {needs.memory / 1e9:6.1f} GB   {per_learner / 1e9:.2f} GB a learner at the peak, "
             f"{(HUB + SYSTEM) / 1e9:.1f} GB for the hub and the system",
             f"Cores   {needs.cores:6}      if all do the same at once: first cell after {needs.start:.0f} s, slowest "
             f"cell {needs.slowest:.0f} s, longest chapter {needs.chapter:.0f} s"]
    if gpu is None:
        return "\n".join([*lines, "GPU       none"])
    return "\n".join([*lines, f"GPU     {needs.gpus:6}      {gpu.name}, {needs.per_gpu} learners on each; together "
                              f"{needs.cost:.2f} for the class"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 2 for what cannot be planned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", type=int, required=True, metavar="N", help="how many at once")
    parser.add_argument("--chapters", default="5,6", metavar="NUMBERS", help="such as 5,6 (%(default)s)")
    parser.add_argument("--cores", type=int, metavar="N", help="that your server has (default: what the class needs)")
    parser.add_argument("--model", metavar="NAME", choices=SHORT_NAMES, help="of the hub, such as qwen3-0.6b (default: "
                        "the bundled one alone)")
    parser.add_argument("--gpu", choices=[gpu.name for gpu in GPUS], help="default: none, and none is needed")
    parser.add_argument("--price", type=float, default=0.0, help="of a GPU for an hour, in any currency")
    parser.add_argument("--hours", type=float, default=1.0, help="that the class takes (%(default)s)")
    parser.add_argument("--measured", type=Path, default=MEASURED, metavar="FILE", help="a rehearsal of your own")
    options = parser.parse_args(arguments)
    gpu = next((gpu for gpu in GPUS if gpu.name == options.gpu), None)
    config = None if options.model is None else FAMILY[find_repo_id(options.model) or ""]
    try:
        taken = read_measured(options.measured, options.chapters)
        needs = plan_class(options.learners, taken, options.cores, config, gpu, options.price, options.hours)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(describe(options.learners, needs, gpu))
    return 0


if __name__ == "__main__":
    sys.exit(main())
