"""The command line: what it prints, its exit status, and that a user never sees a traceback."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from course_utils import cli, completion, environment, files, generation, hub
from course_utils.adapter_checkpoint import load_adapter, save_adapter
from course_utils.checkpoint import save_checkpoint
from course_utils.cli import main
from course_utils.config import Qwen3Config
from course_utils.errors import DownloadError
from course_utils.loading import load_model, load_tokenizer
from course_utils.lora import Adapters, LoRA
from course_utils.printable import printable
from course_utils.qwen3 import Qwen3Model
from course_utils.report import EnvironmentReport, Finding
from course_utils.sampling import GREEDY, Sampling
from course_utils.training.loop import Trainer

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    monkeypatch.delenv("COURSE_MODEL", raising=False)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, small_tokenizer_folder, small_tokenizer):
    """A complete checkpoint with random weights, its name for --model."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=small_tokenizer.vocab_size, hidden_size=32, intermediate_size=64,
                         num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
                         max_position_embeddings=512)
    save_checkpoint(Qwen3Model(config).eval(), folder)
    for file in small_tokenizer_folder.iterdir():
        shutil.copy(file, folder)
    return str(folder)


@pytest.fixture
def scripted(monkeypatch, small_tokenizer):
    """Make the loop give the tokens of a text; returns the list of what it was called with."""

    def script(text, then=None):
        def loop(model, token_ids, max_new_tokens, eos_token_id, cache, attention_mask, choose):
            calls.append((small_tokenizer.decode(token_ids[0].tolist()), max_new_tokens, set(eos_token_id)))
            samplers.append(choose.sampling)
            for token_id in small_tokenizer.encode(text):
                yield torch.tensor([[token_id]])
            if then is not None:
                raise then

        calls = []
        monkeypatch.setattr(completion, "generate_tokens", loop)
        return calls

    samplers = script.samplings = []
    return script


def shown(text):
    """What a terminal is sent; a model with random weights writes control characters, too."""
    return printable(text, keep="\n\t") + "\n"


def run_program(*arguments, **options):
    """The program in a process of its own."""
    return subprocess.run([sys.executable, "-m", "course_utils", *arguments], capture_output=True, text=True,
                          encoding="utf-8", timeout=120, check=False, cwd=REPOSITORY, **options)


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in ("check", "generate", "train", "finetune", "download", "lab"))


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["generate"], ["generate", "x", "--nonsense"],
                                       ["generate", "x", "--max-new-tokens", "many"],
                                       ["generate", "x", "--temperature", "hot"], ["generate", "x", "--top-k", "2.5"],
                                       ["generate", "x", "--stop"]])
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [("OK", 0), ("note", 0), ("problem", 1)])
def test_check(monkeypatch, capsys, status, code):
    report = EnvironmentReport((Finding("Disk", "full", status, "tidy up"),))
    monkeypatch.setattr(environment, "environment_report", lambda: report)
    assert main(["check"]) == code
    assert capsys.readouterr().out == f"{EnvironmentReport((*report.rows, environment.repository_row()))}\n"


def test_generate_prints_what_the_loop_gives(model_folder, small_tokenizer, capsys):
    assert main(["generate", "The little 小船", "--model", model_folder, "--max-new-tokens", "12"]) == 0
    from course_utils.loading import load_model

    token_ids = torch.tensor([small_tokenizer.encode("The little 小船")])
    ends = sorted(small_tokenizer.end_token_ids)
    expected = generation.generate_text_basic(load_model(model_folder), token_ids, 12, eos_token_id=ends)
    captured = capsys.readouterr()
    assert captured.out == shown(small_tokenizer.decode(expected[0].tolist()))
    assert captured.err == ""


def test_generate_quantizes_the_weights(model_folder, small_tokenizer, capsys):
    from course_utils.loading import load_model
    from course_utils.quantization import quantize

    assert main(["generate", "The little", "--model", model_folder, "--max-new-tokens", "6", "--quantize", "int4"]) == 0
    token_ids = torch.tensor([small_tokenizer.encode("The little")])
    expected = generation.generate_text_basic_cache(quantize(load_model(model_folder), "int4"), token_ids, 6,
                                                    eos_token_id=sorted(small_tokenizer.end_token_ids))
    assert capsys.readouterr().out == shown(small_tokenizer.decode(expected[0].tolist()))


