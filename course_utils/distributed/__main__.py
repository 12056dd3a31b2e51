"""Examples for several processes: `python -m torch.distributed.run --standalone --nproc-per-node 2 -m
course_utils.distributed generate`, or `train`. The first process prints the result as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from course_utils.distributed.data_parallel import train_data_parallel
from course_utils.distributed.example import small_training
from course_utils.distributed.launch import leave_after, process_group
from course_utils.distributed.tensor_parallel import held_parameters, parallelize
from course_utils.generation import generate_tokens, last_logits
from course_utils.kv_cache import KVCache
from course_utils.loading import load_model, load_tokenizer
from course_utils.qwen3 import Qwen3Model


def main() -> None:
    """Read the command line and run it."""
    parser = argparse.ArgumentParser(prog="course_utils.distributed", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    generating = commands.add_parser("generate", help="a model alone, then divided among the processes")
    generating.add_argument("--model", help="as for load_model")
    generating.add_argument("--prompt", default="Once upon a time,")
    generating.add_argument("--tokens", type=int, default=20, help="new tokens (20)")
    training = commands.add_parser("train", help="a small model, on data divided among the processes")
    training.add_argument("--folder", type=Path, required=True, help="of checkpoint and log")
    training.add_argument("--steps", type=int, default=20, help="updates in all (20)")
    training.add_argument("--kill-at", type=int, metavar="STEP", help="the last process kills itself after this step")
    options = parser.parse_args()
    with process_group() as number:
        result = (compare(options.model, options.prompt, options.tokens) if options.command == "generate" else
                  train_example(options.folder, options.steps, options.kill_at))
        if number == 0:
            print(json.dumps({"processes": dist.get_world_size(), **result}), flush=True)


def compare(name: str | None, prompt: str, new_tokens: int) -> dict[str, Any]:
    """Generate greedily with the whole model, then with the model divided, with a cache both times.

    Returns:
        "alone" and "together", what each gave: token_ids, text, and of every process parameters and cache_bytes (of
        keys and values); "largest_difference" between the logits of the first step, as a share of the largest.
    """
    model, tokenizer = load_model(name, device="cpu", dtype=torch.float32), load_tokenizer(name)
    token_ids = torch.tensor([tokenizer.encode(prompt)])

    def measure(model: Qwen3Model) -> tuple[torch.Tensor, dict[str, Any]]:
        cache = KVCache(model.config)
        new_ids = [int(token) for token in generate_tokens(model, token_ids, new_tokens, cache=cache)]
        return last_logits(model, token_ids), {
            "token_ids": new_ids, "text": tokenizer.decode(new_ids),
            "parameters": everywhere(held_parameters(model)), "cache_bytes": everywhere(cache.num_bytes)}

    expected, alone = measure(model)
    logits, together = measure(parallelize(model, init_device_mesh("cpu", (dist.get_world_size(),))))
    difference = (logits - expected).abs().max() / expected.abs().max()
    return {"alone": alone, "together": together, "largest_difference": difference.item()}


def train_example(folder: Path, steps: int, kill_at: int | None) -> dict[str, Any]:
    """Train the small example, or go on with it. Returns: the losses of the "steps" that were made, with their numbers.
    """
    done, losses = [], []
    for step in train_data_parallel(*small_training(steps), folder, save_every=5):
        done.append(step.step)
        losses.append(step.loss)
        if step.step == kill_at and dist.get_rank() == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return {"steps": done, "losses": losses}


def everywhere(value: int) -> list[int]:
    """The value of each process."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


if __name__ == "__main__":
    leave_after(main)
