"""A generation to go through step by step: the text so far, what there was to choose from, and what the cache held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from course_utils.costs import cache_elements
from course_utils.generation import Step, generate_trace
from course_utils.language import gettext
from course_utils.number import require_whole_number
from course_utils.plots.figure import CACHED, GENERATED, INK, PROMPT
from course_utils.plots.labels import with_visible_spaces
from course_utils.plots.sampling import CandidateTable
from course_utils.qwen3 import Qwen3Model
from course_utils.timing import format_bytes
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.widgets.panel import Explorer, View
from course_utils.widgets.player import step_buttons, step_control
from course_utils.widgets.prompt import encode_prompt

_MOST_TOKENS = 120  # of a longer text the beginning is left out
_HELD, _ADDED, _NOT_YET = "■", "▨", "□"


@dataclass(frozen=True)
class RecordedGeneration:
    """A greedy generation, as `record_generation` returns it.

    Attributes:
        tokenizer: of the model.
        prompt_ids: the prompt.
        steps: what each step chose, and what there was to choose from.
        bytes_per_position: memory that the keys and values of one token take, over all layers.
    """

    tokenizer: Qwen3Tokenizer
    prompt_ids: Sequence[int]
    steps: Sequence[Step]
    bytes_per_position: int

    def held(self, step: int) -> int:
        """How many tokens the cache holds after a step: all but the one that the step has chosen."""
        return len(self.prompt_ids) + step - 1 if step else 0


def record_generation(model: Qwen3Model, tokenizer: Qwen3Tokenizer, prompt: str,
                      max_new_tokens: int = 20) -> RecordedGeneration:
    """Generate once, and keep what each step had to choose from.

    Raises:
        InputError: if the prompt is empty, or `max_new_tokens` is no whole number from 1 on.
        ContextLengthError: if prompt and new tokens do not fit into the context.
    """
    max_new_tokens = require_whole_number("max_new_tokens", max_new_tokens, 1)
    token_ids = encode_prompt(model, tokenizer, prompt, max_new_tokens)
    steps = generate_trace(model, token_ids, max_new_tokens, tokenizer.end_token_ids)
    return RecordedGeneration(tokenizer, token_ids[0].tolist(), steps,
                              cache_elements(model.config) * model.dtype.itemsize)


def explore_generation(model: Qwen3Model, tokenizer: Qwen3Tokenizer, prompt: str,
                       max_new_tokens: int = 20) -> Explorer:
    """Go through a generation forward and back. It is generated once, when this is called.

    Arguments and errors as for `record_generation`.
    """
    recorded = record_generation(model, tokenizer, prompt, max_new_tokens)
    return Explorer(lambda step: generation_step(recorded, step), {"step": step_control(len(recorded.steps))},
                    step_buttons())


def generation_step(recorded: RecordedGeneration, step: int) -> View:
    """One step: the text with the token that it chose, the candidates, and the cache.

    Args:
        recorded: as `record_generation` returns it.
        step: which one, 1 for the first.

    Raises:
        InputError: if there is no such step.
    """
    step = require_whole_number("step", step, 1, len(recorded.steps))
    table = CandidateTable([recorded.steps[step - 1]], recorded.tokenizer, first=step)
    return View(_text(recorded, step) + table._repr_html_(), _sentence(recorded, step))


def _sentence(recorded: RecordedGeneration, step: int) -> str:
    before, after = recorded.held(step - 1), recorded.held(step)
    size = format_bytes(after * recorded.bytes_per_position)
    read = gettext("the {after} tokens of the prompt").format(
        after=after) if step == 1 else gettext("1 token, at position {before}").format(
        before=before)
    chosen = recorded.steps[step - 1]
    probability = dict(chosen.candidates)[chosen.token_id]
    end = gettext(" The text ends here.") if chosen.token_id in recorded.tokenizer.end_token_ids else ""
    return gettext("Step {step} of {count} reads {read}. The cache held {before} tokens and now holds {after}, in "
                   "{size}. Chosen: '{token_text}', with {probability:.0%}.{end}").format(
        step=step, count=len(recorded.steps), read=read, before=before, after=after, size=size,
        token_text=recorded.tokenizer.token_text(chosen.token_id), probability=probability, end=end)


def _text(recorded: RecordedGeneration, step: int) -> str:
    """The tokens as boxes, each with a mark for where it stands with the cache."""
    generated = [done.token_id for done in recorded.steps[:step]]
    token_ids = [*recorded.prompt_ids, *generated]
    before, after = recorded.held(step - 1), recorded.held(step)
    boxes = []
    for position in range(max(0, len(token_ids) - _MOST_TOKENS), len(token_ids)):
        mark = _HELD if position < before else _ADDED if position < after else _NOT_YET
        text = with_visible_spaces(recorded.tokenizer.token_text(token_ids[position]))
        boxes.append(_box(text, mark, position < len(recorded.prompt_ids)))
    left_out = len(token_ids) - len(boxes)
    earlier = gettext("… {count} tokens before").format(count=left_out) if left_out else ""
    legend = gettext("solid line: prompt; dashed line: generated. Cache: {held} held before this step, {added} added "
                     "by it, {not_yet} not in it yet.").format(held=_HELD, added=_ADDED, not_yet=_NOT_YET)
    return (f'<div style="background: white; color: {INK}; padding: 8px; line-height: 1.3">'
            f"{earlier}{''.join(boxes)}<div>{legend}</div></div>")


def _box(text: str, mark: str, is_prompt: bool) -> str:
    line = f"solid {PROMPT}" if is_prompt else f"dashed {GENERATED}"
    return (f'<div style="display: inline-block; vertical-align: top; text-align: center; margin: 2px; padding: 2px '
            f'5px; border: 2px {line}; border-radius: 4px; background: white; color: {INK}">'
            f'<div style="font-family: monospace; white-space: pre">{escape(text)}</div>'
            f'<div style="color: {INK if mark == _NOT_YET else CACHED}">{mark}</div></div>')
