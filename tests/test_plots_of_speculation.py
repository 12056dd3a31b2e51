"""The pictures of speculative decoding: they show what they were given."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch
from readable import assert_readable

from course_utils.errors import InputError
from course_utils.plots.figure import GENERATED, REJECTED
from course_utils.plots.speculation import (
    speculation_gain,
    speculation_rounds,
    speculation_step,
    token_shares,
    tokens_per_pass,
)
from course_utils.speculative import Round

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close() -> Iterator[None]:
    yield
    pyplot.close("all")


def test_rounds_show_what_was_accepted_rejected_and_never_judged() -> None:
    rounds = [Round([11, 12, 13], 1, [11, 99]), Round([14, 15], 2, [14, 15, 16]), Round([], 0, [17])]
    ax = speculation_rounds(rounds, str).axes[0]
    assert [text.get_text() for text in ax.texts] == ["✓ 11", "✗ 12", "13", "99", "✓ 14", "✓ 15", "16", "17"]
    frames = [to_hex(patch.get_edgecolor()) for patch in ax.patches[::2]]
    assert frames == [GENERATED, REJECTED, REJECTED, *5 * [GENERATED]]
    looks = [patch.get_hatch() for patch in ax.patches[1::2]]  # told apart without colours as well
    assert len({looks[0], looks[1], looks[2], looks[3]}) == 4
    assert [label.get_text() for label in ax.get_yticklabels()] == ["round 1", "round 2", "round 3"]


def test_a_round_in_which_the_text_ended_has_no_token_of_the_targets_own() -> None:
    ax = speculation_rounds([Round([11, 12, 13], 2, [11, 12])], str).axes[0]
    assert [text.get_text() for text in ax.texts] == ["✓ 11", "✓ 12", "13"]


def test_long_tokens_are_cut_and_spaces_seen() -> None:
    names = {1: " a\n$", 2: "incomprehensibilities"}
    ax = speculation_rounds([Round([1], 1, [1, 2])], names.__getitem__).axes[0]
    assert [text.get_text() for text in ax.texts] == ["✓ ␣a↵$", "incomprehe…"]


@pytest.mark.parametrize(("one", "judged", "text"), [
    (Round([11, 12, 13], 1, [11, 99]), ["✓ 11", "✗ 12", "not judged"], ["11", "99"]),
    (Round([14, 15], 2, [14, 15, 16]), ["✓ 14", "✓ 15"], ["14", "15", "16"]),
    (Round([11, 12, 13], 2, [11, 12]), ["✓ 11", "✓ 12", "not judged"], ["11", "12"]),  # the text has ended
])
def test_a_round_is_drafted_judged_and_kept(one: Round, judged: list[str], text: list[str]) -> None:
    texts = [each for each in speculation_step(one, str).axes[0].texts if each.get_weight() == "bold"]
    rows: dict[float, list[str]] = {}
    for each in texts:
        rows.setdefault(each.get_position()[1], []).append(each.get_text())
    draft, verify, accept, new = (rows[height] for height in sorted(rows, reverse=True))
    assert (draft, accept, new) == ([str(token) for token in one.drafted], judged, text) and len(verify) == 1
    colors = [to_hex(box.get_edgecolor()) for box in speculation_step(one, str).axes[0].patches
              if isinstance(box, FancyBboxPatch)]
    assert colors.count(GENERATED) == one.accepted + len(text)
    assert colors.count(REJECTED) == len(one.drafted) - one.accepted


def test_a_short_draft_has_room_for_the_words() -> None:
    assert_readable(speculation_step(Round([11], 0, [99]), str))


@pytest.mark.parametrize("one", [Round([], 0, [17]), Round(list(range(6)), 1, [0, 17]),
                                 Round(list(range(5)), 5, [*range(5), 17])])
def test_a_round_that_cannot_be_drawn_is_refused(one: Round) -> None:
    with pytest.raises(InputError, match="another one"):
        speculation_step(one, str)
    assert not pyplot.get_fignums()


def test_measured_points_lie_beside_the_curves() -> None:
    ax = tokens_per_pass({1: 1.5, 4: 2.5}, {0.5: {1: 1.5, 4: 1.9}, 0.9: {1: 1.9, 4: 4.1}}).axes[0]
    *curves, points = ax.lines
    assert [list(curve.get_ydata()) for curve in curves] == [[1.5, 1.9], [1.9, 4.1]]
    assert list(points.get_xdata()) == [1, 4] and list(points.get_ydata()) == [1.5, 2.5]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "formula, a = 0.5", "formula, a = 0.9", "measured"]


def test_shares_are_bars_in_percent_side_by_side() -> None:
    ax = token_shares(["' a'", "'$'"], {"p": [0.75, 0.25], "q": [0.5, 0.5]}).axes[0]
    assert [bar.get_height() for bar in ax.patches] == [75, 25, 50, 50]
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches)
    assert all(left[1] <= right[0] + 1e-9 for left, right in zip(edges, edges[1:]))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["' a'", "'$'"]


def test_the_best_place_of_each_gain_is_marked() -> None:
    curves = {0.9: {1: 1.5, 2: 1.8, 3: 1.7}, 0.2: {1: 0.9, 2: 0.8, 3: 0.7}}
    axes = speculation_gain({"one": curves, "two": curves}).axes
    assert [ax.get_title() for ax in axes] == ["one", "two"]
    marked = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes[0].lines if line.get_marker() == "o"]
    assert marked == [(2, 1.8), (1, 0.9)]