def test_generate_by_default_makes_100_tokens_and_joins_characters(model_folder, scripted, small_tokenizer, capsys):
    calls = scripted("鱼 and moon 月亮")  # the first character is several tokens
    assert main(["generate", "The sea", "--model", model_folder]) == 0
    assert capsys.readouterr().out == "鱼 and moon 月亮\n"
    assert calls == [("The sea", 100, set(small_tokenizer.end_token_ids))]


def test_chat_uses_the_template_and_ends_at_the_end_of_the_turn(model_folder, scripted, small_tokenizer, capsys):
    calls = scripted("Good evening.")
    arguments = ["generate", "Who?", "--model", model_folder, "--chat", "--system", "Be short."]
    assert main(arguments) == main([*arguments, "--think"]) == 0
    (plain, _, ends), (thinking, _, _) = calls
    assert plain.index("<|im_start|>system\nBe short.<|im_end|>") < plain.index("<|im_start|>user\nWho?<|im_end|>")
    assert small_tokenizer.special_tokens["<|im_end|>"] in ends
    assert set(small_tokenizer.end_token_ids) <= ends
    assert plain != thinking
    assert capsys.readouterr().out == "Good evening.\n" * 2


def test_a_seed_decides_which_text_is_drawn(model_folder, capsys):
    def draw(*arguments):
        assert main(["generate", "The sea", "--model", model_folder, "--max-new-tokens", "20", *arguments]) == 0
        return capsys.readouterr().out

    greedy, hot = draw(), ("--temperature", "3")
    assert greedy == draw("--seed", "5") == draw("--temperature", "0") == draw(*hot, "--top-k", "1")
    assert draw(*hot) == draw(*hot, "--seed", "0") != draw(*hot, "--seed", "1")


def test_a_drawn_text_is_that_of_generate(model_folder, small_tokenizer, capsys):
    from course_utils.loading import load_model

    arguments = ["--temperature", "2.5", "--top-k", "90", "--top-p", "0.9", "--min-p", "0.01", "--repetition-penalty",
                 "1.3", "--seed", "11", "--stop", "cat", "--stop", "月"]
    assert main(["generate", "The 小船", "--model", model_folder, "--max-new-tokens", "30", *arguments]) == 0
    expected = completion.generate(load_model(model_folder), small_tokenizer, "The 小船", 30,
                                        Sampling(2.5, 90, 0.9, 0.01, 1.3), 11, ["cat", "月"])
    assert capsys.readouterr().out == shown(expected.text)


@pytest.fixture
def advised(model_folder, tmp_path):
    """A checkpoint whose makers advise sampling."""
    folder = shutil.copytree(model_folder, tmp_path / "advised")
    (folder / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6, "top_k": 20}')
    return str(folder)


def test_each_setting_of_sampling_is_an_option() -> None:
    settings = [field.name for field in fields(Sampling)]
    arguments = [f"--{name.replace('_', '-')}=1" for name in settings]
    options = cli._parser().parse_args(["generate", "once", *arguments])
    assert cli._sampling(options) == Sampling(**dict.fromkeys(settings, 1))


@pytest.mark.parametrize(("arguments", "expected"), [
    ([], GREEDY),
    (["--seed", "3"], GREEDY),
    (["--repetition-penalty", "1.2"], Sampling(0, repetition_penalty=1.2)),
    (["--temperature", "0.5"], Sampling(0.5)),
    (["--top-p", "0.9"], Sampling(1.0, top_p=0.9)),
    (["--min-p", "0.1", "--top-k", "7"], Sampling(1.0, 7, min_p=0.1)),
    (["--sample"], Sampling(0.6, 20)),
    (["--sample", "--temperature", "0.9", "--top-p", "0.8"], Sampling(0.9, 20, 0.8)),
    (["--sample", "--temperature", "0"], Sampling(0, 20)),
])
def test_sampling_is_put_together_from_what_is_given(advised, scripted, arguments, expected):
    scripted("The moon")
    assert main(["generate", "The sea", "--model", advised, *arguments]) == 0
    assert scripted.samplings == [expected]


def test_a_model_without_advice_is_not_sampled_by_it(model_folder, scripted, capsys):
    scripted("The moon")
    for arguments in ([], ["--top-k", "5"]):
        assert main(["generate", "The sea", "--model", model_folder, "--sample", *arguments]) == 2
        assert "do not say how to sample: give --temperature" in capsys.readouterr().err
    assert main(["generate", "The sea", "--model", model_folder, "--sample", "--temperature", "0.7"]) == 0
    assert scripted.samplings == [Sampling(0.7)]


