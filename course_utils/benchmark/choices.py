"""What a reader asks for -> rows and settings, checked before anything is written or started."""

from __future__ import annotations

from collections.abc import Sequence

from course_utils.benchmark.engines import ROWS, Row
from course_utils.benchmark.report import Settings
from course_utils.config import Qwen3Config
from course_utils.errors import ContextLengthError, InputError
from course_utils.language import gettext
from course_utils.sampling import random_generator

UNSETTLED_STEPS, CONTEXT_STEPS = 3, 8
"""At each context so many steps are made before the clock counts, and so many are timed."""

_STEP_TOKENS = 1 + UNSETTLED_STEPS + CONTEXT_STEPS
_DEFAULTS = Settings()


def choose_rows(names: Sequence[str] | None = None, peers: bool = False) -> list[Row]:
    """Rows by name.

    Args:
        names: of our rows and of peers; None is all of ours.
        peers: whether to add all peers but the slowest to compile.

    Raises:
        InputError: if there is no such row, or none at all.
    """
    chosen = list(ROWS if names is None else dict.fromkeys(names))
    known = ROWS
    if peers or any(name not in ROWS for name in chosen):
        from course_utils.benchmark.peers import ALL_PEERS, PEERS

        known = {**ROWS, **ALL_PEERS}
        chosen += [name for name in PEERS if peers and name not in chosen]
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise InputError(gettext("There is no row {names}: choose from {known}.").format(
            names=", ".join(map(repr, unknown)) or gettext("to measure"), known=", ".join(known)))
    return [known[name] for name in chosen]


def choose_settings(config: Qwen3Config, prompt_tokens: int | None = None, contexts: Sequence[int] | None = None,
                    new_tokens: int = _DEFAULTS.new_tokens, runs: int = _DEFAULTS.runs,
                    seed: int = _DEFAULTS.seed) -> Settings:
    """Settings for a model, as `Settings` explains them.

    Args:
        config: of the model.
        prompt_tokens: None is 512, or as many as the model's context leaves room for.
        contexts: None is 128, 1024 and 4096, as far as they fit.
        new_tokens, runs, seed: as they are.

    Raises:
        InputError, ContextLengthError: see `check_settings`.
    """
    if prompt_tokens is None:
        prompt_tokens = max(1, min(_DEFAULTS.prompt_tokens, config.max_position_embeddings - new_tokens))
    if contexts is None:
        contexts = [length for length in _DEFAULTS.contexts if length <= _longest_context(config)]
    settings = Settings(prompt_tokens, new_tokens, runs, tuple(dict.fromkeys(contexts)), seed)
    check_settings(settings, config)
    return settings


def check_settings(settings: Settings, config: Qwen3Config) -> None:
    """Raise unless the settings make sense for a model.

    Raises:
        InputError: if a count is too small, or the seed no whole number from 0 to 2**64 - 1.
        ContextLengthError: if prompt and new tokens, or a context, do not fit into the model's context.
    """
    for name, least in (("prompt_tokens", 1), ("new_tokens", 2), ("runs", 1)):
        if getattr(settings, name) < least:
            raise InputError(gettext("{name} is {getattr}: give at least {least}.").format(
                name=name, getattr=getattr(settings, name), least=least))
    random_generator(settings.seed)  # it says what a seed may be
    context = config.max_position_embeddings
    if settings.prompt_tokens + settings.new_tokens > context:
        raise ContextLengthError(gettext("{prompt_tokens} prompt tokens and {new_tokens} new ones do not fit into the "
                                         "model's context of {context}: ask for fewer.").format(
            prompt_tokens=settings.prompt_tokens, new_tokens=settings.new_tokens, context=context))
    for length in settings.contexts:
        if not 1 <= length <= _longest_context(config):
            raise ContextLengthError(gettext("A step cannot be measured at a context of {length} tokens: this model "
                                             "allows lengths from 1 to {longest_context}.").format(
                length=length, longest_context=_longest_context(config)))


def most_tokens(settings: Settings) -> int:
    """The most tokens that a row will be asked for, prompt included."""
    longest_context = max(settings.contexts, default=0)
    return max(settings.prompt_tokens + settings.new_tokens, longest_context + _STEP_TOKENS)


def _longest_context(config: Qwen3Config) -> int:
    return config.max_position_embeddings - _STEP_TOKENS
