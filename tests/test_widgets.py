"""The panel, and the explorers of tokens, next token and attention: what they show is what the package computes."""

from __future__ import annotations

import asyncio
import html
import re
import sys
from typing import Any

import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils import load_model, load_tokenizer
from course_utils.errors import ContextLengthError, InputError
from course_utils.generation import last_logits
from course_utils.plots.tokens import token_pieces
from course_utils.qwen3 import Qwen3Model
from course_utils.recording import record
from course_utils.sampling import GREEDY, Sampling
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.widgets import explore_attention, explore_next_token, explore_tokens
from course_utils.widgets.attention import MOST_TOKENS, attention_table
from course_utils.widgets.next_token import SHOWN, next_token_table
from course_utils.widgets.panel import (
    WITHOUT_WIDGETS,
    Control,
    Explorer,
    Panel,
    View,
    choice,
    number,
    text,
)
from course_utils.widgets.prompt import encode_prompt
from course_utils.widgets.tokens import token_table

LIVE = "application/vnd.jupyter.widget-view+json"
PROMPT = "Once upon a time there was a"


@pytest.fixture(scope="module")
def model() -> Qwen3Model:
    return load_model("tiny")


@pytest.fixture(scope="module")
def tiny_tokenizer() -> Qwen3Tokenizer:
    return load_tokenizer("tiny")