def test_stop_strings_end_the_text(model_folder, scripted, small_tokenizer, capsys):
    scripted("The moon was round. 小船沿着小河走")
    for stops, expected in ((["was"], "The moon "), (["x", "小河"], "The moon was round. 小船沿着"),
                            (["round", "oon"], "The m"), (["走。"], "The moon was round. 小船沿着小河走")):
        arguments = [argument for stop in stops for argument in ("--stop", stop)]
        assert main(["generate", "The sea", "--model", model_folder, *arguments]) == 0
        assert capsys.readouterr().out == expected + "\n"


def test_stats_count_the_tokens_of_a_stop_string(model_folder, scripted, small_tokenizer, capsys):
    scripted("The moon was round")
    assert main(["generate", "The sea", "--model", model_folder, "--stats", "--stop", "round"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "The moon was \n"
    assert f"{len(small_tokenizer.encode('The moon was round'))} new tokens" in captured.err


def test_stats_go_to_stderr(model_folder, scripted, small_tokenizer, capsys):
    scripted("The moon")
    assert main(["generate", "The sea", "--model", model_folder, "--stats"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "The moon\n"
    for part in (f"{len(small_tokenizer.encode('The sea'))} prompt tokens", "first after", "tokens/s", "peak memory",
                 f"{len(small_tokenizer.encode('The moon'))} new tokens", "on cpu"):
        assert part in captured.err


def test_what_the_model_writes_does_not_steer_the_terminal(model_folder, scripted, capsys):
    scripted("a\x1b]0;title\x07\x9b31m\r\u202eb\n\t月\u200d\u3000")
    assert main(["generate", "The sea", "--model", model_folder]) == 0
    assert capsys.readouterr().out == "a\\x1b]0;title\\x07\\x9b31m\\r\\u202eb\n\t月\u200d\u3000\n"
    scripted("moon\x1b", then=KeyboardInterrupt())
    assert main(["generate", "x", "--model", model_folder, "--stop", "\x1b[3"]) == 130
    assert capsys.readouterr().out == "moon\\x1b\n"


@pytest.mark.parametrize("text", ["", "月"])
def test_stats_of_few_tokens(model_folder, scripted, capsys, text):
    scripted(text)
    assert main(["generate", "The sea", "--model", model_folder, "--stats"]) == 0
    assert "new tokens" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--system", "x"], ["--think"], ["--chat", "--device", "abacus"],
                                       ["--max-new-tokens", "-1"], ["--max-new-tokens", "99999"],
                                       ["--model", "no-such"], ["--temperature", "-1"], ["--temperature", "nan"],
                                       ["--top-k", "0"], ["--top-p", "1.5"], ["--min-p", "-0.1"],
                                       ["--repetition-penalty", "0"], ["--seed", "-1"], ["--seed", "9" * 30],
                                       ["--stop", ""]])
def test_an_error_is_a_sentence_on_stderr(model_folder, arguments, capsys):
    assert main(["generate", "The sea", "--model", model_folder, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("course-utils: ")
    assert captured.err.count("\n") == 1


def test_an_empty_prompt_is_explained(model_folder, capsys):
    assert main(["generate", "", "--model", model_folder]) == 2
    assert "at least one token" in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_generated(model_folder, scripted, capsys):
    scripted("The moon 月", then=KeyboardInterrupt())
    assert main(["generate", "x", "--model", model_folder, "--stats"]) == 130
    captured = capsys.readouterr()
    assert captured.out == "The moon 月\n"
    assert "new tokens" in captured.err


def test_ctrl_c_shows_what_was_held_back(model_folder, scripted, capsys):
    scripted("The moon", then=KeyboardInterrupt())
    assert main(["generate", "x", "--model", model_folder, "--stop", "moon was"]) == 130
    assert capsys.readouterr().out == "The moon\n"


def test_ctrl_c_elsewhere(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(hub, "download", interrupt)
    assert main(["download", "qwen3-0.6b"]) == 130
    assert capsys.readouterr().err == "course-utils: interrupted.\n"


def test_download_passes_its_arguments_on_and_prints_the_folder(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(hub, "download", lambda *args, **options: calls.append((args, options)) or Path("folder"))
    assert main(["download", "qwen3-0.6b"]) == 0
    assert main(["download", "qwen3-0.6b", "--revision", "r1", "--endpoint", "http://mirror"]) == 0
    assert calls == [(("qwen3-0.6b",), {"revision": None, "endpoint": None}),
                     (("qwen3-0.6b",), {"revision": "r1", "endpoint": "http://mirror"})]
    assert capsys.readouterr().out == "folder\nfolder\n"


def test_an_error_steers_no_terminal(monkeypatch, capsys):
    def fail(*_, **__):
        raise DownloadError("The hub names the file \x1b[2J\u009b31m\nok\r: leave it.")

    monkeypatch.setattr(hub, "download", fail)
    assert main(["download", "qwen3-0.6b"]) == 2
    assert capsys.readouterr().err == ("course-utils: The hub names the file \\x1b[2J\\x9b31m ok : leave it.\n")


def test_a_download_that_fails(monkeypatch, capsys):
    def fail(*_, **__):
        raise DownloadError("The hub is asleep: wake it.")

    monkeypatch.setattr(hub, "download", fail)
    assert main(["download", "qwen3-0.6b"]) == 2
    assert capsys.readouterr().err == "course-utils: The hub is asleep: wake it.\n"


@pytest.fixture
def checkout(monkeypatch, tmp_path):
    """A source checkout with two chapters and a copy that Jupyter keeps; returns its folder."""
    (tmp_path / "course_utils").mkdir()
    (tmp_path / "notebooks" / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("02_tokenizer.ipynb", "01_environment.ipynb", ".ipynb_checkpoints/00_old.ipynb"):
        (tmp_path / "notebooks" / name).touch()
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "course_utils" / "cli.py"))
    return tmp_path


def test_lab_opens_the_first_chapter_and_passes_arguments_on(monkeypatch, checkout):
    calls = []
    monkeypatch.setattr(cli.subprocess, "call", lambda command: calls.append(command) or 7)
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda _: object())
    assert main(["lab", "--no-browser", "--port=1234"]) == 7
    assert calls == [[sys.executable, "-m", "jupyterlab", str(checkout / "notebooks" / "01_environment.ipynb"),
                      "--no-browser", "--port=1234"]]


def test_lab_without_jupyterlab(monkeypatch, checkout, capsys):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda _: None)
    assert main(["lab"]) == 2
    assert "pip install jupyterlab" in capsys.readouterr().err


def test_lab_from_a_wheel_says_how_to_get_the_notebooks(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "site-packages" / "course_utils" / "cli.py"))
    monkeypatch.chdir(tmp_path)
    assert main(["lab"]) == 2
    assert "repository" in capsys.readouterr().err


def test_lab_from_a_wheel_inside_a_checkout(monkeypatch, checkout, tmp_path):
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "site-packages" / "course_utils" / "cli.py"))
    monkeypatch.chdir(checkout)
    assert cli.first_chapter().name == "01_environment.ipynb"


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX: SIGPIPE")
def test_a_reader_who_goes_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([sys.executable, "-m", "course_utils", "check"], stdout=write, stderr=subprocess.PIPE,
                            timeout=120, check=False, cwd=REPOSITORY, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    os.close(write)
    assert (result.returncode, result.stderr) == (141, b"")


def test_a_terminal_without_the_letters_still_works(model_folder):
    environment_ = {**os.environ, "PYTHONIOENCODING": "ascii", "HF_HUB_OFFLINE": "1"}
    result = run_program("generate", "月亮", "--model", model_folder, "--max-new-tokens", "20", env=environment_)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_bundled_model_writes(capsys):
    assert main(["generate", "The", "--max-new-tokens", "5"]) == 0
    assert capsys.readouterr().out.strip()


def test_a_benchmark_is_interrupted_once():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(KeyboardInterrupt):
            cli._interrupt_once()
        assert all(signal.getsignal(number) == signal.SIG_IGN for number in handlers)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


# Training on one's own text


STORY = "The little boat went down the river, and the river went on to the sea. The moon was round.\n"
QUICK = ("--steps", "4", "--block-length", "16", "--batch", "2", "--held-out", "0.3")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    chat = [{"role": "user", "content": "Where is the moon?"}, {"role": "assistant", "content": "By the sea."}]
    lines = [{"text": STORY * 3}, {"messages": chat}, {"text": "月亮很圆。" * 9}]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def test_a_model_is_trained_from_nothing_and_writes(data, tmp_path, capsys):
    out = tmp_path / "model"
    assert main(["train", "--data", data, "--out", str(out), "--vocabulary", "300", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "step 4: loss" in printed and f"--model {out}" in printed
    assert load_model(out).config.num_hidden_layers == 4
    assert main(["generate", "The moon", "--model", str(out), "--max-new-tokens", "3"]) == 0
    assert load_tokenizer(out).encode_chat([{"role": "user", "content": "x"}])


def test_the_tokenizer_may_be_that_of_a_model(data, tmp_path, model_folder):
    out = tmp_path / "model"
    assert main(["train", "--data", data, "--out", str(out), "--tokenizer", model_folder, *QUICK]) == 0
    assert (out / "tokenizer.json").read_bytes() == (Path(model_folder) / "tokenizer.json").read_bytes()


def test_fine_tuning_changes_all_weights_towards_the_text(data, tmp_path, model_folder, capsys):
    out = tmp_path / "model"
    arguments = ["--data", data, "--learning-rate", "0.02", "--seed", "1", *QUICK, "--steps", "30"]
    assert main(["finetune", "--model", model_folder, "--out", str(out), *arguments]) == 0
    losses = [float(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines()
              if line.startswith("step ")]
    assert losses[-1] < losses[0] - 1
    before, after = load_model(model_folder).state_dict(), load_model(out, dtype=torch.float32).state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before)
    config = "generation_config.json"
    assert json.loads((out / config).read_text()) == json.loads((Path(model_folder) / config).read_text())


def test_fine_tuning_with_lora_gives_an_adapter(data, tmp_path, model_folder):
    out = tmp_path / "adapter"
    assert main(["finetune", "--model", model_folder, "--data", data, "--out", str(out), "--lora", "2", *QUICK]) == 0
    model = load_model(model_folder)
    ids = torch.arange(5)[None]
    before, adapters = model(ids), Adapters(model)
    load_adapter(adapters, "own", out)
    assert adapters.settings["own"].rank == 2 and not torch.equal(model(ids), before)
    assert not (out / "model.safetensors").exists()


def test_an_adapter_generates(tmp_path, model_folder, capsys):
    """As the model does that it was merged into, and other than the model alone."""
    model = load_model(model_folder)
    adapters = Adapters(model)
    adapters.add("own", LoRA(2, targets=("v_proj",)))
    for _, B in adapters.matrices("own").values():
        torch.nn.init.normal_(B, generator=torch.Generator().manual_seed(1))
    save_adapter(adapters, "own", tmp_path / "adapter")
    adapters.merge()
    save_checkpoint(model, tmp_path / "merged")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(model_folder) / file, tmp_path / "merged")
    texts = []
    for arguments in (["--model", model_folder, "--adapter", str(tmp_path / "adapter")],
                      ["--model", str(tmp_path / "merged")], ["--model", model_folder]):
        assert main(["generate", "The moon", "--max-new-tokens", "12", *arguments]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert main(["generate", "The moon", "--model", model_folder, "--adapter", str(tmp_path)]) == 2
    assert "adapter_config.json" in capsys.readouterr().err


def test_without_held_out_text_the_loss_is_still_told(data, tmp_path, model_folder, capsys):
    arguments = ["--data", data, "--out", str(tmp_path / "out"), *QUICK, "--held-out", "0"]
    assert main(["finetune", "--model", model_folder, *arguments]) == 0
    printed = capsys.readouterr().out
    assert all(f"step {step}: loss " in printed for step in (1, 2, 3, 4)) and "held-out loss" not in printed


@pytest.mark.parametrize("command", [("train", "--vocabulary", "300"), ("finetune",), ("finetune", "--lora", "2")],
                         ids=["train", "finetune", "lora"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_goes_on(number, command, data, tmp_path, model_folder, monkeypatch, capsys):
    name, *more = command
    if name == "finetune":
        more += ["--model", model_folder]

    def run(out):
        return main([name, "--data", data, "--out", str(tmp_path / out), *more, *QUICK])

    assert run("whole") == 0
    real = Trainer.update

    def interrupted(trainer):
        if trainer.steps_done == 2:
            signal.raise_signal(number)
        return real(trainer)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test in the background ignores Ctrl-C
    monkeypatch.setattr(Trainer, "update", interrupted)
    try:
        assert run("stopped") == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "The same command goes on" in capsys.readouterr().err
    assert not list((tmp_path / "stopped").glob("*.safetensors"))
    monkeypatch.undo()
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert run("stopped") == 0
    assert "Going on" in capsys.readouterr().out
    (result,) = (tmp_path / "whole").glob("*.safetensors")
    assert (tmp_path / "stopped" / result.name).read_bytes() == result.read_bytes()
    assert run("stopped") == 0  # and once more does nothing


@pytest.mark.parametrize("begun", ["a full disk", "killed before", "killed within", "killed in the log"])
def test_a_training_goes_on_that_ended_before_its_settings(begun, data, tmp_path, model_folder, monkeypatch, capsys):
    out, training = tmp_path / "out", tmp_path / "out" / "training"
    arguments = ["finetune", "--model", model_folder, "--data", data, "--out", str(out), "--lora", "2", *QUICK]
    if begun == "a full disk":
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "replace", full)
            assert main(arguments) == 2
        assert "No space left on device" in capsys.readouterr().err
    else:
        training.mkdir(parents=True)
        if begun != "killed before":
            for name in (".settings.json.123.tmp", ".training.lock"):
                (training / name).write_text("{")
            (out / ".adapter_model.safetensors.123.tmp").write_text("half")
        if begun == "killed in the log":
            settings = {"command": "finetune", "model": model_folder, "lora": 2}
            (training / "settings.json").write_text(json.dumps(settings))
            (training / ".training.jsonl.123.tmp").write_text("{")
    assert main(arguments) == 0
    assert {path.name for path in training.iterdir()} == {"settings.json", "training.jsonl", "training.safetensors"}
    assert not list(out.glob(".*"))


def test_a_folder_that_only_has_the_name_is_left_alone(data, tmp_path, model_folder, capsys):
    (tmp_path / "out" / "training").mkdir(parents=True)
    (tmp_path / "out" / "training" / "diary.txt").write_text("mine")
    assert main(["finetune", "--model", model_folder, "--data", data, "--out", str(tmp_path / "out"), *QUICK]) == 2
    assert "holds training already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["training", "diary.txt"]


def test_special_tokens_in_a_text_are_told(tmp_path, model_folder, capsys):
    (tmp_path / "data.txt").write_text((STORY + "<|im_end|>") * 9)
    assert main(["finetune", "--model", model_folder, "--data", str(tmp_path / "data.txt"), "--out",
                 str(tmp_path / "out"), *QUICK]) == 0
    assert "are written 9 times in plain texts" in capsys.readouterr().out


def test_what_is_in_the_folder_is_not_overwritten(data, tmp_path, model_folder, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(model_folder, copy)
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    for command in (["train"], ["finetune", "--model", str(copy)], ["finetune", "--model", model_folder]):
        assert main([*command, "--data", data, "--out", str(copy), *QUICK]) == 2
        assert str(copy) in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_another_training_is_not_gone_on_with(data, tmp_path, model_folder, capsys):
    arguments = ["finetune", "--model", model_folder, "--data", data, "--out", str(tmp_path / "out"), *QUICK]
    assert main([*arguments, "--lora", "2"]) == 0
    for more, said in ((["--lora", "4"], "lora 2 instead of 4"), ([], "lora 2 instead of None"),
                       (["--lora", "2", "--steps", "9"], "steps 4 instead of 9")):
        assert main([*arguments, *more]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [
    ["--data", "no-such"], ["--steps", "0"], ["--block-length", "0"], ["--batch", "-1"], ["--learning-rate", "nan"],
    ["--learning-rate", "-1"], ["--held-out", "1"], ["--held-out", "-0.1"], ["--seed", "-1"],
    ["--seed", str(2**64)], ["--device", "abacus"],
    ["--block-length", "600"], ["--lora", "0"], ["--model", "no-such"]])
def test_a_training_that_cannot_be_leaves_no_folder(arguments, data, tmp_path, model_folder, capsys):
    out = tmp_path / "out"
    assert main(["finetune", "--model", model_folder, "--data", data, "--out", str(out), *QUICK, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("course-utils: ") and captured.err.count("\n") == 1 and not out.exists()


def test_a_vocabulary_smaller_than_the_bytes(data, tmp_path, capsys):
    assert main(["train", "--data", data, "--out", str(tmp_path / "out"), "--vocabulary", "100"]) == 2
    assert "256" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(data, tmp_path, model_folder, capsys):
    (tmp_path / "file").write_text("x")
    assert main(["finetune", "--model", model_folder, "--data", data, "--out", str(tmp_path / "file" / "out"),
                 *QUICK]) == 2
    assert "another folder" in capsys.readouterr().err


@pytest.mark.parametrize("out", [".", "model", "deep/model"])
def test_the_result_does_not_lie_among_the_data(out, data, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / out), *QUICK]) == 2
    assert "lies in the data" in capsys.readouterr().err and sorted(tmp_path.rglob("*")) == before
