"""What each of two processes does for the tests: `torchrun distributed_worker.py FOLDER`.

It writes what it computed into the folder, as tensors and JSON under its own number; the tests compute the same in one
process and compare.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from course_utils.config import Qwen3Config
from course_utils.distributed.data_parallel import DataParallelTrainer, train_data_parallel
from course_utils.distributed.launch import leave_after, process_group
from course_utils.distributed.tensor_parallel import held_parameters, local_config, parallelize
from course_utils.errors import CourseError
from course_utils.exercises.exercise import find_exercise
from course_utils.generation import generate_tokens, last_logits
from course_utils.kv_cache import KVCache, StaticKVCache
from course_utils.lora import Adapters, LoRA
from course_utils.quantization import quantize
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import Sampler, Sampling
from course_utils.training.dataset import IGNORED
from course_utils.training.loop import Trainer, TrainingPlan

SMALL = dict(vocab_size=212, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, head_dim=16, max_position_embeddings=128)
CONFIGS = {
    "grouped, tied": Qwen3Config(**SMALL),
    "untied": Qwen3Config(**{**SMALL, "tie_word_embeddings": False}),
    "wide heads, each with its own keys, on an odd size": Qwen3Config(
        **{**SMALL, "num_key_value_heads": 4, "head_dim": 64, "hidden_size": 47}),
}
SAMPLING = Sampling(temperature=0.9, top_k=40, repetition_penalty=1.1)
PLAN = TrainingPlan(steps=8, tokens_per_step=64, block_lengths=(16, 8), micro_batches=4, warm_up_steps=2,
                    bfloat16=False, compiled=False)


def fresh_model(config: Qwen3Config) -> Qwen3Model:
    torch.manual_seed(1)
    model = Qwen3Model(config)
    for parameter in model.parameters():
        # Norms of exactly one and tiny weights would hide mistakes.
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.2)
    return model.eval()


def prompts() -> Tensor:
    return torch.randint(0, SMALL["vocab_size"], (2, 20), generator=torch.Generator().manual_seed(0))


def labelled_blocks() -> dict[int, Iterator[np.ndarray]]:
    """Blocks in which some tokens count, and in every third none: micro-batches have unequal weights or none."""
    def blocks(length: int) -> Iterator[np.ndarray]:
        rng, number = np.random.default_rng(length), 0
        while True:
            ids = rng.integers(SMALL["vocab_size"], size=length + 1)
            counts = (rng.random(length + 1) < 0.5) & (number % 3 < 2)
            yield np.stack([ids, np.where(counts, ids, IGNORED)])
            number += 1

    return {length: blocks(length) for length in PLAN.block_lengths}


def labelled_batch(rows: list[int]) -> tuple[Tensor, Tensor]:
    """Token ids and labels, (b, t + 1), of some of the blocks; in block 2 no token counts."""
    blocks = np.stack(list(islice(labelled_blocks()[16], 4)))[rows]
    return torch.from_numpy(blocks[:, 0]), torch.from_numpy(blocks[:, 1])


def forward_and_generate(model: Qwen3Model, caches_config: Qwen3Config) -> dict[str, Tensor]:
    """Logits and tokens, computed in every way in which a model is used."""
    token_ids, cache = prompts(), KVCache(model.config)
    mask = torch.ones_like(token_ids)
    mask[1, :7] = 0

    def generated(new_tokens: int = 12, **options: object) -> Tensor:
        return torch.cat(list(generate_tokens(model, token_ids, new_tokens, **options)), dim=1)

    with torch.inference_mode():
        results = {"logits": model(token_ids), "logits of padded prompts": model(token_ids, attention_mask=mask)}
    results["greedy"] = generated(2)  # each new shape costs PyTorch a while to think how to divide it
    results["greedy, cache"] = generated(cache=cache)
    results["logits, cache"] = last_logits(model, token_ids[:, :1], cache)
    results["greedy, padded, fixed cache"] = generated(
        cache=StaticKVCache(caches_config, 40, batch_size=2), attention_mask=mask)
    results["sampled"] = generated(cache=KVCache(model.config), choose=Sampler(SAMPLING, 3))
    results["keys"] = torch.stack([keys for keys, _ in cache.held])
    return results


def train(trainer: Trainer) -> dict[str, Tensor]:
    losses = torch.tensor([trainer.update() for _ in range(PLAN.steps)], dtype=torch.float64)
    weights = torch.cat([p.detach().flatten() for p in trainer.parameters.values()])
    return {"losses": losses, "weights": weights}


def main(folder: Path, number: int) -> None:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    refused: dict[str, str] = {}

    def refuse(what: str, call: Callable[[], object]) -> None:
        refused[what] = "nothing was refused"
        try:
            call()
        except CourseError as error:
            refused[what] = str(error)

    tensors: dict[str, Tensor] = {}
    for name, config in CONFIGS.items():
        model = parallelize(fresh_model(config), mesh)
        results = forward_and_generate(model, local_config(config, mesh.size()))
        results["parameters"] = torch.tensor(held_parameters(model))
        tensors |= {f"{name}: {what}": tensor.contiguous() for what, tensor in results.items()}
    small = CONFIGS["grouped, tied"]
    refuse("divided twice", lambda: parallelize(parallelize(fresh_model(small), mesh), mesh))
    whole = fresh_model(Qwen3Config(**{**SMALL, "num_key_value_heads": 1, "intermediate_size": 81}))
    refuse("uneven", lambda: parallelize(whole, mesh))
    assert held_parameters(whole) == sum(p.numel() for p in whole.parameters())
    refuse("two dimensions", lambda: parallelize(fresh_model(small), init_device_mesh("cpu", (1, mesh.size()))))
    refuse("quantized", lambda: parallelize(quantize(fresh_model(small), "int8"), mesh))
    adapted = fresh_model(small)
    adapters = Adapters(adapted)
    adapters.add("words", LoRA(rank=2))
    adapters.activate("words")
    refuse("adapter", lambda: parallelize(adapted, mesh))
    adapters.merge()
    parallelize(adapted, mesh)

    rows = [[0, 1, 3], [2]][number]
    gradients = find_exercise("15.3").solution(fresh_model(small), *labelled_batch(rows), dist.all_reduce)
    tensors |= {f"exercise: {name}": gradient for name, gradient in gradients.items()}
    trained = train(DataParallelTrainer(fresh_model(small), labelled_blocks(), PLAN))
    tensors |= {f"trained: {what}": tensor for what, tensor in trained.items()}
    for what, change in (("micro-batches", {"micro_batches": 1}), ("compiled", {"compiled": True})):
        plan = TrainingPlan(**{**vars(PLAN), **change})
        refuse(what, lambda plan=plan: DataParallelTrainer(fresh_model(small), labelled_blocks(), plan))
    own = folder / f"seen by {number}"  # each process sees another disk, and only the first one has a checkpoint
    for record in train_data_parallel(fresh_model(small), labelled_blocks(), PLAN, own):
        if record.step == 3:
            break
    refuse("other disks", lambda: train_data_parallel(fresh_model(small), labelled_blocks(), PLAN, own))

    save_file(tensors, folder / f"{number}.safetensors")
    (folder / f"{number}.json").write_text(json.dumps(refused))
    if number == 0:
        print(json.dumps({"processes": dist.get_world_size()}))


def run() -> None:
    torch.set_num_threads(1)
    with process_group() as number:
        main(Path(sys.argv[1]), number)


if __name__ == "__main__":
    leave_after(run)
