"""The course from a terminal: `course-utils check`, `generate`, `train`, `finetune`, `bench`, `download`,
`progress`, `lab` and `update`.

Exit status: 0 it worked; 1 `check` found a problem; 2 a wrong argument or an error that is explained on stderr; 130
interrupted by Ctrl-C; 141 the reader of the output has gone.
"""

from __future__ import annotations

# What one command alone needs is imported by that command.
import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from course_utils.errors import CourseError, InputError
from course_utils.language import gettext
from course_utils.printable import printable
from course_utils.workshop.agendas import AGENDAS

if TYPE_CHECKING:
    from course_utils.sampling import Sampling
    from course_utils.training.commands import OwnTraining
    from course_utils.workshop.board import Board

PROBLEM, ERROR, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: those after the program's name; None takes them from the command line.

    Returns:
        The exit status. Wrong arguments and `--help` leave by `SystemExit`, as `argparse` does.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = _parser(settings="generate" in arguments)
    options, rest = parser.parse_known_args(arguments)
    if rest and options.run is not _lab:
        parser.error(gettext("unknown argument: {rest}").format(rest=" ".join(rest)))
    options.rest = rest
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a letter shows "?" instead
            stream.reconfigure(errors="replace")
    try:
        status: int = options.run(options)
        sys.stdout.flush()  # while a broken pipe can still be caught
        return status
    except CourseError as error:
        print(f"course-utils: {error}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        goes_on = options.run in (_train, _finetune)
        print(gettext("course-utils: interrupted.")
              + gettext(" The same command goes on with the training.") * goes_on, file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python would complain once more when it closes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


class _Parser(argparse.ArgumentParser):
    """A parser that explains its arguments in the reader's language; `help` is given in English."""

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        if settings.get("help") not in (None, argparse.SUPPRESS):
            settings["help"] = gettext(settings["help"])
        return super().add_argument(*names, **settings)


def _parser(settings: bool = True) -> argparse.ArgumentParser:
    """Args: settings: whether `generate` gets its options for `Sampling`, which imports PyTorch; others do without."""
    parser = _Parser(prog="course-utils", description=gettext("How a language model writes text: the course "
                                             "from a terminal."), allow_abbrev=False)
    commands = parser.add_subparsers(title=gettext("commands"), metavar="COMMAND", required=True)

    check = commands.add_parser("check", help=gettext("show what this computer has for the course"), allow_abbrev=False)
    check.add_argument("files", nargs="*", type=Path, metavar="FILE", help="for an instructor: show whose computers "
                       "are ready, of learners who sent such a file")
    check.add_argument("--workshop", type=Path, metavar="FILE", help="look at what a workshop needs, too, and write it "
                       "to a file for the instructor")
    check.add_argument("--for", dest="agenda", choices=AGENDAS, help="with --workshop: which one (default: half-a-day)")
    check.add_argument("--name", default="", help="with --workshop: what to call you there (default: no name)")
    check.set_defaults(run=_check)

    generate = commands.add_parser("generate", help=gettext("continue a text, or answer in a chat"), allow_abbrev=False)
    generate.add_argument("prompt", metavar="PROMPT", help="the text to continue, or the question of a chat")
    generate.add_argument("--model", metavar="NAME", help="tiny, nano, a Qwen3 model of the hub such as "
                          "qwen3-0.6b, or a folder (default: COURSE_MODEL, or tiny)")
    generate.add_argument("--max-new-tokens", type=int, default=100, metavar="N", help="default: %(default)s")
    generate.add_argument("--sample", action="store_true", help="draw the tokens as the model's makers advise "
                          "(default: always the likeliest); what is given beside it goes before")
    if settings:
        from course_utils.sampling import Sampling

        for setting in fields(Sampling):
            kind = int if "int" in str(setting.type) else float
            generate.add_argument(f"--{setting.name.replace('_', '-')}", type=kind, **setting.metadata)
    generate.add_argument("--seed", type=int, default=0, metavar="N", help="another seed draws another text (default: "
                          "%(default)s)")
    generate.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be "
                          "given several times")
    generate.add_argument("--chat", action="store_true", help="answer the prompt instead of continuing it")
    generate.add_argument("--system", metavar="TEXT", help="with --chat: what the model is told beforehand")
    generate.add_argument("--think", action="store_true", help="with --chat: let the model think aloud first")
    generate.add_argument("--device", metavar="NAME", help="cuda, mps, xpu or cpu (default: COURSE_DEVICE, or the "
                          "fastest)")
    generate.add_argument("--quantize", choices=("int8", "int4"), help="store the weights in 8 or 4 bits: faster, a "
                          "little worse")
    generate.add_argument("--adapter", metavar="FOLDER", help="use an adapter of the model, as finetune --lora or peft "
                          "writes it")
    generate.add_argument("--stats", action="store_true", help="print tokens, times and memory at the end, on stderr")
    generate.set_defaults(run=_generate)

    train = commands.add_parser("train", help=gettext("train a small model from nothing on your own text"),
                                allow_abbrev=False)
    _add_training_arguments(train, steps=1000, block_length=128, batch=16, learning_rate=3e-3)
    train.add_argument("--size", choices=("tiny", "nano"), default="nano", help="as large as which bundled model "
                       "(default: %(default)s)")
    train.add_argument("--tokenizer", metavar="NAME", help="take the tokenizer of this model (default: one that is "
                       "trained on your text)")
    train.add_argument("--vocabulary", type=int, default=4000, metavar="N", help="tokens of a new tokenizer (default: "
                       "%(default)s)")
    train.set_defaults(run=_train)

    finetune = commands.add_parser("finetune", help=gettext("train a model further on your own text or chats"),
                                   allow_abbrev=False)
    _add_training_arguments(finetune, steps=300, block_length=256, batch=8, learning_rate=None)
    finetune.add_argument("--model", metavar="NAME", help="as generate takes it")
    finetune.add_argument("--lora", type=int, metavar="RANK", help="train an adapter of this rank, such as 8, beside "
                          "the weights (default: train the weights themselves)")
    finetune.set_defaults(run=_finetune)

    download = commands.add_parser("download", help=gettext("fetch a model from the hub and verify it"),
                                   allow_abbrev=False)
    download.add_argument("model", metavar="MODEL", help="such as qwen3-0.6b-base")
    download.add_argument("--revision", metavar="NAME", help="branch, tag or commit (default: main)")
    download.add_argument("--endpoint", metavar="ADDRESS", help="the hub or a mirror (default: HF_ENDPOINT, or "
                          "huggingface.co)")
    download.set_defaults(run=_download)

    bench = commands.add_parser("bench", help=gettext("measure every way of generating on this computer"),
                                allow_abbrev=False)
    bench.add_argument("--model", metavar="NAME", help="measure a model, as generate takes it")
    bench.add_argument("--shape", metavar="NAME", help="measure random weights in the shape of a Qwen3 model, such as "
                       "qwen3-1.7b (default: that of qwen3-0.6b)")
    bench.add_argument("--rows", metavar="NAMES", help="some of regular, compiled, kv, kv-compiled, static, int8, "
                       "int8-pytorch, int4, int4-pytorch, native, int8-native, int4-native and of the peers, with "
                       "commas between them (default: all but the peers)")
    bench.add_argument("--prompt-tokens", type=int, metavar="N", help="length of the prompt (default: 512)")
    bench.add_argument("--new-tokens", type=int, default=48, metavar="N", help="tokens after it (default: %(default)s)")
    bench.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each row (default: %(default)s)")
    bench.add_argument("--contexts", metavar="LENGTHS", help="numbers of past tokens at which a step is timed "
                       "(default: 128,1024,4096)")
    bench.add_argument("--device", metavar="NAME", help="cuda, mps, xpu or cpu (default: COURSE_DEVICE, or the "
                       "fastest)")
    bench.add_argument("--seed", type=int, default=0, metavar="N", help="of prompt and weights (default: %(default)s)")
    bench.add_argument("--json", metavar="FILE", help="write all figures there; - is stdout, and then the table goes "
                       "to stderr")
    bench.add_argument("--plot", metavar="FILE", help="draw speeds and roofline there, as .png or .svg")
    bench.add_argument("--peers", action="store_true", help="add transformers, the textbook package and llama.cpp "
                       "where they are installed, and show figures that others have published")
    bench.set_defaults(run=_bench)

    progress = commands.add_parser("progress", help=gettext("show which exercises you have passed"), allow_abbrev=False)
    progress.add_argument("files", nargs="*", type=Path, metavar="FILE", help="for an instructor: show these learners, "
                          "each of whom exported such a file; a folder is all such files in it")
    progress.add_argument("--chapter", type=int, metavar="N", help="show one chapter: your own exercises, or for an "
                          "instructor who is stuck on what for how long, and where most are")
    progress.add_argument("--roster", type=Path, metavar="FILE", help="with --chapter and files: a text file with a "
                          "name in each line, to see who has no file")
    progress.add_argument("--watch", action="store_true", help="with --chapter and files: look again every "
                          "two seconds, until Ctrl-C")
    progress.add_argument("--export", type=Path, metavar="FILE", help="write your progress to a file for an instructor")
    progress.add_argument("--name", default="", help="with --export: what to call you there (default: no name)")
    progress.set_defaults(run=_progress)

    lab = commands.add_parser("lab", help=gettext("open the first chapter in JupyterLab; further arguments are "
                                      "JupyterLab's, such as --no-browser"), allow_abbrev=False)
    lab.add_argument("--copy", type=Path, metavar="FOLDER", help="work in copies of the chapters there, which are made "
                     "if need be: what you write stays apart from the course")
    lab.set_defaults(run=_lab)

    update = commands.add_parser("update", help=gettext("bring the course's present version into the copies of lab "
                                                        "--copy, with your answers"), allow_abbrev=False)
    update.add_argument("folder", type=Path, metavar="FOLDER", help="with the copies; files that change are kept "
                        "beside them")
    update.set_defaults(run=_update)
    return parser


def _add_training_arguments(parser: argparse.ArgumentParser, steps: int, block_length: int, batch: int,
                            learning_rate: float | None) -> None:
    """Those that `train` and `finetune` share, with their defaults."""
    parser.add_argument("--data", required=True, metavar="PATH", help="a text file, a file of records (.json, .jsonl "
                        'or .csv with {"text": ...}, {"messages": [...]}, ShareGPT or Alpaca), or a folder of these')
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the result goes; after an "
                        "interruption the same command goes on there")
    parser.add_argument("--steps", type=int, default=steps, metavar="N", help="updates (default: %(default)s)")
    parser.add_argument("--block-length", type=int, default=block_length, metavar="N", help="tokens seen at once "
                        "(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=batch, metavar="N", help="blocks in an update (default: "
                        "%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=learning_rate, metavar="X", help="at its peak (default: "
                        "%(default)s)" if learning_rate else "at its peak (default: 0.0003, with --lora 0.002)")
    parser.add_argument("--held-out", type=float, default=0.1, metavar="SHARE", help="share of the text that is only "
                        "measured on, 0 to below 1 (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is random (default: "
                        "%(default)s)")
    parser.add_argument("--device", metavar="NAME", help="cuda, mps, xpu or cpu (default: COURSE_DEVICE, or the "
                        "fastest)")


def _check(options: argparse.Namespace) -> int:
    if options.workshop is None and (options.name or options.agenda):
        raise InputError("--name and --for are for the file that --workshop writes: add --workshop FILE.")
    if options.workshop is not None and options.files:
        raise InputError("--workshop looks at your own computer, and the files are those of others: give one or the "
                         "other.")
    if options.workshop is not None:
        from course_utils.workshop.commands import check_computer

        ready = check_computer(_output_file(str(options.workshop)), options.agenda or "half-a-day", options.name,
                               _notebooks())
        return 0 if ready else PROBLEM
    if options.files:
        from course_utils.workshop.commands import show_computers

        all_read, all_ready = show_computers(options.files)
        return ERROR if not all_read else 0 if all_ready else PROBLEM

    from course_utils.environment import EnvironmentReport, environment_report, repository_row

    report = EnvironmentReport((*environment_report().rows, repository_row()))
    print(printable(str(report), keep="\n"), flush=True)
    return PROBLEM if report.problems else 0


def _generate(options: argparse.Namespace) -> int:
    for name in ("system", "think"):
        if getattr(options, name) and not options.chat:
            raise InputError(gettext("--{name} is given without --chat, and only a chat has that: "
                                     "add --chat or leave it out.").format(name=name))

    from course_utils.adapter_checkpoint import load_adapter
    from course_utils.completion import stream
    from course_utils.device import get_device
    from course_utils.loading import load_model, load_tokenizer
    from course_utils.lora import Adapters
    from course_utils.native import native_model
    from course_utils.quantization import quantize
    from course_utils.sampling import random_generator

    sampling, generator = _sampling(options), random_generator(options.seed)
    device = get_device(options.device)
    tokenizer = load_tokenizer(options.model)
    if options.chat:
        messages = [{"role": "system", "content": options.system}] if options.system else []
        messages.append({"role": "user", "content": options.prompt})
        prompt_ids = tokenizer.encode_chat(messages, enable_thinking=options.think)
    else:
        prompt_ids = tokenizer.encode(options.prompt)
    ends = tokenizer.turn_end_token_ids if options.chat else tokenizer.end_token_ids
    model = load_model(options.model, device=device)
    if options.quantize is not None:
        model = quantize(model, options.quantize)
    if options.adapter is not None:
        load_adapter(Adapters(model), "own", options.adapter)
    model = native_model(model)

    text = stream(model, tokenizer, prompt_ids, options.max_new_tokens, sampling, generator, options.stop, ends)
    times, status = [time.perf_counter()], 0
    try:
        for piece in text:
            print(printable(piece, keep="\n\t"), end="", flush=True)
            if len(text.token_ids) == len(times):  # the last piece comes without a token
                times.append(time.perf_counter())
    except KeyboardInterrupt:
        print(printable(text.interrupt(), keep="\n\t"), end="")
        status = INTERRUPTED
    print(flush=True)
    if options.stats:
        _print_stats(len(prompt_ids), times, device)
    return status


def _sampling(options: argparse.Namespace) -> Sampling:
    """The settings that were given, on top of the model's own or of plain sampling; greedy if there are none."""
    from course_utils.loading import load_sampling
    from course_utils.sampling import GREEDY, Sampling

    given = {field.name: value for field in fields(Sampling) if (value := getattr(options, field.name)) is not None}
    if options.sample:
        sampling = replace(load_sampling(options.model), **given)
        if sampling.temperature == 0 and options.temperature is None:
            raise InputError("This model's files do not say how to sample: give --temperature instead of --sample.")
        return sampling
    # A repetition penalty alone makes no draw: the likeliest is then the likeliest after the penalty.
    return replace(GREEDY if given.keys() <= {"repetition_penalty"} else Sampling(), **given)


def _print_stats(prompt_length: int, times: Sequence[float], device: object) -> None:
    """Args: times: of the start and of each new token, in seconds."""
    import torch

    from course_utils.device import peak_memory
    from course_utils.timing import format_bytes, format_seconds

    count = len(times) - 1
    facts = [gettext("{count} prompt tokens").format(count=prompt_length),
             gettext("{count} new tokens").format(count=count)]
    if count:
        facts.append(gettext("first after {format_seconds}").format(format_seconds=format_seconds(times[1] - times[0])))
    if count > 1:  # the first one is the prompt's time, not the decoding's
        facts.append(gettext("then {count:.1f} tokens/s").format(count=(count - 1) / (times[-1] - times[1])))
    facts.append(gettext("peak memory {format_bytes}").format(
        format_bytes=format_bytes(peak_memory(torch.device(str(device))))))
    facts.append(gettext("on {device}").format(device=device))
    print(f"[{', '.join(facts)}]", file=sys.stderr)


def _bench(options: argparse.Namespace) -> int:
    if options.model is not None and options.shape is not None:
        raise InputError("--model and --shape are both given, and only one model is measured at a time: leave one out.")
    json_file = None if options.json in (None, "-") else _output_file(options.json)
    plot_file = None if options.plot is None else _output_file(options.plot, (".png", ".svg"))
    contexts = None if options.contexts is None else _numbers("--contexts", options.contexts)

    from course_utils.benchmark import Subject, choose_rows, choose_settings, run_benchmark
    from course_utils.device import get_device

    rows = choose_rows(None if options.rows is None else options.rows.split(","), options.peers)
    subject = Subject.of_shape(options.shape) if options.model is None else Subject.of_model(options.model)
    settings = choose_settings(subject.config, options.prompt_tokens, contexts, options.new_tokens, options.runs,
                               options.seed)
    device = get_device(options.device)
    # A benchmark that is told to end does so as if by Ctrl-C: else gigabytes of weights would stay on the disk.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt_once)
    report = run_benchmark(rows, subject, settings, device)
    if options.peers:
        from course_utils.benchmark.published import TEXTBOOK

        report.published = TEXTBOOK
    print(printable(str(report), keep="\n"), file=sys.stderr if options.json == "-" else sys.stdout)
    if options.json == "-":
        print(report.to_json(), end="")
    elif json_file is not None:
        report.write_json(json_file)
    if plot_file is not None and report.bandwidth() is None:
        print(gettext("course-utils: nothing was measured, so nothing is drawn."), file=sys.stderr)
    elif plot_file is not None:
        from course_utils.plots.speed import save_benchmark_picture

        print(save_benchmark_picture(report, plot_file), file=sys.stderr)
    return INTERRUPTED if report.interrupted else 0


def _interrupt_once(*_: object) -> None:
    """End a benchmark; a second signal, such as `timeout` sends, must not cost what was measured."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _output_file(name: str, suffixes: Sequence[str] = ()) -> Path:
    """Raises: InputError: if there cannot be such a file; better said before minutes of measuring than after."""
    path = Path(name)
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(gettext("{name!r} is no kind of picture that can be drawn: end its name with {suffixes}"
                                 ".").format(name=name, suffixes=" or ".join(suffixes)))
    try:  # permissions, a read-only or full disk, a name too long: only trying tells
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise InputError(gettext("{name!r} cannot be written: give a file in a folder that exists.").format(
                name=name))
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent):
            pass
    except OSError as error:
        raise InputError(gettext("{name!r} cannot be written ({strerror}): give a file in another folder.").format(
            name=name, strerror=error.strerror)) from error
    return path


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(gettext("{option} is {text!r}: give whole numbers with commas between them, such as "
                                 "128,1024.").format(option=option, text=text)) from None


def _train(options: argparse.Namespace) -> int:
    from course_utils.device import get_device
    from course_utils.training.commands import train_own

    with _termination_as_interrupt():
        folder = train_own(_own_training(options), options.size, options.vocabulary, options.tokenizer,
                           get_device(options.device))
    print(gettext("The model is done. Try: course-utils generate \"...\" --model {folder}").format(folder=folder))
    return 0


def _finetune(options: argparse.Namespace) -> int:
    from course_utils.device import get_device
    from course_utils.training.commands import finetune_own

    if options.learning_rate is None:
        options.learning_rate = 3e-4 if options.lora is None else 2e-3
    with _termination_as_interrupt():
        folder = finetune_own(_own_training(options), options.model, options.lora, get_device(options.device))
    if options.lora is None:
        print(gettext("The model is done. Try: course-utils generate \"...\" --model {folder}").format(folder=folder))
    else:
        of_model = "" if options.model is None else f" --model {options.model}"
        print(gettext("The adapter is done, and peft reads it too. Try: course-utils generate \"...\"{of_model} "
                      "--adapter {folder}").format(of_model=of_model, folder=folder))
    return 0


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Who is told to end by SIGTERM saves what was trained, as after Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _own_training(options: argparse.Namespace) -> OwnTraining:
    from course_utils.training.commands import OwnTraining

    return OwnTraining(**{field.name: getattr(options, field.name) for field in fields(OwnTraining)})


def _download(options: argparse.Namespace) -> int:
    from course_utils.hub import download

    print(printable(str(download(options.model, revision=options.revision, endpoint=options.endpoint))))
    return 0


def _progress(options: argparse.Namespace) -> int:
    from course_utils.exercises.progress import export_progress, own_progress
    from course_utils.exercises.progress_table import chapter_table, learners_table, progress_table
    from course_utils.workshop.board import board_of
    from course_utils.workshop.learners import read_learners, read_roster, watch_class

    if options.export is None and options.name:
        raise InputError("--name is given without --export, and only an exported file bears a name: add --export FILE.")
    if options.export is not None and options.files:
        raise InputError("--export writes your own progress, and the files are those of others: give one or the other.")
    if (options.roster is not None or options.watch) and (not options.files or options.chapter is None):
        raise InputError("--roster and --watch are for the board of a class in one chapter: give the folder with the "
                         "learners' files, and --chapter N.")
    if options.export is not None:
        print(progress_table(export_progress(_output_file(str(options.export)), options.name)))
        print(gettext("Written to {export}.").format(export=options.export))
        return 0
    if not options.files:
        own = own_progress()
        print(progress_table(own) if options.chapter is None else chapter_table(own, options.chapter))
        return 0
    roster = None if options.roster is None else read_roster(options.roster)

    def look() -> Board:
        learners, troubles = read_learners(options.files)
        return board_of(options.chapter, learners, roster, troubles=troubles)

    if options.watch:
        watch_class(look)
        return 0
    if options.chapter is not None:
        print(board := look())
        return ERROR if board.troubles else 0
    learners, troubles = read_learners(options.files)
    for trouble in troubles:
        print(f"course-utils: {printable(trouble)}", file=sys.stderr)
    if learners:
        print(learners_table(learners))
    return ERROR if troubles else 0


def _lab(options: argparse.Namespace) -> int:
    chapter = first_chapter()
    if importlib.util.find_spec("jupyterlab") is None:
        raise InputError("JupyterLab is not installed for this Python. "
                         "Run: python -m pip install jupyterlab ipywidgets")
    if options.copy is not None:
        from course_utils.workshop.copies import copy_chapters, outdated

        made, old = copy_chapters(chapter.parent, options.copy), outdated(chapter.parent, options.copy)
        folder = printable(str(options.copy))
        print((gettext("{count} chapters were copied to {folder}.") if made else
               gettext("Your copies are in {folder}.")).format(count=len(made), folder=folder), flush=True)
        if old:
            print(gettext("The course has another version of {count} of them: course-utils update {folder} brings it "
                          "and keeps your answers.").format(count=len(old), folder=folder), flush=True)
        chapter = options.copy / chapter.name
    return subprocess.call([sys.executable, "-m", "jupyterlab", str(chapter), *options.rest])


def _update(options: argparse.Namespace) -> int:
    from course_utils.workshop.copies import update_copies

    print(printable(str(update_copies(first_chapter().parent, options.folder)), keep="\n"))
    return 0


def first_chapter() -> Path:
    """The notebook of chapter 1, in the source checkout that this package belongs to, or in the current folder.

    Raises:
        InputError: if neither has one: a wheel brings the package, not the notebooks.
    """
    for folder in (Path(__file__).resolve().parent.parent, Path.cwd()):
        chapters = sorted(path for path in (folder / "notebooks").rglob("*.ipynb")
                          if ".ipynb_checkpoints" not in path.parts)
        if chapters:
            return chapters[0]
    raise InputError("The notebooks are not here: the installed package comes without them. Get the course's "
                     "repository (git clone, or its ZIP file) and run course-utils lab inside it.")


def _notebooks() -> Path | None:
    try:
        return first_chapter().parent
    except InputError:
        return None
