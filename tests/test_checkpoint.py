"""Folders to models and back: equal to transformers, memory-mapped, all or nothing, damage named."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub_server import LOGIN_PAGE, POINTER
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from course_utils import checkpoint, files, loading
from course_utils.checkpoint import load_checkpoint, save_checkpoint
from course_utils.config import Qwen3Config
from course_utils.errors import CheckpointError, InputError
from course_utils.loading import load_model, random_model
from course_utils.qwen3 import Qwen3Model

CONFIG = Qwen3Config(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=128)
IDS = torch.tensor([[1, 5, 9, 2]])


def make_model(tied: bool = True, dtype: torch.dtype = torch.bfloat16) -> Qwen3Model:
    torch.manual_seed(0)
    return Qwen3Model(replace(CONFIG, tie_word_embeddings=tied)).to(dtype).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good checkpoint, to be damaged."""
    save_checkpoint(make_model(), tmp_path / "model")
    return tmp_path / "model"


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    edit(weights)
    save_file(weights, folder / "model.safetensors")


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shard(folder: Path) -> None:
    """Distribute the weights among two files and an index."""
    weights = load_file(folder / "model.safetensors")
    weight_map = {name: f"model-{1 + (number % 2):05}-of-00002.safetensors"
                  for number, name in enumerate(weights)}
    for file in set(weight_map.values()):
        save_file({name: weights[name] for name in weights if weight_map[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()


# Loading what is right


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip(tied: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    model = make_model(tied, dtype)
    save_checkpoint(model, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == model.config and loaded.dtype == dtype and not loaded.training
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(loaded(IDS), model(IDS))


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_what_is_saved_and_computes_the_same(tied: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = make_model(tied, torch.float32)
    save_checkpoint(model, tmp_path, {"eos_token_id": 7})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.dtype == torch.float32 and theirs.generation_config.eos_token_id == 7
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, model(IDS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_what_transformers_saves_is_read(tied: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = {key: value for key, value in replace(CONFIG, tie_word_embeddings=tied).to_dict().items()
              if key not in ("architectures", "model_type")}
    theirs = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**config)).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    with torch.no_grad():
        torch.testing.assert_close(load_checkpoint(tmp_path)(IDS), theirs(IDS).logits, atol=1e-5, rtol=1e-5)


def test_shards(folder: Path) -> None:
    whole = load_checkpoint(folder)
    shard(folder)
    assert torch.equal(load_checkpoint(folder)(IDS), whole(IDS))


def test_tied_output_layer_is_stored_once_and_accepted_twice(folder: Path) -> None:
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in set(file.keys()) and file.metadata() == {"format": "pt"}
    once = load_checkpoint(folder)
    edit_weights(folder, lambda weights: weights.update(
        {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}))
    twice = load_checkpoint(folder)
    assert twice.lm_head.weight is twice.model.embed_tokens.weight
    assert torch.equal(twice(IDS), once(IDS))


def test_another_output_layer_stored_beside_a_tied_one_is_kept(folder: Path) -> None:
    """transformers says that the configuration is wrong, and keeps it; so both compute the same."""
    head = make_model().model.embed_tokens.weight.detach() + 1
    edit_weights(folder, lambda weights: weights.update({"lm_head.weight": head}))
    model = load_checkpoint(folder)
    assert not model.config.tie_word_embeddings and torch.equal(model.lm_head.weight, head)
    save_checkpoint(model, folder)
    assert load_checkpoint(folder).config == model.config and torch.equal(load_checkpoint(folder)(IDS), model(IDS))


def test_dtype_and_device_can_be_chosen(folder: Path) -> None:
    model = load_checkpoint(folder, device="cpu", dtype=torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_formats_that_differ_become_the_one_that_is_named_or_chosen(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update({NORM: weights[NORM].float()}))
    assert {parameter.dtype for parameter in load_checkpoint(folder).parameters()} == {torch.bfloat16}
    edit_config(folder, dtype=None)
    with pytest.raises(CheckpointError, match="2 number formats.*dtype=torch.float32"):
        load_checkpoint(folder)
    assert {parameter.dtype for parameter in load_checkpoint(folder, dtype=torch.float32).parameters()} == {
        torch.float32}


def test_training_a_loaded_model_does_not_touch_the_file(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    model = load_checkpoint(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert (folder / "model.safetensors").read_bytes() == before
    save_checkpoint(model, folder)  # over the file that is mapped
    assert torch.equal(load_checkpoint(folder)(IDS), model(IDS))


def test_rotary_frequencies_stay_exact_through_every_conversion(folder: Path) -> None:
    exact = CONFIG.rope_theta ** -(torch.arange(0, CONFIG.head_dim, 2) / CONFIG.head_dim)
    with torch.device("meta"):
        empty = Qwen3Model(CONFIG)
    models = [load_checkpoint(folder), load_checkpoint(folder, dtype=torch.float16),
              make_model().half().float(), empty.to_empty(device="cpu"),
              make_model().to("meta").to_empty(device="cpu")]
    for model in models:
        frequencies = model.model.rotary_emb.frequencies
        assert frequencies.dtype == torch.float32 and torch.equal(frequencies, exact)


MEASURE = """
import sys, resource, torch
from course_utils.checkpoint import load_checkpoint
from course_utils.config import Qwen3Config
from course_utils.qwen3 import Qwen3Model
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
with torch.device("meta"):  # let PyTorch import what it needs for this
    Qwen3Model(Qwen3Config(num_hidden_layers=1))
before = resident()
model = load_checkpoint(sys.argv[1])
print(sum(p.numel() * p.element_size() for p in model.parameters()), resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: /proc")
def test_loading_reads_no_weights_before_they_are_needed(tmp_path: Path) -> None:
    config = replace(CONFIG, vocab_size=50_000, hidden_size=1024, intermediate_size=2048)  # some 128 MB
    save_checkpoint(random_model(config, device="cpu"), tmp_path)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True,
                          check=True, env={"PYTHONPATH": str(Path(checkpoint.__file__).parents[1])})
    size, grown = map(int, done.stdout.split())
    assert size > 120e6 and grown < 0.1 * size


# Naming what is wrong


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def unpickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def other_shard_missing(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def shard_from_elsewhere(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"lm_head.weight": "../other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def shard_twice(folder: Path) -> None:
    shard(folder)
    path = folder / "model-00002-of-00002.safetensors"
    save_file({**load_file(path), **load_file(folder / "model-00001-of-00002.safetensors")}, path)


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


NORM = "model.norm.weight"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no folder .*model"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "config not JSON": (write("config.json", b"{oops"), "config.json' is damaged or cut short, not JSON"),
    "config a page": (write("config.json", LOGIN_PAGE), "config.json' is an HTML page"),
    "config empty": (write("config.json", b""), "config.json' is empty"),
    "config binary": (write("config.json", b"\xff\xfe\x00"), "config.json' is damaged"),
    "config a list": (write("config.json", b"[1]"), "JSON list instead of an object"),
    "foreign": (lambda folder: edit_config(folder, model_type="llama"), "'llama' model, and only 'qwen3'"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no weights .*fetch"),
    "pickle": (unpickled, r"only as pickle \(pytorch_model.bin\).*never read.*safetensors"),
    "truncated": (truncate, "model.safetensors' is damaged or cut short.*delete it and fetch it again"),
    "empty": (write("model.safetensors", b""), "model.safetensors' is empty"),
    "page": (write("model.safetensors", LOGIN_PAGE), "model.safetensors' is an HTML page"),
    "pointer": (write("model.safetensors", POINTER), "model.safetensors' is a git-LFS pointer.*git lfs pull"),
    "shard": (other_shard_missing, "1 of 2 weight files are missing.*fetch model-00002-of-00002.safetensors"),
    "shard elsewhere": (shard_from_elsewhere, "no valid weight_map"),
    "shards overlap": (shard_twice, "stand in model-00002-of-00002.safetensors and in another file"),
    "tensor missing": (lambda folder: edit_weights(folder, lambda weights: weights.pop(NORM)),
                       "weights lack model.norm.weight"),
    "tensors missing": (lambda folder: edit_config(folder, num_hidden_layers=3), "and 8 more tensors"),
    "tensor unknown": (lambda folder: edit_weights(folder, lambda weights: weights.update(
        extra=torch.ones(1))), "weights hold extra"),
    "sizes as large as can be": (lambda folder: edit_config(
        folder, vocab_size=1 << 24, hidden_size=1 << 24, intermediate_size=1 << 24, head_dim=1 << 14,
        num_attention_heads=1 << 10, num_key_value_heads=1, num_hidden_layers=200), "and 2175 more tensors"),
    "shape": (lambda folder: edit_weights(folder, lambda weights: weights.update({NORM: torch.ones(31)})),
              r"model.norm.weight has shape \(31,\), and config.json asks for \(32,\)"),
    "quantized": (lambda folder: edit_weights(folder, lambda weights: weights.update(
        {NORM: torch.ones(32, dtype=torch.int8)})), "model.norm.weight is stored as torch.int8"),
    "quantized elsewhere": (lambda folder: edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4}),
                            "quantized in a way that this package does not know: choose a checkpoint"),
    "no output layer": (lambda folder: edit_config(folder, tie_word_embeddings=False), "lack lm_head.weight"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(damage: str, folder: Path) -> None:
    do, message = DAMAGES[damage]
    do(folder)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


# Saving all or nothing


def test_full_disk_leaves_the_old_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def write_half(weights: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", write_half)
    with pytest.raises(CheckpointError, match="not be saved.*No space left.*unchanged. Free disk space"):
        save_checkpoint(make_model(tied=False), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


LIMITED = """
import sys, signal, resource
from course_utils.checkpoint import load_checkpoint, save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
save_checkpoint(load_checkpoint(sys.argv[1]), sys.argv[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: a limit on the size of files")
def test_write_that_really_fails(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = subprocess.run([sys.executable, "-c", LIMITED, str(folder)], capture_output=True, text=True,
                          env={"PYTHONPATH": str(Path(checkpoint.__file__).parents[1])})
    assert done.returncode == 1 and "CheckpointError: The model could not be saved" in done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_interrupted_save_leaves_nothing_half(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(path.name for path in folder.iterdir())
    monkeypatch.setattr(files.os, "fsync", lambda file: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(make_model(), folder)
    assert sorted(path.name for path in folder.iterdir()) == before


# Loading by name


def test_model_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_MODEL", str(folder))
    model = load_model(device="cpu")
    assert model.config == CONFIG and model.dtype == torch.bfloat16 and not model.training
    assert load_model(device="cpu", dtype=torch.float32).dtype == torch.float32
    monkeypatch.setenv("COURSE_MODEL", "nothing")
    with pytest.raises(InputError, match="'nothing'"):
        load_model()


@pytest.mark.parametrize("variable", ["", None])
def test_default_is_tiny_in_float32(variable: str | None, folder: Path,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COURSE_MODEL", raising=False)
    if variable is not None:
        monkeypatch.setenv("COURSE_MODEL", variable)
    asked: list[object] = []

    def remember(name: object) -> Path:
        asked.append(name)
        return folder

    monkeypatch.setattr(loading, "resolve", remember)
    assert load_model(device="cpu").dtype == torch.float32 and asked == ["tiny"]


def test_random_model_is_reproducible_and_finite(folder: Path) -> None:
    first, again, other = (random_model(CONFIG, device="cpu", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first(IDS), again(IDS)) and not torch.equal(first(IDS), other(IDS))
    assert first(IDS).isfinite().all() and first.dtype == torch.bfloat16 and not first.training
    assert first.lm_head.weight is first.model.embed_tokens.weight
    assert random_model(folder, dtype=torch.float32, device="cpu").config == CONFIG


def test_random_model_of_the_family_needs_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_random_weight", lambda parameter, dtype, device, generator: parameter.data)
    monkeypatch.setattr(loading, "resolve", lambda name: pytest.fail("asked for files"))
    model = random_model("Qwen3-0.6B-Base", device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == 596_049_920