@pytest.fixture
def without_ipywidgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a notebook was given to show."""
    outputs: list[Any] = []
    monkeypatch.setattr("IPython.display.display", lambda output, raw: outputs.append(output))
    return outputs


def shown(explorer: Explorer) -> tuple[str, str]:
    """What a reader sees in the panel: the picture and the sentence, as HTML."""
    *_, picture, line = explorer.widget.children
    return picture.value, line.value


def words(markup: str) -> str:
    return html.unescape(" ".join(re.sub(r"<[^>]*>", " ", markup).split()))


def squares(a: int) -> View:
    if a > 9:
        raise InputError(f"a is {a}: give at most 9.")
    return View(f"<b>{a * a}</b>", f"The square of {a} is {a * a}.")


# The panel


def test_a_change_is_drawn_and_said() -> None:
    explorer = Explorer(squares, {"a": number("A", 2)})
    assert words(shown(explorer)[0]) == "4" and 'aria-live="polite"' in shown(explorer)[1]
    explorer.controls["a"].value = 3
    assert [words(part) for part in shown(explorer)] == ["9", "The square of 3 is 9."]
    assert repr(explorer) == "The square of 3 is 9."


def test_what_a_notebook_keeps_is_live_and_static() -> None:
    explorer = Explorer(squares, {"a": number("A", 2)})
    assert explorer.output() == {"text/html": "<b>4</b><p>The square of 2 is 4.</p>", "text/plain": repr(explorer),
                                 LIVE: {"version_major": 2, "version_minor": 0, "model_id": explorer.widget.model_id}}
    model_id = explorer.widget.model_id
    explorer.controls["a"].value = 3  # shown again, it is the same widget, as it stands
    assert explorer.output()[LIVE]["model_id"] == model_id
    assert explorer.output()["text/html"].startswith("<b>9</b>")


def test_a_cell_shows_one_output(displayed: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    explorer = Explorer(squares, {"a": number("A", 2)})
    explorer._ipython_display_()
    assert displayed == [explorer.output()] and LIVE in displayed[0] and capsys.readouterr().out == ""


def test_a_refusal_is_said_in_place_of_the_picture_and_goes_away() -> None:
    explorer = Explorer(squares, {"a": number("A", 2)})
    explorer.controls["a"].value = 10
    picture, line = shown(explorer)
    assert words(picture) == "" and words(line) == "a is 10: give at most 9." and 'role="alert"' in line
    explorer.controls["a"].value = 1
    assert words(shown(explorer)[0]) == "1"


def test_any_error_of_a_redraw_is_said_and_named() -> None:
    explorer = Explorer(lambda a: View("<b></b>", str(1 / a)), {"a": number("A", 1)})
    explorer.controls["a"].value = 0
    assert words(shown(explorer)[1]) == "ZeroDivisionError: division by zero"


def test_a_sentence_is_no_markup() -> None:
    explorer = Explorer(lambda a: View("", f"It is {a}."), {"a": text("A", "<i>")})
    assert "It is &lt;i&gt;." in shown(explorer)[1] and "<i>" not in explorer.output()["text/html"]


def test_first_settings_that_are_refused_are_said_but_mistakes_in_code_are_raised() -> None:
    assert words(shown(Explorer(squares, {"a": number("A", 10)}))[1]) == "a is 10: give at most 9."
    with pytest.raises(TypeError):
        Explorer(squares, {"a": text("A", "two")})


def test_buttons_set_controls() -> None:
    def double(explorer: Explorer) -> None:
        explorer.controls["a"].value *= 2

    explorer = Explorer(squares, {"a": number("A", 2)}, {"Double": double, "Break": lambda explorer: [][1]})
    explorer.buttons["Double"].click()
    assert words(shown(explorer)[0]) == "16"
    explorer.buttons["Break"].click()
    assert words(shown(explorer)[1]) == "IndexError: list index out of range"


def test_of_changes_that_queue_up_only_the_last_is_drawn() -> None:
    drawn: list[int] = []

    def draw(a: int) -> View:
        drawn.append(a)
        return squares(a)

    async def type_quickly() -> None:
        for value in (2, 3, 4, 10):
            explorer.controls["a"].value = value
        while words(shown(explorer)[0]) == "1":
            await asyncio.sleep(0.001)

    explorer = Explorer(draw, {"a": number("A", 1)})
    asyncio.run(asyncio.wait_for(type_quickly(), timeout=60))
    assert drawn == [1, 10] and words(shown(explorer)[1]) == "a is 10: give at most 9."


@pytest.mark.parametrize(("control", "kind"), [
    (number("A", 1), "IntText"), (number("A", 1.0, step=0.5), "FloatText"),
    (number("A", 150, 101, 200), "BoundedIntText"), (number("A", 1.0, 0, 2), "BoundedFloatText"),
    (choice("A", ["x", "y"], "y"), "Dropdown"), (choice("A", [("one", 1), ("two", 2)], 2), "Dropdown"),
    (text("A", "x"), "Text"), (text("A", "x", rows=2), "Textarea"),
])
def test_controls_have_a_label_and_the_value_they_were_given(control: Control, kind: str) -> None:
    widget = control.widget()
    assert (type(widget).__name__, widget.description, widget.value) == (kind, "A", control.value)
    assert widget.style.description_width == "initial"


def test_a_bounded_number_is_pulled_back() -> None:
    widget = number("A", 1, 0, 5).widget()
    widget.value = 9
    assert widget.value == 5


def picture() -> Figure:
    fig, ax = pyplot.subplots(figsize=(1, 1))
    ax.plot([0, 1])
    return fig


def test_a_picture_has_an_alternative_text_and_is_closed() -> None:
    explorer = Explorer(lambda a: View.of_figure(picture(), f'It is\n  "{a}".'), {"a": number("A", 1)})
    explorer.controls["a"].value = 2
    explorer.redraw()
    image = shown(explorer)[0]
    assert 'alt="It is &quot;2&quot;."' in image and 'src="data:image/png;base64,iVBOR' in image
    output = explorer.output()
    assert output["image/png"] in image and output["text/plain"] == 'Figure: It is "2".' and "text/html" not in output
    explorer.close()
    assert pyplot.get_fignums() == []


def test_closing_takes_the_widget_and_its_controls_away() -> None:
    explorer = Explorer(squares, {"a": number("A", 2)})
    explorer.close()
    assert explorer.widget.comm is None and explorer.controls["a"].comm is None


@pytest.mark.parametrize(("view", "printed"), [
    (View("<b>1</b>", "It is 1."), f"{WITHOUT_WIDGETS}\n"),
    (View("", "It is 1.", png="iVBOR"), f"Figure: It is 1.\n{WITHOUT_WIDGETS}\n"),
])
def test_without_ipywidgets_the_static_form_is_shown(view: View, printed: str, without_ipywidgets: None,
                                                     displayed: list[Any],
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    panel = Panel(view, lambda: pytest.fail("there is nothing to make a widget with"))
    panel._ipython_display_()
    assert displayed == [view.static()] and panel.widget is None and capsys.readouterr().out == printed
    panel.close()


def test_without_ipywidgets_an_explorer_draws_its_first_settings(without_ipywidgets: None) -> None:
    explorer = Explorer(squares, {"a": number("A", 2)}, {"Double": lambda explorer: None})
    assert explorer.output() == squares(2).static() and not explorer.controls and not explorer.buttons


# Tokens


def test_explore_tokens_shows_the_tokens_as_one_types(small_tokenizer: Qwen3Tokenizer) -> None:
    explorer = explore_tokens(small_tokenizer, "The cat")
    for typed in ("小船 & <b>", "龘", "🙂\n"):
        explorer.controls["text"].value = typed
        assert token_pieces(small_tokenizer, typed)._repr_html_() in shown(explorer)[0]
        assert explorer.view.static() == token_table(small_tokenizer, typed).static()
    assert explorer.controls["text"].continuous_update


def test_token_table_counts(small_tokenizer: Qwen3Tokenizer) -> None:
    ids = small_tokenizer.encode("月亮很圆<|im_end|>")
    assert repr(token_table(small_tokenizer, "月亮很圆<|im_end|>")) == (
        f"{len(ids)} tokens (1 special) for 14 characters, which are 22 bytes: {22 / len(ids):.1f} bytes a token.")
    assert repr(token_table(small_tokenizer, "a")) == "1 token for 1 character, which are 1 byte: 1.0 bytes a token."
    assert repr(token_table(small_tokenizer, "")) == "No text, no tokens: type something."


def test_special_tokens_are_marked_by_more_than_colour(small_tokenizer: Qwen3Tokenizer) -> None:
    boxes = token_table(small_tokenizer, "a<|im_end|>a").html.split('<div role="listitem"')[1:]
    assert [("double" in box, "special" in box) for box in boxes] == [(False, False), (True, True), (False, False)]


def test_of_a_long_text_the_first_tokens_are_shown_and_all_are_counted(small_tokenizer: Qwen3Tokenizer) -> None:
    view = token_table(small_tokenizer, "龘" * 10_000)
    assert view.html.count('role="listitem"') == 300
    assert view.sentence.startswith("30000 tokens for 10000 characters")
    assert view.sentence.endswith("Shown are the first 300 tokens.")


def test_half_a_character_is_refused_in_words(small_tokenizer: Qwen3Tokenizer) -> None:
    explorer = explore_tokens(small_tokenizer, "a")
    explorer.controls["text"].value = "a\ud83d"
    assert "half a surrogate pair" in shown(explorer)[1]


# Next token


def rows_of(markup: str) -> list[list[str]]:
    return [[words(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
            for row in re.findall(r"<tr.*?</tr>", markup.partition("<tbody>")[2])]


@pytest.mark.parametrize("sampling", [
    Sampling(), GREEDY, Sampling(0.7, top_k=5), Sampling(2.0, top_p=0.5), Sampling(1.0, min_p=0.6), Sampling(top_p=0),
])
def test_next_token_table_says_what_sampling_computes(model: Qwen3Model, tiny_tokenizer: Qwen3Tokenizer,
                                                      sampling: Sampling) -> None:
    size = tiny_tokenizer.vocab_size
    logits = last_logits(model, encode_prompt(model, tiny_tokenizer, PROMPT))
    view = next_token_table(tiny_tokenizer, logits, sampling)
    before, after = (way.probabilities(logits[:, :size])[0] for way in (Sampling(), sampling))
    rows = rows_of(view.html)
    likeliest = before.topk(SHOWN).indices
    assert [int(row[1]) for row in rows[:-1]] == likeliest.tolist()
    rest = torch.ones(size, dtype=torch.bool).index_fill(0, likeliest, False)
    for row, token in zip(rows, [*likeliest, rest]):
        assert_says(row[2], float(before[token].sum()))
        assert_says(row[3], float(after[token].sum()))
    assert view.sentence.startswith(f"{int((after > 0).sum())} of {size} tokens can be drawn.")
    # Hatched, beside its words, is what was cut, and nothing else.
    assert view.html.count("repeating-linear-gradient") == sum(row[3] == "cut off" for row in rows)


def assert_says(said: str, share: float) -> None:
    if share == 0:
        assert said == "cut off"
    elif said == "under 0.1%":
        assert share < 0.001
    else:
        assert float(said.rstrip("%")) / 100 == pytest.approx(share, abs=0.00051)


def test_ids_beyond_the_tokenizer_are_never_shown(model: Qwen3Model, tiny_tokenizer: Qwen3Tokenizer) -> None:
    logits = torch.zeros(1, model.config.vocab_size)
    logits[0, tiny_tokenizer.vocab_size] = 50
    view = next_token_table(tiny_tokenizer, logits, Sampling())
    assert str(tiny_tokenizer.vocab_size) not in [row[1] for row in rows_of(view.html)]


def test_explore_next_token_runs_the_model_once_a_prompt(model: Qwen3Model, tiny_tokenizer: Qwen3Tokenizer,
                                                         passes: list[int]) -> None:
    explorer = explore_next_token(model, tiny_tokenizer, PROMPT)
    for name, value in (("temperature", 0.5), ("top_k", 4), ("top_p", 0.9), ("min_p", 0.1)):
        explorer.controls[name].value = value
    assert passes == [len(tiny_tokenizer.encode(PROMPT))]
    logits = last_logits(model, encode_prompt(model, tiny_tokenizer, PROMPT))
    sampling = Sampling(0.5, top_k=4, top_p=0.9, min_p=0.1)
    assert explorer.view == next_token_table(tiny_tokenizer, logits, sampling)
    explorer.controls["prompt"].value = PROMPT + " cat"
    assert len(passes) == 3 and explorer.view != next_token_table(tiny_tokenizer, logits, sampling)


@pytest.mark.parametrize(("name", "value", "sentence"), [
    ("prompt", "", "The prompt is empty"), ("prompt", "a b " * 2000, "do not fit into 2048"),
    ("temperature", -0.1, "temperature is -0.1"), ("top_k", -1, "top_k is -1"), ("top_p", 1.5, "top_p is 1.5"),
    ("min_p", -1.0, "min_p is -1.0"),
])
def test_impossible_settings_are_refused_in_words(model: Qwen3Model, tiny_tokenizer: Qwen3Tokenizer, name: str,
                                                  value: Any, sentence: str) -> None:
    explorer = explore_next_token(model, tiny_tokenizer, PROMPT)
    good = explorer.controls[name].value
    explorer.controls[name].value = value
    assert words(shown(explorer)[0]) == "" and sentence in words(shown(explorer)[1])
    explorer.controls[name].value = good
    assert "can be drawn" in shown(explorer)[1]


def test_encode_prompt_refuses(model: Qwen3Model, tiny_tokenizer: Qwen3Tokenizer) -> None:
    with pytest.raises(InputError, match="empty"):
        encode_prompt(model, tiny_tokenizer, "")
    with pytest.raises(ContextLengthError):
        encode_prompt(model, tiny_tokenizer, "a", max_new_tokens=2049)
    assert encode_prompt(model, tiny_tokenizer, PROMPT).tolist() == [tiny_tokenizer.encode(PROMPT)]


# Attention


def test_attention_table_shows_the_recorded_weights(model: Qwen3Model, tiny_tokenizer: Qwen3Tokenizer) -> None:
    recording = record(model, encode_prompt(model, tiny_tokenizer, PROMPT + " <b> 小猫"))
    weights = recording.attention[2, 0, 3]
    rows = rows_of(attention_table(recording, tiny_tokenizer, 2, 3, 4).html)
    assert len(rows) == len(weights) > 8
    for place, row in enumerate(rows):
        label = tiny_tokenizer.token_text(int(recording.token_ids[0, place])).replace(" ", "␣")
        assert row[0] == f"{label} {place}"
        percents = [int(cell or 0) for cell in row[1:place + 2]]
        assert percents == pytest.approx((100 * weights[place, :place + 1]).tolist(), abs=0.501)
        assert len(row) == (place + 3 if place + 1 < len(rows) else place + 2)  # all that is hidden is one cell


def test_attention_in_words(model: Qwen3Model, tiny_tokenizer: Qwen3Tokenizer) -> None:
    recording = record(model, encode_prompt(model, tiny_tokenizer, PROMPT))
    row = recording.attention[1, 0, 2, 3]
    sentence = attention_table(recording, tiny_tokenizer, 1, 2, 3).sentence
    assert sentence.startswith("In layer 1, head 2, the token at position 3, '␣time', looks at ")
    order = row.argsort(descending=True)[:3].tolist()
    at = [sentence.index("itself" if place == 3 else f" at {place} with") for place in order]
    assert at == sorted(at)
    assert [int(share) for share in re.findall(r"with (\d+)%", sentence)] == pytest.approx(
        [100 * float(row[place]) for place in order], abs=0.501)
    assert attention_table(recording, tiny_tokenizer, 0, 0, 0).sentence.endswith("looks at itself with 100%.")


@pytest.mark.parametrize(("layer", "head", "position", "message"), [
    (6, 0, 0, "layer is 6: give a whole number from 0 to 5"), (0, 8, 0, "head is 8: give a whole number from 0 to 7"),
    (0, 0, 7, "position is 7: give a whole number from 0 to 6"), (-1, 0, 0, "layer is -1: "),
])
def test_attention_table_refuses(model: Qwen3Model, tiny_tokenizer: Qwen3Tokenizer, layer: int, head: int,
                                 position: int, message: str) -> None:
    recording = record(model, encode_prompt(model, tiny_tokenizer, PROMPT))
    assert recording.attention.shape[-1] == 7
    with pytest.raises(InputError, match=message):
        attention_table(recording, tiny_tokenizer, layer, head, position)


def test_explore_attention_runs_the_model_once_a_text(model: Qwen3Model, tiny_tokenizer: Qwen3Tokenizer,
                                                      passes: list[int]) -> None:
    explorer = explore_attention(model, tiny_tokenizer, PROMPT)
    assert explorer.controls["position"].value == 6  # of the last token
    for name in ("layer", "head", "position"):
        explorer.controls[name].value = 2
    assert len(passes) == 1
    recording = record(model, encode_prompt(model, tiny_tokenizer, PROMPT))
    assert explorer.view == attention_table(recording, tiny_tokenizer, 2, 2, 2)
    explorer.controls["layer"].value = explorer.controls["head"].value = 99
    assert (explorer.controls["layer"].value, explorer.controls["head"].value) == (5, 7)


def test_explore_attention_follows_a_text_that_is_typed(model: Qwen3Model, tiny_tokenizer: Qwen3Tokenizer) -> None:
    explorer = explore_attention(model, tiny_tokenizer, PROMPT)
    explorer.controls["text"].value = "Once upon"
    assert "the token at position 1, '␣upon'," in explorer.view.sentence
    explorer.controls["text"].value = ""
    assert "The prompt is empty" in explorer.view.sentence
    explorer.controls["text"].value = "a b " * 40
    assert f"more than {MOST_TOKENS} cannot be read" in explorer.view.sentence
    explorer.controls["text"].value = PROMPT
    assert "the token at position 6" in explorer.view.sentence


def test_explorers_without_ipywidgets_show_the_same(model: Qwen3Model, tiny_tokenizer: Qwen3Tokenizer,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    def outputs() -> list[dict[str, Any]]:
        return [explorer.output() for explorer in (
            explore_tokens(tiny_tokenizer, PROMPT), explore_next_token(model, tiny_tokenizer, PROMPT),
            explore_attention(model, tiny_tokenizer, PROMPT))]

    live = outputs()
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert outputs() == [{kind: data for kind, data in output.items() if kind != LIVE} for output in live]
    assert all(LIVE in output for output in live) and pyplot.get_fignums() == []
