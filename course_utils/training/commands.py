"""`course-utils train` and `course-utils finetune`: one's own text -> a model, or an adapter, in a folder.

Until a run is done, everything about it is in the folder's `training`: settings, checkpoint, log. The same command goes
on there after an interruption; only at the end are the model's own files written. Then `training` may be deleted.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tqdm.auto import tqdm

from course_utils.adapter_checkpoint import save_adapter
from course_utils.chat import ChatTemplate
from course_utils.checkpoint import save_checkpoint
from course_utils.config import Qwen3Config
from course_utils.errors import CheckpointError, InputError
from course_utils.files import json_writer, read_json, remove_scratch, write_atomically
from course_utils.language import gettext
from course_utils.loading import load_model, load_tokenizer
from course_utils.lora import Adapters, LoRA, count_trainable
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import TOKENIZER_FILES, Qwen3Tokenizer
from course_utils.training.bpe import END_OF_TEXT, IM_END, train_bpe
from course_utils.training.loop import Trainer, TrainingPlan, held_out_loss
from course_utils.training.own_data import (
    OwnDocument,
    count_special_tokens,
    data_path,
    encode_documents,
    endless_blocks,
    evaluation_blocks,
    hold_out,
    read_documents,
)
from course_utils.training.recipes import RECIPES
from course_utils.training.records import Record
from course_utils.training.run import CHECKPOINT, LOCK, only_training
from course_utils.training.run import run as go_through

_RUN, _SETTINGS = "training", "settings.json"
_RESULTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
_ADAPTER = "own"


@dataclass(frozen=True)
class OwnTraining:
    """What both commands are told.

    Attributes:
        data: a text file, a file of records, or a folder of both, as `read_documents` takes them.
        out: folder of the result.
        steps: number of updates.
        block_length: tokens that the model sees at once.
        batch: blocks in an update.
        learning_rate: at its peak.
        held_out: share of the text that is only measured on, 0 to below 1.
        seed: of the order of the text, of what is held out, and of new weights.
    """

    data: str
    out: Path
    steps: int
    block_length: int
    batch: int
    learning_rate: float
    held_out: float
    seed: int

    def documents(self) -> list[OwnDocument]:
        """Raises: InputError: as `read_documents`, or if the result would lie among the data."""
        data = data_path(self.data).resolve()
        if data == self.out.resolve() or data in self.out.resolve().parents:
            raise InputError(gettext("{out!r} lies in the data, so the log of the training would be trained on: choose "
                                     "a folder elsewhere.").format(out=str(self.out)))
        return read_documents(self.data)

    def plan(self, device: torch.device) -> TrainingPlan:
        """Raises: InputError: if a number is out of its range."""
        for name, value in ((gettext("block length"), self.block_length), (gettext("batch"), self.batch)):
            if value < 1:
                raise InputError(gettext("The {name} is {value}: give a whole number from 1 on.").format(
                    name=name, value=value))
        # Every recent GPU has bfloat16; a CPU without instructions for it would be slow.
        return TrainingPlan(self.steps, self.batch * self.block_length, (self.block_length,),
                            learning_rate=self.learning_rate, warm_up_steps=min(100, self.steps // 10),
                            bfloat16=device.type == "cuda", compiled=False, seed=self.seed)


def train_own(task: OwnTraining, size: str, vocab_size: int, tokenizer_of: str | None, device: torch.device) -> Path:
    """Train a model from nothing on one's own text.

    Args:
        task: see there.
        size: the sizes of which bundled model to take.
        vocab_size: number of ordinary tokens of a new tokenizer, the 256 bytes included; a small text gives fewer.
        tokenizer_of: name of a model whose tokenizer to take instead.
        device: where to compute.

    Returns:
        The folder, which `load_model` reads.

    Raises:
        CourseError: if something is wrong with text, settings or folder; what was in the folder is unchanged.
    """
    if vocab_size < 256:
        raise InputError(gettext("The vocabulary is {vocab_size}: give at least 256, one token for each byte.").format(
            vocab_size=vocab_size))
    plan, documents = task.plan(device), task.documents()
    settings = {"command": "train", "size": size, "vocabulary": vocab_size, "tokenizer": tokenizer_of}
    with TemporaryDirectory() as scratch:
        tokenizer = (_new_tokenizer(documents, vocab_size, Path(scratch)) if tokenizer_of is None
                     else load_tokenizer(tokenizer_of))
        torch.manual_seed(task.seed)
        model = Qwen3Model(_config(size, tokenizer, task.block_length)).to(device)
        _train(model, tokenizer, documents, plan, task, settings)
        end, turn_end = _end_id(tokenizer), tokenizer.special_tokens.get(IM_END)
        ends = [end] if turn_end is None else [end, turn_end]
        return _save_model(model, tokenizer.folder, task.out, {"eos_token_id": ends, "pad_token_id": end})


def finetune_own(task: OwnTraining, name: str | None, rank: int | None, device: torch.device) -> Path:
    """Fine-tune a model on one's own text: all its weights, or an adapter.

    Args:
        task: see there.
        name: of the model, as `load_model` takes it.
        rank: of the adapter; None trains all weights.
        device: where to compute.

    Returns:
        The folder, which `load_model`, or with an adapter `load_adapter`, reads.

    Raises:
        CourseError: as for `train_own`.
    """
    lora = None if rank is None else LoRA(rank, alpha=2 * rank)
    plan, documents = task.plan(device), task.documents()
    tokenizer = load_tokenizer(name)
    base = tokenizer.folder
    if base.resolve() == task.out.resolve():
        raise InputError(gettext("{out!r} is the folder of the model itself, which must not be "
                                 "overwritten: choose another one.").format(out=str(task.out)))
    model = load_model(name, device=device, dtype=torch.float32 if lora is None else None)
    if model.quantization is not None and lora is None:
        raise InputError("The weights of this model are quantized, so they cannot be trained: give --lora as well.")
    adapters = None
    if lora is not None:
        adapters = Adapters(model)
        adapters.add(_ADAPTER, lora, seed=task.seed)
    settings = {"command": "finetune", "model": base.name if name is None else name, "lora": rank}
    _train(model, tokenizer, documents, plan, task, settings)
    if adapters is not None:
        save_adapter(adapters, _ADAPTER, task.out)
        return task.out
    sampling = base / "generation_config.json"
    return _save_model(model, base, task.out, read_json(sampling) if sampling.is_file() else None)


def _config(size: str, tokenizer: Qwen3Tokenizer, block_length: int) -> Qwen3Config:
    config = RECIPES[size].config
    tokens = max(tokenizer.vocab_size, *(token_id + 1 for token_id in tokenizer.special_tokens.values()))
    return replace(config, vocab_size=-(-tokens // 128) * 128,  # a multiple of 128, as the real models have
                   max_position_embeddings=max(config.max_position_embeddings, block_length))


def _open_run(out: Path, settings: Mapping[str, Any]) -> Path:
    """The folder of a run, to begin or to go on in.

    Raises:
        CheckpointError: if another run or a model is in `out`, or it cannot be written to.
    """
    run = out / _RUN
    _check_run(run, settings)
    with only_training(run):
        _check_run(run, settings)  # another command may just have begun one
        try:
            remove_scratch(out)
            remove_scratch(run)
            if not (run / _SETTINGS).is_file():
                write_atomically(run, {_SETTINGS: json_writer(settings)})
        except OSError as error:
            raise _not_written(run, error) from error
    return run


def _check_run(run: Path, settings: Mapping[str, Any]) -> None:
    """Raise unless this run is the one in the folder, or nothing is there but what a run may have begun with."""
    out = run.parent
    if (run / _SETTINGS).is_file():
        there = read_json(run / _SETTINGS)
        other = [gettext("{key} {there!r} instead of {value!r}").format(
            key=key, there=there.get(key), value=value) for key, value in settings.items()
                 if there.get(key) != value]
        if other:
            raise CheckpointError(gettext("In {out!r} there is another training, with {other}: give the same arguments "
                                          "to go on with it, or choose another folder.").format(
                out=str(out), other=", ".join(other)))
        return
    found = [name for name in _RESULTS if (out / name).exists()]
    if run.exists() and not (run.is_dir() and all(_of_the_beginning(path.name) for path in run.iterdir())):
        found.append(_RUN)
    if found:
        raise CheckpointError(gettext("{out!r} holds {found} already, which must not be overwritten: choose another "
                                      "folder.").format(out=str(out), found=found[0]))


def _of_the_beginning(name: str) -> bool:
    """Whether a file may be there before the settings are: of a run that a full disk or a kill ended at once."""
    return name == LOCK or name.startswith(f".{_SETTINGS}.")


def _new_tokenizer(documents: Sequence[OwnDocument], vocab_size: int, folder: Path) -> Qwen3Tokenizer:
    """Train a tokenizer on the text. The same text gives the same one, so a run that goes on makes it again."""
    source = _TEMPLATE.read_text(encoding="utf-8")
    template = ChatTemplate(source)
    train_bpe((document.text(template) for document in documents), vocab_size).save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT,
                "add_bos_token": False, "clean_up_tokenization_spaces": False}
    json_writer(settings)(folder / "tokenizer_config.json")
    return Qwen3Tokenizer(folder)


def _end_id(tokenizer: Qwen3Tokenizer) -> int:
    """The token that closes a document."""
    end = tokenizer.special_tokens.get(END_OF_TEXT, tokenizer.eos_token_id)
    if end is None:
        raise InputError("The tokenizer of this model has no end-of-text token, which documents must be closed with: "
                         "choose another model.")
    return end


def _train(model: Qwen3Model, tokenizer: Qwen3Tokenizer, documents: Sequence[OwnDocument], plan: TrainingPlan,
           task: OwnTraining, settings: Mapping[str, Any]) -> None:
    """Train to the end, or through what is left, and print how it goes."""
    end = _end_id(tokenizer)
    trained, held_out = hold_out(encode_documents(documents, tokenizer, task.block_length), task.held_out, task.seed)
    blocks = evaluation_blocks(held_out, task.block_length, end) if held_out else None
    trainer = Trainer(model, {task.block_length: endless_blocks(trained, task.block_length, end, task.seed)}, plan)
    run = _open_run(task.out, settings)
    going_on = (run / CHECKPOINT).exists()
    report_every = max(1, min(100, plan.steps // 10))
    records = go_through(trainer, run, report_every=report_every, held_out=blocks)

    tokens = sum(len(ids) for ids, _ in trained)
    count = count_trainable(model)
    print(gettext("{count} documents or pieces with {tokens} tokens to train on, {held_out} held out; {trainable} of "
                  "{total} parameters are trained; the text is seen about {steps:.1f} times.").format(
        count=len(trained), tokens=tokens, held_out=len(held_out), trainable=count.trainable, total=count.total,
        steps=plan.steps * plan.tokens_per_step / tokens))
    if special := count_special_tokens(documents, tokenizer):
        print(gettext("Special tokens such as <|im_end|> are written {special} times in plain texts, and are ordinary "
                      "text there: a chat belongs into a record with messages.").format(special=special))
    if going_on:
        print(gettext("Going on with the training that was interrupted."))
    elif blocks is not None:
        print(gettext("step 0: held-out loss {held_out_loss:.3f}").format(held_out_loss=held_out_loss(model, blocks)))
    best: Record | None = None
    for record in records:
        if record.held_out_loss is not None:
            tqdm.write(gettext("step {step}: loss {loss:.3f}, held-out loss {held_out_loss:.3f}").format(
                step=record.step, loss=record.loss, held_out_loss=record.held_out_loss))
            best = record if best is None or record.held_out_loss < (best.held_out_loss or 0) else best
        elif record.step % report_every == 0 or record.step == plan.steps:
            tqdm.write(f"step {record.step}: loss {record.loss:.3f}")
    if best is not None and record.held_out_loss is not None and best.step < record.step:
        print(gettext("The held-out loss was lowest at step {step}: fewer steps or more "
                      "text may give a better model.").format(step=best.step))


def _save_model(model: Qwen3Model, source: Path, out: Path, generation_config: Mapping[str, Any] | None) -> Path:
    """Write the weights, rounded to bfloat16, and beside them the tokenizer files that are in `source`."""
    rounded = Qwen3Model(model.config).to(torch.bfloat16)
    rounded.load_state_dict(model.state_dict())
    copies = {name: partial(shutil.copyfile, source / name) for name in TOKENIZER_FILES if (source / name).is_file()}
    try:
        write_atomically(out, copies)
    except OSError as error:
        raise _not_written(out, error) from error
    save_checkpoint(rounded, out, generation_config=generation_config)
    return out


def _not_written(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(gettext("{folder!r} cannot be written to ({error}): free disk space, "
                                   "or choose another folder.").format(folder=str(folder), error=error))
