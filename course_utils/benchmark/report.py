"""What was measured, as plain data: to be printed as a table, written as JSON, and read back."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from course_utils.benchmark.published import Published
from course_utils.config import Qwen3Config
from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.printable import aligned
from course_utils.timing import format_bytes

_DASH = "-"


@dataclass(frozen=True)
class Settings:
    """What was asked for.

    Attributes:
        prompt_tokens: length of the prompt, whose reading is the prefill.
        new_tokens: tokens generated after it, whose speed is the decoding's.
        runs: how often each row does that, after its warm-up.
        contexts: numbers of past tokens at which the time of a step is measured.
        seed: of the prompt, and of random weights.
    """

    prompt_tokens: int = 512
    new_tokens: int = 48
    runs: int = 3
    contexts: tuple[int, ...] = (128, 1024, 4096)
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """One generation.

    Attributes:
        first: seconds to the first token, prompt included.
        steps: seconds of each further token.
        bandwidth: bytes per second that the device read from its memory just before.
    """

    first: float
    steps: list[float]
    bandwidth: float


@dataclass(frozen=True)
class Spread:
    """Several figures of the same thing: the middle one, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None if there are no values."""
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass
class RowResult:
    """All figures of one row; those that were not reached are empty.

    Attributes:
        name, title: of the row.
        weight_bytes: bytes of weights that a step reads.
        cache_bytes: bytes of keys and values that it reads for each past token.
        runs: in the order in which they were measured.
        step_seconds: number of past tokens, and the median of a few steps there.
        compile_seconds: how much longer the first generation took than the second one; None if nothing is compiled.
        peak_memory: in bytes, while generating.
        note: what a reader has to know about the figures.
        problem: why there are none, or no more.
    """

    name: str
    title: str
    weight_bytes: int = 0
    cache_bytes: int = 0
    runs: list[Run] = field(default_factory=list)
    step_seconds: dict[int, float] = field(default_factory=dict)
    compile_seconds: float | None = None
    peak_memory: int | None = None
    note: str = ""
    problem: str = ""

    def first_token(self) -> Spread | None:
        """Seconds to the first token."""
        return Spread.of([run.first for run in self.runs])

    def prefill(self, prompt_tokens: int) -> Spread | None:
        """Tokens of the prompt per second."""
        return Spread.of([prompt_tokens / run.first for run in self.runs])

    def decode(self) -> Spread | None:
        """Tokens per second after the first one."""
        return Spread.of([_speed(run) for run in self.runs])

    def limit(self, context: float, bandwidth: float) -> float:
        """The most tokens per second at which weights and cache can be read."""
        return bandwidth / (self.weight_bytes + self.cache_bytes * context)

    def share(self, prompt_tokens: int) -> Spread | None:
        """Speed of decoding over the limit; each run over what the probe found just before it."""
        return Spread.of([_speed(run) / self.limit(prompt_tokens + len(run.steps) / 2, run.bandwidth)
                          for run in self.runs])


def _speed(run: Run) -> float:
    return len(run.steps) / sum(run.steps)


@dataclass
class Report:
    """A whole benchmark.

    Attributes:
        date: when it began, UTC, ISO 8601.
        model: its name.
        weights: what they are: random or a checkpoint's, and their number format.
        config: the model's sizes.
        settings: what was asked for.
        hardware, versions, threads: what it ran on.
        arithmetic: floating-point operations per second of a large matrix product; None if it was not reached.
        rows: the figures.
        published: figures of others, which were not measured here.
        interrupted: whether it ended before everything was measured.
    """

    date: str
    model: str
    weights: str
    config: Qwen3Config
    settings: Settings
    hardware: dict[str, str | int]
    versions: dict[str, str]
    threads: int
    rows: list[RowResult]
    arithmetic: float | None = None
    published: tuple[Published, ...] = ()
    interrupted: bool = False

    def bandwidth(self) -> Spread | None:
        """Bytes per second, of all probes; the highest is what the machine can do."""
        return Spread.of([run.bandwidth for row in self.rows for run in row.runs])

    def decode_context(self, row: RowResult) -> float:
        """How many past tokens a decoding step of this row had, on average."""
        return self.settings.prompt_tokens + (len(row.runs[0].steps) / 2 if row.runs else 0)

    def __str__(self) -> str:
        parts = ["\n".join(aligned(self._facts(), left=2)), "\n".join(aligned(self._cells()))]
        remarks = [f"{row.title}: {text}" for row in self.rows for text in (row.problem, row.note) if text]
        if self.interrupted:
            remarks.append(gettext("Interrupted: what had been measured until then is shown."))
        parts += ["\n".join(remarks)] if remarks else []
        if self.published:
            head = ["", *(title for title, _ in self.published[0].speeds)]
            cells = [[entry.machine, *(f"{speed:.0f}" for _, speed in entry.speeds)] for entry in self.published]
            parts.append(gettext("Not measured here: {source}, tokens/s.\n").format(source=self.published[0].source)
                         + "\n".join(aligned([head, *cells])))
        return "\n\n".join(parts)

    def _facts(self) -> list[list[str]]:
        bandwidth, settings = self.bandwidth(), self.settings
        facts = [[gettext("date"), self.date], [gettext("model"), f"{self.model}, {self.weights}"],
                 [gettext("machine"), f"{self.hardware['processor']}; {self.hardware['device']}"],
                 [gettext("versions"), ", ".join(f"{name} {version}" for name, version in self.versions.items())],
                 [gettext("measured"), gettext("prompt of {prompt_tokens} tokens, {new_tokens} new ones, seed {seed}; "
                                               "medians of {runs} runs").format(
                     prompt_tokens=settings.prompt_tokens, new_tokens=settings.new_tokens, seed=settings.seed,
                     runs=settings.runs)]]
        if bandwidth is not None:
            facts.append([gettext("memory"), gettext("reads {high:.1f} GB/s at best, {low:.1f} at worst; the limit is "
                                                     "what was read just before a run").format(
                high=bandwidth.high / 1e9, low=bandwidth.low / 1e9)])
        return facts

    def _cells(self) -> list[list[str]]:
        contexts = self.settings.contexts
        steps = [gettext("step at {context}").format(context=context) for context in contexts]
        rows = [["", gettext("prefill"), gettext("first token"), gettext("decode"), gettext("lowest"),
                 gettext("highest"), gettext("of the"), *steps, gettext("compile"), gettext("peak")],
                ["", "tokens/s", "ms", "tokens/s", "", "", gettext("limit"), *("ms" for _ in contexts), "s",
                 gettext("memory")]]
        for row in self.rows:
            decode = row.decode()
            rows.append([
                row.title,
                _figure(_median(row.prefill(self.settings.prompt_tokens)), ".0f"),
                _figure(_median(row.first_token()), ".1f", 1e3),
                *(_figure(value, ".1f") for value in (
                    (decode.median, decode.low, decode.high) if decode else (None, None, None))),
                _figure(_median(row.share(self.settings.prompt_tokens)), ".0%"),
                *(_figure(row.step_seconds.get(context), ".2f", 1e3) for context in contexts),
                _figure(row.compile_seconds, ".1f"),
                _DASH if row.peak_memory is None else format_bytes(row.peak_memory)])
        return rows

    def to_json(self) -> str:
        """All figures, and beside each row's a summary of them."""
        content = asdict(self)
        for row, entry in zip(self.rows, content["rows"]):
            summary = {"prefill_tokens_per_second": row.prefill(self.settings.prompt_tokens),
                       "first_token_seconds": row.first_token(), "decode_tokens_per_second": row.decode(),
                       "share_of_limit": row.share(self.settings.prompt_tokens)}
            entry["summary"] = {name: asdict(spread) if spread else None for name, spread in summary.items()}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read back what `to_json` has written."""
        content: dict[str, Any] = json.loads(text)
        rows = []
        for entry in content.pop("rows"):
            del entry["summary"]
            runs = [Run(**run) for run in entry.pop("runs")]
            steps = {int(context): seconds for context, seconds in entry.pop("step_seconds").items()}
            rows.append(RowResult(runs=runs, step_seconds=steps, **entry))
        settings = content.pop("settings")
        settings["contexts"] = tuple(settings["contexts"])
        published = tuple(Published.from_dict(entry) for entry in content.pop("published"))
        return cls(rows=rows, settings=Settings(**settings), config=Qwen3Config(**content.pop("config")),
                   published=published, **content)

    def write_json(self, path: Path) -> None:
        """Write the JSON as a whole or not at all.

        Raises:
            InputError: if it cannot be written.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(self.to_json(), encoding="utf-8")
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise InputError(gettext("{path!r} cannot be written ({error}): choose another file.").format(
                path=str(path), error=error)) from error


def _median(spread: Spread | None) -> float | None:
    return spread.median if spread else None


def _figure(value: float | None, how: str, factor: float = 1.0) -> str:
    return _DASH if value is None else format(factor * value, how)
