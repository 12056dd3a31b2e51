"""The corpus: reproducible, clean, as large as promised, and what is held out is held out."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest

from course_utils.chat import ChatTemplate
from course_utils.corpus import documents
from course_utils.corpus.conversations import conversation
from course_utils.corpus.notions import notion_document, notions, questions
from course_utils.corpus.words import TO_CHINESE, TO_ENGLISH, words


@pytest.fixture(scope="module")
def template(own_chat_template: Path) -> ChatTemplate:
    return ChatTemplate(own_chat_template.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sample(template: ChatTemplate) -> list[tuple[str, str]]:
    return list(islice(documents(0, template), 6_000))


def test_the_same_seed_gives_the_same_documents(sample: list[tuple[str, str]], template: ChatTemplate) -> None:
    assert list(islice(documents(0, template), 500)) == sample[:500]
    assert list(islice(documents(1, template), 500)) != sample[:500]


def test_every_kind_comes_up_and_no_document_is_broken(sample: list[tuple[str, str]]) -> None:
    kinds = {kind for kind, _ in sample}
    assert kinds == {"notion", "translation", "copying", "story", "story_zh", "description", "description_zh",
                     "conversation"}
    for kind, text in sample:
        assert text == text.lstrip() and text.strip(), (kind, text)
        assert "{" not in text and "None" not in text and "  " not in text, (kind, text)
        if kind != "conversation":
            assert "<|" not in text and text == text.rstrip(), (kind, text)


@pytest.mark.parametrize("kind", ["story", "story_zh", "description"])
def test_stories_differ_from_each_other(sample: list[tuple[str, str]], kind: str) -> None:
    texts = [text for k, text in sample if k == kind]
    assert len(set(texts)) >= 0.995 * len(texts)


def test_there_are_enough_notions_and_words() -> None:
    assert len(notions()) >= 120
    assert len(words()) >= 500
    for names in ([n.term for n in notions()], [n.zh for n in notions()], [n.id for n in notions()],
                  [w.english for w in words()], [w.chinese for w in words()]):
        assert len(names) == len(set(names))
    for notion in notions():
        assert notion.en.startswith(notion.term[0].upper() + notion.term[1:] + " "), notion.en
        assert notion.zh_def.startswith(notion.zh), notion.zh_def


def test_every_notion_is_asked_in_many_ways_and_some_are_held_out() -> None:
    for notion in notions():
        ways = questions(notion)
        assert len({q.text for q in ways}) == len(ways) >= 20
        assert sum(q.held_out for q in ways) >= 6
        assert sum(not q.held_out and not q.chinese for q in ways) >= 6


def test_what_is_held_out_is_never_trained_on(sample: list[tuple[str, str]]) -> None:
    held_out = {q.text for notion in notions() for q in questions(notion) if q.held_out}
    trained = {q.text for notion in notions() for q in questions(notion) if not q.held_out}
    rng = random.Random(3)
    asked = [notion_document(rng) for _ in range(5_000)]
    asked += [message["content"] for _ in range(5_000) for message in conversation(rng) if message["role"] == "user"]
    seen = {text for text in trained if any(line.startswith(text) for line in asked)}
    assert len(seen) > 500
    assert not [text for text in held_out if any(line == text or line.startswith(text + " ") for line in asked)]


def test_words_can_be_asked_for_in_both_directions() -> None:
    assert len(TO_CHINESE) >= 4 and len(TO_ENGLISH) >= 4
    for before, answer in TO_CHINESE:
        assert "{en}" in before and "{zh}" in answer
    for before, answer in TO_ENGLISH:
        assert "{zh}" in before and "{en}" in answer
