"""Fixtures that several test files share."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from asked_for import ASKED_FOR_BY_NAME, asked_for
from hub_server import CONFIG

from course_utils import hub_requests, kernels, native
from course_utils.checkpoint import save_checkpoint
from course_utils.exercises import chapters
from course_utils.kernels import build
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.training.bpe import train_bpe

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL_TEXT = [
    "The little boat went down the river, and the river went on to the sea.",
    "A cat sat by the window and looked at the moon. It was late; the moon was round.",
    "小船沿着小河走，小河流到大海。",
    "小猫坐在窗前看月亮，月亮很圆。",
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs what few machines have, such as a browser or a GPU, unless -m names it: see asked_for.py.

    Raises:
        UsageError: if a test's name holds an address, which is another one in each process that collects it.
    """
    for item in items:
        if re.search(r" at 0x[0-9a-f]{6}", item.nodeid):
            raise pytest.UsageError(f"{item.nodeid} has an address in its name: name its cases by `ids`.")
    not_asked_for = ASKED_FOR_BY_NAME - asked_for(config.getoption("markexpr"))
    left_out = [item for item in items if any(mark.name in not_asked_for for mark in item.iter_markers())]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests have counted, in whichever process they ran; they tell it by `record_property`."""
    counted: dict[str, list[Any]] = {}
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport) and report.when == "call":
            for name, value in report.user_properties:
                counted.setdefault(name, []).append(value)
    for faults in counted.get("injected faults of the hub", []):
        terminalreporter.write_line(f"The hub was tried with {faults} injected faults.")
    if proofs := counted.get("wrong and right answers", []):
        wrong, right = (sum(counts) for counts in zip(*proofs))
        terminalreporter.write_line(f"Checks of {len(proofs)} exercises were tried on {wrong:,} wrong answers and on "
                                    f"{right:,} right ones in other styles; `-s` shows the table.")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The models of the tests are so small that a second thread costs more than it brings, whatever the test before has
    left."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def progress_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here they are wanted: notebooks, which pytest runs in the same process, are compared without them."""
    monkeypatch.delenv("TQDM_DISABLE", raising=False)


@pytest.fixture(autouse=True)
def no_progress_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test adds to the progress of whoever runs it."""
    monkeypatch.setenv("COURSE_PROGRESS", "")


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the package says is compared in English, whatever the system speaks."""
    monkeypatch.setenv("COURSE_LANGUAGE", "en")


@pytest.fixture
def chapter_98(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chapter that only tests have: exercises 98.1 and 98.2, question 98.A."""
    monkeypatch.setattr(chapters, "__path__", [*chapters.__path__, str(REPOSITORY / "tests" / "chapter_98")])


@pytest.fixture
def hub_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of one's own for models of the hub, no token, no proxy, no progress bars, and no pauses."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT", "HTTP_PROXY", "http_proxy",
                 "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub_requests, "RETRY_PAUSE", 0.0)
    monkeypatch.setattr(huggingface_hub.file_download, "time", SimpleNamespace(sleep=lambda seconds: None))
    huggingface_hub.utils.disable_progress_bars()
    huggingface_hub.close_session()  # the next one reads the environment anew
    return tmp_path / "hub"


@pytest.fixture(scope="session")
def hub_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a very small model, and others that a hub has beside them."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    save_checkpoint(Qwen3Model(CONFIG), folder, {"eos_token_id": 0})
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    return content | {"tokenizer.json": b"{}", "README.md": b"not needed", "pytorch_model.bin": b"unwanted",
                      "onnx/config.json": b"not ours"}


@pytest.fixture
def passes(model: Qwen3Model) -> Iterator[list[int]]:
    """How many tokens each forward pass of a test file's `model` was given."""
    counts: list[int] = []
    handle = model.model.embed_tokens.register_forward_pre_hook(lambda _, ids: counts.append(ids[0].shape[1]))
    yield counts
    handle.remove()


@pytest.fixture(scope="session")
def own_chat_template() -> Path:
    """The chat template of the bundled models."""
    return REPOSITORY / "course_utils" / "training" / "chat_template.jinja"


@pytest.fixture(scope="session")
def small_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory, own_chat_template: Path) -> Path:
    """A checkpoint folder without weights: a byte-level BPE of the Qwen3 kind with some 400 tokens.

    Tests share it: work on a copy to change anything.
    """
    tokenizer = train_bpe(SMALL_TEXT, 400)
    folder = tmp_path_factory.mktemp("small_tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    end_token_ids = [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end_token_ids}))
    shutil.copy(own_chat_template, folder)
    return folder


@pytest.fixture(scope="session")
def small_tokenizer(small_tokenizer_folder: Path) -> Qwen3Tokenizer:
    """The tokenizer of `small_tokenizer_folder`."""
    return Qwen3Tokenizer(small_tokenizer_folder)


@pytest.fixture(scope="session")
def qwen3_tokenizer_folder() -> Path:
    """The real Qwen3 tokenizer with its chat template, where this machine has it.

    The folder is what the environment variable COURSE_QWEN3_TOKENIZER names, else `../shared/qwen3_tokenizer` beside
    the repository.
    """
    named = os.environ.get("COURSE_QWEN3_TOKENIZER")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "qwen3_tokenizer"
    missing = [name for name in ("tokenizer.json", "chat_template.jinja") if not (folder / name).is_file()]
    if missing and named:
        pytest.fail(f"COURSE_QWEN3_TOKENIZER names {named}, where there is no {' and no '.join(missing)}: correct or "
                    "unset it.")
    if missing:
        pytest.skip("needs the real Qwen3's tokenizer: COURSE_QWEN3_TOKENIZER names no folder with it, and "
                    "../shared/qwen3_tokenizer is not there")
    return folder


@pytest.fixture(scope="session")
def qwen3_tokenizer(qwen3_tokenizer_folder: Path) -> Qwen3Tokenizer:
    """The tokenizer of the real Qwen3."""
    return Qwen3Tokenizer(qwen3_tokenizer_folder)


@pytest.fixture(scope="session", params=["small", "qwen3"])
def tokenizer(request: pytest.FixtureRequest) -> Qwen3Tokenizer:
    """Each tokenizer in turn; the real one is skipped where it is absent."""
    found: Qwen3Tokenizer = request.getfixturevalue(f"{request.param}_tokenizer")
    return found


@pytest.fixture
def forgetful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The kernels as in a new process, with an empty cache: its folder."""
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remembered = (kernels.problem, kernels.instruction_set, kernels._compiler, kernels.current_function,
                  native._trial_problem)
    for function in remembered:
        function.cache_clear()
    yield tmp_path / "cache" / "course-utils" / "kernels"
    for function in remembered:
        function.cache_clear()


@pytest.fixture
def change_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Changes a C file, in a copy from which kernels are compiled from then on."""

    def change(name: str, right: str, wrong: str) -> None:
        shutil.copytree(build.SOURCES, tmp_path / "sources")
        monkeypatch.setattr(build, "SOURCES", tmp_path / "sources")
        file = tmp_path / "sources" / name
        text = file.read_text()
        assert text.count(right) == 1
        file.write_text(text.replace(right, wrong))

    return change
