"""Sampling: logits to a token drawn by chance, with the usual ways to keep chance within bounds.

Each way is a function from logits to logits that takes tokens out of the draw by giving them minus infinity, so they
compose in any order. `Sampling` holds one setting of all of them, applied in the usual order (repetition penalty,
temperature, top-k, top-p, min-p), and `Sampler` is what the generation loop calls for each token: it owns the random
generator, so the same seed gives the same text.

Shapes in comments: b texts side by side, v the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course_utils.errors import CheckpointError, InputError
from course_utils.json_text import parse_json
from course_utils.language import gettext, noted
from course_utils.number import finite_number, whole_number

_SMALL, _LEAST = 1e-6, torch.finfo(torch.float32).tiny


def scale_by_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide logits, (b, v), by the temperature: below 1 the likely becomes likelier, above 1 less so.

    Temperature 0 is the limit: only the likeliest token of each row is kept, the first one of several.
    """
    if temperature == 0:
        likeliest = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, logits.argmax(-1, keepdim=True), True)
        return logits.masked_fill(~likeliest, -math.inf)
    if temperature < _SMALL:
        # Division could overflow. The difference to the likeliest is exact for all that still have a chance.
        logits = logits - logits.amax(dim=-1, keepdim=True)
    # Beyond these bounds, which are far beyond any effect, float32 would read the temperature as zero or infinite.
    return logits / min(max(temperature, _LEAST), 1 / _LEAST)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k likeliest tokens of each row, and any that are level with the last of them. k may exceed v."""
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < least, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens that together are at least p probable, at least one (nucleus
    sampling, https://arxiv.org/abs/1904.09751).
    """
    if p >= 1:
        return logits
    ranked = logits.float().sort(dim=-1)
    # Added up from the unlikely end, where small numbers are not lost beside large ones.
    left_out = ranked.values.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    left_out[..., -1] = False
    return logits.masked_fill(left_out.scatter(-1, ranked.indices, left_out), -math.inf)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Keep the tokens that are at least `min_p` times as probable as the likeliest (https://arxiv.org/abs/2407.01082)."""
    probabilities = logits.float().softmax(dim=-1)
    return logits.masked_fill(probabilities < min_p * probabilities.amax(-1, keepdim=True), -math.inf)


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that the text already holds less likely: positive logits are divided by the penalty, negative ones
    multiplied (https://arxiv.org/abs/1909.05858).

    Args:
        logits: (b, v).
        seen: (b, v), True for each token of the vocabulary that occurs in the text so far.
        penalty: above 1 discourages, below 1 encourages.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def _setting(metavar: str, help: str, default: float | None = None) -> Any:
    """A field of `Sampling`, and how the command line explains it, which has an option for each."""
    return field(default=default, metadata={"metavar": metavar, "help": help})


@dataclass(frozen=True)
class Sampling:
    """How to choose among the next tokens. The defaults leave the model's probabilities as they are.

    Attributes:
        temperature: 0 is greedy: always the likeliest.
        top_k: None, or how many of the likeliest tokens stay in the draw, at least 1.
        top_p: None, or how probable those that stay must be together, 0 to 1; 0 keeps the likeliest alone.
        min_p: None, or how probable each must be, as a share of the likeliest, 0 to 1.
        repetition_penalty: 1 is none.

    Raises:
        InputError: if a setting is out of its range.
    """

    temperature: float = _setting("T", noted("draw the tokens: below 1 the likely more often, above 1 less; 0 is "
                                             "always the likeliest (default with the next three: 1)"), 1.0)
    top_k: int | None = _setting("K", noted("draw among the K likeliest tokens"))
    top_p: float | None = _setting("P", noted("draw among the likeliest that together are P probable, 0 to 1"))
    min_p: float | None = _setting("P", noted("draw among those at least P times as probable as the likeliest, 0 to 1"))
    repetition_penalty: float = _setting("X", noted("above 1: make what was said already less likely"), 1.0)

    def __post_init__(self) -> None:
        temperature, penalty = finite_number(self.temperature), finite_number(self.repetition_penalty)
        if temperature is None or temperature < 0:
            raise InputError(gettext("temperature is {temperature!r}: give 0 for greedy, or a positive number.").format(
                temperature=self.temperature))
        top_k = whole_number(self.top_k)
        if self.top_k is not None and (top_k is None or top_k < 1):
            raise InputError(gettext("top_k is {top_k!r}: give a whole number from 1 on, or None to keep all "
                                     "tokens.").format(top_k=self.top_k))
        shares = {name: finite_number(getattr(self, name)) for name in ("top_p", "min_p")}
        for name, share in shares.items():
            if getattr(self, name) is not None and (share is None or not 0 <= share <= 1):
                raise InputError(gettext("{name} is {getattr!r}: give a number from 0 to 1, or None to keep all "
                                         "tokens.").format(name=name, getattr=getattr(self, name)))
        if penalty is None or penalty <= 0:
            raise InputError(gettext("repetition_penalty is {repetition_penalty!r}: give a positive number, 1 for "
                                     "none.").format(repetition_penalty=self.repetition_penalty))
        plain: dict[str, Any] = {"temperature": temperature, "top_k": top_k, **shares, "repetition_penalty": penalty}
        for name, value in plain.items():
            object.__setattr__(self, name, value)  # as frozen dataclasses do it themselves

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Sampling:
        """Read the content of a `generation_config.json`; what it does not name is left at its default.

        Without `"do_sample": true` it means greedy, as in Hugging Face transformers.

        Raises:
            InputError: if a setting is out of its range.
        """
        do_sample = settings.get("do_sample")
        if do_sample is not None and not isinstance(do_sample, bool):
            raise InputError(gettext("do_sample is {do_sample!r}: give true to sample, or false for greedy.").format(
                do_sample=do_sample))
        if not do_sample:
            return GREEDY
        values = {field.name: settings[field.name] for field in fields(cls) if settings.get(field.name) is not None}
        if values.get("top_k") == 0:  # how such files say "all"
            del values["top_k"]
        return cls(**values)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Sampling:
        """The sampling that a checkpoint's makers advise, from its `generation_config.json`; greedy without one.

        Raises:
            CheckpointError: if there is no such folder, or the file cannot be read or holds nonsense.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise CheckpointError(gettext("There is no folder {folder!r}: check the path of the model.").format(
                folder=str(folder)))
        file = folder / "generation_config.json"
        if not file.is_file():
            return GREEDY
        try:
            return cls.from_dict(parse_json(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError) as error:  # an InputError is a ValueError
            raise CheckpointError(gettext("{file} does not say how to sample ({error}). Correct it, fetch it again, or "
                                          "pass a Sampling of your own.").format(file=file, error=error)) from error

    def apply(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Logits, (b, v), to logits that are minus infinity where a token is out of the draw, in float32.

        Args:
            logits: (b, v).
            seen: as for `penalize_repetition`; None means that there is no text yet.

        Raises:
            InputError: if a row has no token to choose: it holds NaN or plus infinity, or minus infinity only.
        """
        logits = logits.float()
        if self.repetition_penalty != 1 and seen is not None:
            logits = penalize_repetition(logits, seen, self.repetition_penalty)
        logits = scale_by_temperature(logits, self.temperature)
        # Of a row with NaN the maximum is NaN. Only here, since the two steps above can make numbers infinite, too.
        if not bool(logits.amax(dim=-1).isfinite().all()):
            raise InputError(gettext("The logits hold NaN, plus infinity, or a row of minus infinity, so there is "
                                     "nothing to choose from: look at the model's weights, at what changed the logits, "
                                     "and at extreme settings (temperature {temperature}, repetition_penalty "
                                     "{repetition_penalty}).").format(
                temperature=self.temperature, repetition_penalty=self.repetition_penalty))
        if self.top_k is not None:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = keep_top_p(logits, self.top_p)
        if self.min_p is not None:
            logits = keep_min_p(logits, self.min_p)
        return logits

    def probabilities(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """With which probability each token is drawn, (b, v), in float32. Arguments and errors as for `apply`."""
        return self.apply(logits, seen).softmax(dim=-1)


GREEDY = Sampling(temperature=0)


def random_generator(seed: int | torch.Generator) -> torch.Generator:
    """A random generator on the CPU that begins with this seed; one that is given is handed back as it is.

    Raises:
        InputError: if the seed is no whole number from 0 to 2**64 - 1.
    """
    if isinstance(seed, torch.Generator):
        return seed
    number = whole_number(seed)
    if number is None or not 0 <= number < 2**64:
        raise InputError(gettext("The seed is {seed!r}: give a whole number from 0 to 2**64 - 1.").format(seed=seed))
    return torch.Generator().manual_seed(number)


def draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a token for each row: (b, v) to (b, 1).

    All tokens lie side by side on a line, each as long as it is probable, and a dart lands somewhere on it. The darts
    are thrown where the generator is, so one on the CPU gives the same darts whatever computes the model.

    Args:
        probabilities: (b, v); rows need not sum to one.
        generator: gives one number for each row.

    Raises:
        InputError: if a row has no token with a probability, or holds NaN.
    """
    # Where each token ends. Those without a probability are taken off the line: rounding may not give them a place.
    ends = probabilities.cumsum(dim=-1).masked_fill(probabilities == 0, 0)
    length = ends.amax(dim=-1, keepdim=True)
    if not bool((length > 0).all()):
        raise InputError("No token has a probability above zero in one of the rows, so there is nothing to draw.")
    darts = torch.rand(len(ends), 1, generator=generator, device=generator.device).to(ends.device) * length
    # Rounding may also put a dart on the very end of the line, where it counts for the last token.
    return ((ends > darts) | (ends == length)).int().argmax(dim=-1, keepdim=True)  # the first of those


class Sampler:
    """Chooses each next token of one generation: what `generate_tokens` takes as `choose`.

    Args:
        sampling: the settings.
        seed: a number, or a random generator of one's own to go on with.
        token_ids: (b, t), the prompts: with a repetition penalty their tokens count as said already.
        attention_mask: (b, t), False for padding, which was not said.
        vocab_size: only ids below it are drawn: that of the tokenizer, since models have some rows more, which stand
            for no text. None is all.

    Attributes:
        seen: (b, v) as for `penalize_repetition`; None without a penalty, or before the first token.

    Raises:
        InputError: if the settings are no `Sampling`, the seed is no seed, or vocab_size no whole number from 1 on.
    """

    def __init__(self, sampling: Sampling, seed: int | torch.Generator = 0, token_ids: Tensor | None = None,
                 attention_mask: Tensor | None = None, vocab_size: int | None = None) -> None:
        if not isinstance(sampling, Sampling):
            raise InputError(gettext("The settings are {sampling!r}: give a Sampling, such as "
                                     "Sampling(temperature=0.8).").format(sampling=sampling))
        if vocab_size is not None and not 0 < (whole_number(vocab_size) or 0) < 2**63:
            raise InputError(gettext("vocab_size is {vocab_size!r}: give a whole number from 1 on, or None for all "
                                     "ids.").format(vocab_size=vocab_size))
        self.sampling = sampling
        self.generator = random_generator(seed)
        self.seen: Tensor | None = None
        self._prompt, self._vocab_size = (token_ids, attention_mask), vocab_size

    def __call__(self, logits: Tensor) -> Tensor:
        """Draw a token for each row: logits, (b, v), to token ids, (b, 1)."""
        return self.take(draw(self.probabilities(logits), self.generator))

    def probabilities(self, logits: Tensor) -> Tensor:
        """With which probability each token would be drawn next, (b, v); draws nothing."""
        if self.sampling.repetition_penalty != 1 and self.seen is None:
            token_ids, attention_mask = self._prompt
            self.seen = (torch.zeros_like(logits, dtype=torch.bool) if token_ids is None
                         else occurring(token_ids, logits.shape[-1], attention_mask))
            if len(self.seen) != len(logits):
                raise InputError(gettext("The sampler was given {count} prompts and chooses for {texts} texts: give "
                                         "it the token_ids that are generated from.").format(
                    count=len(self.seen), texts=len(logits)))
        if self._vocab_size is not None:
            without_text = torch.arange(logits.shape[-1], device=logits.device) >= self._vocab_size
            logits = logits.masked_fill(without_text, -math.inf)
        return self.sampling.probabilities(logits, self.seen)

    def take(self, token: Tensor) -> Tensor:
        """Count a token of each row, (b, 1), as said, and hand it back."""
        if self.seen is not None:
            self.seen = self.seen.scatter(1, token, True)
        return token


def occurring(token_ids: Tensor, vocab_size: int, attention_mask: Tensor | None = None) -> Tensor:
    """Which tokens of the vocabulary occur in texts, (b, t), padding left out: (b, vocab_size), for a penalty."""
    real = torch.ones_like(token_ids) if attention_mask is None else attention_mask.to(token_ids.dtype)
    # Added up, since a token may stand both in the text and in the padding.
    counts = token_ids.new_zeros(token_ids.shape[0], vocab_size).scatter_add(1, token_ids.long(), real)
    return counts > 0
