"""The story of the prefix cache: told by the bundled model, and replayed without it exactly as the real cache goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import matplotlib
import pytest
import torch
from matplotlib import pyplot

from course_utils.errors import InputError
from course_utils.generation import greedy
from course_utils.loading import load_model, load_tokenizer
from course_utils.plots.prefixes import snapshot
from course_utils.prefix_cache import PrefixCache, generate_with_prefix
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import Sampler, Sampling
from course_utils.widgets.prefix_cache import explore_prefix_cache, prefix_cache_step
from course_utils.widgets.prefix_story import BUDGET, Moment, Story, replay, tell

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def no_figure_stays_open() -> Iterator[None]:
    yield
    assert pyplot.get_fignums() == []


@pytest.fixture(scope="module")
def model() -> Qwen3Model:
    return load_model("tiny", device="cpu")


@pytest.fixture(scope="module")
def story(model: Qwen3Model) -> Story:
    return tell(model, load_tokenizer("tiny"))


def sizes(moment: Moment) -> tuple[list[int], ...]:
    return tuple([*getattr(moment.tree, name).values()] for name in ("new", "reused", "evicted"))


def test_nine_steps_show_all_that_a_tree_does(story: Story) -> None:
    """What chapter 10 says about each step."""
    moments = replay(story)
    assert len(moments) == 9
    empty, chat, turn, other, short, examples, questions, back, draws = moments
    assert empty.tree.after == {}
    assert len(chat.tree.after) == 1
    assert sum(map(len, turn.tree.split)) == 0 and turn.stats.tokens_reused == chat.held  # the answer included
    assert len(other.tree.split) == 1 and len(other.tree.after) == 4
    assert short.tree.evicted == turn.tree.new  # the story was the oldest leaf
    assert examples.stats.tokens_reused == 0 and not examples.tree.split
    assert len(questions.scene.texts) == 2 and len(questions.tree.split) == 1
    assert len(back.tree.evicted) == 3
    assert len(draws.scene.texts) == 4
    answers = {text.token_ids[text.prompt_length] for text in draws.scene.texts}
    assert len(answers) >= 3 and len(draws.tree.new) == len(answers) - 1  # one was there already
    assert all(moment.held == sum(moment.tree.after.values()) <= BUDGET for moment in moments)


@pytest.mark.parametrize("budget", [1, 60, BUDGET, 10_000])
def test_a_replay_is_what_the_real_cache_does(model: Qwen3Model, story: Story, budget: int) -> None:
    """The same requests by `generate_with_prefix`, keys and values and all."""
    prefixes = PrefixCache(model.config, budget)
    line_end = {*story.tokenizer.turn_end_token_ids, *story.tokenizer.encode("\n")}
    dice = Sampler(Sampling(temperature=1), seed=10, vocab_size=story.tokenizer.vocab_size)
    for number, moment in enumerate(replay(story, budget), start=1):
        assert snapshot(prefixes) == moment.tree.before
        ends = line_end if number in (6, 7, 9) else story.tokenizer.turn_end_token_ids
        for text in moment.scene.texts:
            prompt = torch.tensor([text.token_ids[:text.prompt_length]])
            tokens = generate_with_prefix(model, prompt, 60, ends, prefixes, dice if number == 9 else greedy)
            new_ids = [int(token) for token in tokens]
            assert new_ids == [*text.token_ids[text.prompt_length:]]
            assert story.tokenizer.decode(new_ids).strip() == text.answer
        assert snapshot(prefixes) == moment.tree.after and prefixes.num_tokens == moment.held
        assert prefixes.stats == moment.total


def test_statistics_of_the_steps_add_up(story: Story) -> None:
    moments = replay(story, 100)
    for name in ("lookups", "hits", "tokens_asked", "tokens_reused", "tokens_evicted", "tokens_not_kept"):
        assert sum(getattr(moment.stats, name) for moment in moments) == getattr(moments[-1].total, name)
    assert moments[-1].total.tokens_not_kept > 0


def test_words_say_what_happened(story: Story) -> None:
    sentences = [prefix_cache_step(story, step).sentence for step in range(1, 10)]
    moments = replay(story)
    for step, (sentence, moment) in enumerate(zip(sentences, moments), start=1):
        assert sentence.startswith(f"Step {step} of 9. {moment.scene.title}")
        assert f"holds {moment.held} of at most {BUDGET} tokens" in sentence
        assert all(text.answer in sentence for text in moment.scene.texts)
        assert ("split" in sentence) == bool(moment.tree.split)
        assert ("had to go" in sentence) == bool(moment.tree.evicted)
        assert "found no room" not in sentence
    assert "found no room" in prefix_cache_step(story, 8, 50).sentence


def test_a_lower_half_that_goes_leaves_a_split(story: Story) -> None:
    tree = replay(story)[3].tree
    (upper,) = tree.split
    gone = replace(tree, after={path: own for path, own in tree.after.items() if path not in tree.before})
    assert [*gone.split] == [upper]


def test_controls_tell_the_story_again(story: Story) -> None:
    explorer = explore_prefix_cache(story)
    assert explorer.view == prefix_cache_step(story, 9)
    assert explorer.output()["image/png"] and repr(explorer) == f"Figure: {explorer.view.sentence}"
    explorer.buttons["Previous"].click()
    assert explorer.view == prefix_cache_step(story, 8)
    explorer.controls["max_tokens"].value = 120
    assert explorer.view == prefix_cache_step(story, 8, 120) != prefix_cache_step(story, 8)
    explorer.controls["step"].value = 3
    explorer.buttons["First"].click()
    assert explorer.view == prefix_cache_step(story, 1, 120)


@pytest.mark.parametrize("budget", [0, -5])
def test_an_impossible_budget_is_refused_in_the_panel(story: Story, budget: int) -> None:
    explorer = explore_prefix_cache(story)
    explorer.controls["max_tokens"].value = budget
    assert f"max_tokens is {budget}" in explorer.view.sentence and not explorer.view.png
    explorer.controls["max_tokens"].value = BUDGET
    assert explorer.view.png


@pytest.mark.parametrize("step", [0, 10, 2.0])
def test_there_is_no_such_step(story: Story, step: int) -> None:
    with pytest.raises(InputError, match="from 1 to 9"):
        prefix_cache_step(story, step)


def test_the_bundled_model_tells_it_if_nobody_else_does(story: Story) -> None:
    assert explore_prefix_cache().view == prefix_cache_step(story, 9)
