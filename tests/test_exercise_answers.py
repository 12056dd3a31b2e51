"""What learners return is read in any reasonable form, refused in words of the task, stopped where it has no end."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, deque
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from course_utils import host_memory
from course_utils.exercises import answers, check
from course_utils.exercises.answers import NotYet
from course_utils.exercises.calls import calls_of
from course_utils.exercises.chapters.varied_model import CONFIG, varied_model, watched
from course_utils.exercises.checking import judge
from course_utils.exercises.exercise import Exercise
from course_utils.exercises.limits import Stopped, within
from course_utils.generation import generate_text_basic, generate_text_basic_cache, generate_tokens
from course_utils.kv_cache import KVCache

REPOSITORY = Path(__file__).resolve().parent.parent
META = torch.zeros(1, device="meta")


@pytest.mark.parametrize("value", [
    3, 3.0, np.float32(3), np.float64(3), np.int64(3), np.array(3), np.array([[3.0]]), torch.tensor(3),
    torch.tensor([3.0], requires_grad=True), torch.tensor(3.0, dtype=torch.bfloat16), Fraction(6, 2),
])
def test_a_number_in_any_form(value):
    assert answers.number(value) == answers.whole(value) == 3
    assert type(answers.number(value)) is float and type(answers.whole(value)) is int


def test_a_whole_number_keeps_all_its_digits():
    assert answers.whole(2**70 + 1) == 2**70 + 1


@pytest.mark.parametrize("value", [
    "3", True, np.True_, torch.tensor(True), [3], torch.tensor([1, 2]), torch.tensor([]), META, 3j, Decimal(3), print,
])
def test_what_is_no_number(value):
    for read in (answers.number, answers.whole):
        with pytest.raises(NotYet, match=r"it returned .*\. Return how many, as one number\."):
            read(value, "how many, as one number")


@pytest.mark.parametrize("value", [2.5, float("nan"), float("inf"), torch.tensor(2.5)])
def test_what_is_no_whole_number(value):
    with pytest.raises(NotYet, match="Return one whole number"):
        answers.whole(value)


@pytest.mark.parametrize("value", [True, 1, 1.0, np.True_, np.int8(1), torch.tensor(True), torch.tensor([1])])
def test_a_truth_value_in_any_form(value):
    assert answers.truth(value) is True


@pytest.mark.parametrize("value", ["False", 2, 0.5, None, [True], torch.tensor([True, True])])
def test_what_is_no_truth_value(value):
    with pytest.raises(NotYet, match="Return True or False"):
        answers.truth(value)


@pytest.mark.parametrize("value", [
    [1, 2, 3], (1, 2, 3), range(1, 4), deque([1, 2, 3]), np.array([1, 2, 3]), torch.tensor([1.0, 2.0, 3.0]),
    iter([1, 2, 3]), map(int, "123"), (n for n in (1, 2, 3)), {1: 0, 2: 0, 3: 0}.keys(),
    [np.int64(1), torch.tensor(2), 3.0],
])
def test_a_list_in_any_form(value):
    assert answers.wholes(value, length=3) == [1, 2, 3]


def test_a_set_will_do_where_the_order_does_not_count():
    assert sorted(answers.numbers({3, 1, 2}, ordered=False)) == [1, 2, 3]
    with pytest.raises(NotYet, match="it returned a set of 3 entries. Return a list"):
        answers.items({3, 1, 2})


@pytest.mark.parametrize("value", ["123", b"123", {1: 2}, 3, torch.tensor(3), META, None])
def test_what_is_no_list(value):
    with pytest.raises(NotYet, match="Return the places"):
        answers.items(value, "the places")


def test_a_list_of_another_length_or_with_other_entries():
    with pytest.raises(NotYet, match="has 1 entry. Return two shapes"):
        answers.items([3], "two shapes", length=2)
    with pytest.raises(NotYet, match="it returned the text 'b'. Return the ids; an entry is no whole number"):
        answers.wholes([1, "b"], "the ids")


def test_a_generator_without_an_end():
    with pytest.raises(NotYet, match="more than 100000 entries and was stopped. What ends its loop"):
        answers.items(itertools.count())
    counter = itertools.count()
    with pytest.raises(NotYet, match="only 3 tokens"):
        answers.take(counter, 3, "only 3 tokens")
    assert next(counter) == 4  # one beyond what was allowed, and no more
    assert answers.take(iter("abc"), 3) == ["a", "b", "c"]


@pytest.mark.parametrize("value", [
    torch.tensor([[1.0, 2.0]]), torch.tensor([[1, 2]]), torch.tensor([[1.0, 2.0]], requires_grad=True), [[1, 2]],
    np.array([[1, 2]], dtype=np.float64), [torch.tensor([1.0, 2.0])], ((1.0, 2.0),), [np.array([1, 2])],
    [[torch.tensor(1.0), torch.tensor(2.0)]],
])
def test_a_tensor_in_any_form(value):
    found = answers.tensor(value, shape=(1, 2))
    assert answers.close(found, torch.tensor([[1.0, 2.0]])) and not found.requires_grad


@pytest.mark.parametrize("value", ["12", None, [[1], [1, 2]], ["a"], {1: 2}, META, [object()], np.array([object()])])
def test_what_is_no_tensor(value):
    with pytest.raises(NotYet, match="Return the weights"):
        answers.tensor(value, "the weights")


def test_a_tensor_of_another_shape():
    with pytest.raises(NotYet, match=r"has the shape \(2,\). Return the weights, of shape \(1, 2\)"):
        answers.tensor([1, 2], "the weights", (1, 2))


def test_close_minds_the_shape_and_not_the_kind_of_number():
    assert answers.close(torch.tensor([0.1]), torch.tensor([0.1], dtype=torch.float64))
    assert not answers.close(torch.tensor([0.1]), torch.tensor([[0.1]]))
    assert answers.close(1 / 3, float(np.float32(1 / 3))) and not answers.close(1 / 3, 0.3334)
    assert not answers.close(float("nan"), 1.0)


def test_texts_and_dictionaries():
    assert answers.text(np.str_("so")) == "so" and answers.mapping(Counter("a")) == {"a": 1}
    with pytest.raises(NotYet, match="it returned a bytes. Return one text"):
        answers.text(b"so")
    with pytest.raises(NotYet, match="it returned a list of 1 entry. Return a dictionary"):
        answers.mapping([1])
    with pytest.raises(NotYet, match="it returned a tuple of 2 entries. Return one number"):
        answers.number(torch.eye(2).max(dim=0))


def test_nothing_returned_asks_for_the_return():
    for read in (answers.number, answers.whole, answers.truth, answers.text, answers.items, answers.mapping,
                 answers.tensor):
        with pytest.raises(NotYet, match="it returned None. Does the function end with a return"):
            read(None)


# ---- Measuring what an answer does -----------------------------------------------------------------------


def test_calls_are_counted_and_work_as_ever():
    with calls_of(torch.nn.functional, "cross_entropy") as calls:
        loss = torch.nn.CrossEntropyLoss()(torch.zeros(1, 4), torch.tensor([2]))
    assert len(calls) == 1 and answers.close(float(loss), torch.tensor(4.0).log())
    with pytest.raises(KeyError), calls_of(torch.nn.functional, "cross_entropy"):
        raise KeyError
    torch.nn.functional.cross_entropy(torch.zeros(1, 4), torch.tensor([2]))
    assert len(calls) == 1


class TestVariedModel:
    PROMPTS = torch.tensor([[3, 14, 15, 92, 65], [4, 14, 15, 92, 65], [35, 89, 79, 32, 38]])

    def test_its_text_varies_and_depends_on_all_that_came_before(self):
        model = varied_model()
        texts = generate_text_basic_cache(model, self.PROMPTS, 12)
        assert torch.equal(texts, generate_text_basic(model, self.PROMPTS, 12))
        assert all(len(set(text)) >= 6 for text in texts.tolist())
        assert len({tuple(text) for text in texts.tolist()}) == 3  # the first two prompts differ at the beginning alone
        assert not torch.equal(texts, generate_text_basic(varied_model(7), self.PROMPTS, 12))

    def test_its_choices_are_no_matter_of_rounding(self):
        text = self.PROMPTS
        model = varied_model()
        for _ in range(12):
            best = model(text)[:, -1].topk(2).values
            assert (best[:, 0] - best[:, 1]).min() > 1e-3
            text = torch.cat((text, model(text)[:, -1].argmax(-1, keepdim=True)), dim=1)

    def test_a_watched_one_tells_of_each_pass(self):
        model, cache = varied_model(), KVCache(CONFIG)
        with watched(model) as passes:
            generated = torch.cat(list(generate_tokens(model, self.PROMPTS, 2, cache=cache)), dim=1)
            model(token_ids=self.PROMPTS[:1])
        assert [(one.token_ids.tolist(), one.cache is cache, one.held) for one in passes] == [
            (self.PROMPTS.tolist(), True, 0), (generated[:, :1].tolist(), True, 5),
            (self.PROMPTS[:1].tolist(), False, 0)]
        model(self.PROMPTS)
        assert len(passes) == 3


# ---- Limits ----------------------------------------------------------------------------------------------


def endless_loop(n):
    count = 0
    while True:
        count += n


def endless_loop_that_catches_errors(n):
    while True:
        try:
            endless_loop(n)
        except Exception:
            pass


def endless_generator(n):
    while True:
        yield n


EXERCISE = Exercise("98.9", "Ends", endless_loop, lambda answer: None if answer(3) == 3 else "no", (), seconds=0.3)
OF_A_GENERATOR = Exercise("98.9", "Ends", endless_loop, lambda answer: None if list(answer(3)) == [3] else "no", (),
                          seconds=0.3)


@pytest.mark.parametrize(("exercise", "answer"), [
    (EXERCISE, endless_loop), (EXERCISE, endless_loop_that_catches_errors), (OF_A_GENERATOR, endless_generator),
])
def test_an_answer_without_an_end_is_stopped(exercise, answer):
    verdict, hint = judge(exercise, answer)
    assert verdict == "NOT YET" and hint.startswith("it was stopped after 0.3 seconds, in its line `")
    assert "Does every loop in it come to an end?" in hint


def test_the_kernel_of_a_notebook_survives_it(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_PROGRESS", "")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in (
        "from course_utils.exercises.checking import judge\nfrom course_utils.exercises.exercise import find_exercise",
        "def shapes(b, t, vocab_size):\n    while True:\n        b += 1",
        "print(judge(find_exercise('4.4'), shapes, seconds=0.5))",
        "print('and on it goes')")])
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    *_, stopped, goes_on = [cell.outputs[0].text for cell in notebook.cells if cell.outputs]
    assert "it was stopped after 0.5 seconds, in its line `" in stopped
    assert goes_on == "and on it goes\n"


def test_it_is_stopped_in_another_thread_too():
    told = []
    thread = threading.Thread(target=lambda: told.append(judge(EXERCISE, endless_loop)))
    thread.start()
    thread.join(20)
    assert told and "it was stopped" in told[0][1]


def test_one_that_swallows_the_exception_once_is_stopped_again():
    def stubborn(n):
        try:
            endless_loop(n)
        except BaseException:
            endless_loop(n)

    assert "it was stopped" in judge(EXERCISE, stubborn)[1]


def test_nothing_is_disturbed_afterwards():
    """Whether the answer ends just in time or just too late."""
    def works(seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return "done"

    told = []
    for seconds in (0.0, 0.001, *[0.01] * 30):
        try:
            told.append(within(seconds, works, 0.01))
        except Stopped as stopped:
            told.append(str(stopped))
    assert set(told) <= {"done", "after 0 seconds", "after 0.001 seconds", "after 0.01 seconds"}
    works(1.5)  # an exception that is ordered too late, or ordered again, would come here
    for thread in threading.enumerate():
        if "_Watcher" in repr(thread):
            thread.join(5)
            assert not thread.is_alive()


def test_one_that_takes_the_memory_is_stopped(monkeypatch):
    sizes = itertools.chain([1_000], itertools.repeat(2_000))
    monkeypatch.setattr(host_memory, "available", lambda: 1_500)
    monkeypatch.setattr(host_memory, "resident", lambda: next(sizes))
    verdict, hint = judge(EXERCISE, endless_loop, seconds=60)
    assert verdict == "NOT YET" and "it was stopped when it had taken half of the free memory" in hint


def test_a_remark_may_be_raised(chapter_98, monkeypatch, capsys):
    """As the functions that read answers do."""
    def remark(x):
        raise NotYet("Try it with 3.")

    check("98.1", remark)
    assert capsys.readouterr().out == "NOT YET 98.1 Twice: Try it with 3.\n"
