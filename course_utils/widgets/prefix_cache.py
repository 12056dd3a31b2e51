"""A radix tree of cached prefixes under a load, step by step, with as much memory as one likes."""

from __future__ import annotations

from course_utils.language import gettext
from course_utils.loading import DEFAULT_MODEL, load_model, load_tokenizer
from course_utils.number import require_whole_number
from course_utils.plots.prefixes import radix_tree
from course_utils.widgets.panel import Explorer, View, number
from course_utils.widgets.player import step_buttons, step_control
from course_utils.widgets.prefix_story import BUDGET, Moment, Story, replay, tell


def explore_prefix_cache(story: Story | None = None) -> Explorer:
    """Watch the tree grow, split and shed its oldest leaves, forward and back; with another budget all is told again.

    Args:
        story: as `tell` returns it; None has it told by the bundled model.
    """
    told = story or tell(load_model(DEFAULT_MODEL), load_tokenizer(DEFAULT_MODEL))

    def draw(step: int, max_tokens: int) -> View:
        return prefix_cache_step(told, step, max_tokens)

    # It begins at the end, where a budget shows in what is left.
    return Explorer(draw, {"step": step_control(len(told.scenes), at=len(told.scenes)),
                           "max_tokens": number(gettext("most tokens held"), BUDGET, step=10)}, step_buttons())


def prefix_cache_step(story: Story, step: int, max_tokens: int = BUDGET) -> View:
    """The tree after a step, as a picture, and what the step did to it, in words.

    Args:
        story: as `tell` returns it.
        step: which one, 1 for the first.
        max_tokens: how many tokens the tree may hold.

    Raises:
        InputError: if there is no such step, or the budget is no whole number from 1 on.
    """
    step = require_whole_number("step", step, 1, len(story.scenes))
    moment = replay(story, max_tokens)[step - 1]
    sentence = gettext("Step {step} of {count}. {what}").format(
        step=step, count=len(story.scenes), what=describe(moment, max_tokens))
    return View.of_figure(radix_tree(moment.tree, story.tokenizer), sentence)


def describe(moment: Moment, max_tokens: int) -> str:
    """What a step did to the tree, in sentences."""
    tree, stats, scene = moment.tree, moment.stats, moment.scene
    title = gettext(scene.title)
    said = [title if title[-1] in ".!?。！？" else gettext("{sentence}.").format(sentence=title)]
    if scene.texts:
        answers = ", ".join(f"\"{text.answer}\"" for text in scene.texts)
        said += [gettext("Answered: {answers}").format(answers=answers),
                 gettext("Of {tokens_asked} prompt tokens {tokens_reused} were reused; "
                         "{tokens} are new in the tree.").format(
                     tokens_asked=stats.tokens_asked, tokens_reused=stats.tokens_reused,
                     tokens=_tokens(sum(tree.new.values())))]
    if tree.split:
        said.append(gettext("1 node was split.") if len(tree.split) == 1
                    else gettext("{count} nodes were split.").format(count=len(tree.split)))
    if stats.tokens_evicted:
        said.append(gettext("{tokens} had to go.").format(tokens=_tokens(stats.tokens_evicted)))
    if stats.tokens_not_kept:
        said.append(gettext("{tokens} found no room.").format(tokens=_tokens(stats.tokens_not_kept)))
    said.append(gettext("The tree holds {held} of at most {tokens}.").format(
        held=moment.held, tokens=_tokens(max_tokens)))
    if moment.total.lookups:
        said.append(gettext("So far {reuse_rate:.0%} of all prompt tokens were reused.").format(
            reuse_rate=moment.total.reuse_rate))
    return " ".join(said)


def _tokens(count: int) -> str:
    return gettext("1 token") if count == 1 else gettext("{count} tokens").format(count=count)
