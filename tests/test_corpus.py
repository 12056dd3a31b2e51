"""The corpus: reproducible, clean, as large as promised, and what is held out is held out."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest

from course_utils.chat import ChatTemplate
from course_utils.corpus import ANSWERS, MORE_STRANGERS, MORE_WORDS, STRANGERS, documents, documents_in_parts
from course_utils.corpus.contexts import context_comparison, context_question, contexts
from course_utils.corpus.conversations import PARROT, PIRATE, conversation
from course_utils.corpus.exam import ExamQuestion, exam, normalized
from course_utils.corpus.notions import SENTENCES, notions, pairs
from course_utils.corpus.outside import I_DO_NOT_KNOW, I_DO_NOT_KNOW_ZH, outside_lines, outside_question, outside_terms
from course_utils.corpus.questions import any_question, difference_of, fill, is_chinese, is_plural, questions, ways
from course_utils.corpus.small_talk import small_talk, training_small_talk
from course_utils.corpus.strangers import (
    all_names,
    further_outside,
    further_small_talk,
    loosened,
    stranger_chat,
    stranger_question,
    written_questions,
)
from course_utils.corpus.tables import texts_by_kind
from course_utils.corpus.words import TO_CHINESE, TO_ENGLISH, words

BOTH = pytest.mark.parametrize("chinese", [False, True], ids=["English", "Chinese"])


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
    assert kinds == {"notion", "outside", "translation", "copying", "story", "story_zh", "description",
                     "description_zh", "conversation"}
    for kind, text in sample:
        assert text == text.lstrip() and text.strip(), (kind, text)
        # A stranger may type anything, such as two spaces.
        assert "{" not in text and "None" not in text, (kind, text)
        assert "  " not in text or kind in ("notion", "outside", "conversation"), (kind, text)
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
        asked = questions(notion)
        assert len({q.text for q in asked}) == len(asked) >= 300
        assert sum(q.held_out for q in asked) >= 30
        assert sum(not q.held_out and not q.chinese for q in asked) >= 150


def test_what_is_held_out_is_never_trained_on() -> None:
    rng = random.Random(3)
    trained = [any_question(rng) for _ in range(20_000)]
    texts = {(q.notion.id, q.text) for q in trained if q.notion}
    held_out = {(notion.id, q.text) for notion in notions() for q in questions(notion) if q.held_out}
    others = {(notion.id, q.text) for notion in notions() for q in questions(notion) if not q.held_out}
    assert len(texts & others) > 2_000
    assert not texts & held_out


@BOTH
def test_there_are_many_ways_to_ask(chinese: bool) -> None:
    asking = [way for kind, of_kind in ways(chinese).items() if kind not in ("opening", "closing") for way in of_kind]
    assert len(set(asking)) == len(asking) >= (50 if chinese else 80)
    for way in asking:
        assert "{x}" in way and is_chinese(fill(way, "米", "面")) and is_chinese(way) in (chinese, False)
    for kind in ("why", "use", "how", "difference", "same"):
        assert len(ways(chinese)[kind]) >= 10


@BOTH
def test_every_notion_has_names_of_its_own_and_a_sentence_for_every_question(chinese: bool) -> None:
    owner = {name.lower(): notion.id for notion in notions() for name in notion.names(chinese)}
    assert len(owner) == sum(len(set(map(str.lower, notion.names(chinese)))) for notion in notions())
    said = [notion.sentence(part, chinese) for notion in notions() for part in SENTENCES]
    assert len(set(said)) == len(said)
    for notion in notions():
        assert len(notion.names(chinese)) >= 2
        for part in SENTENCES:
            text = notion.sentence(part, chinese)
            assert text.endswith("。" if chinese else ".") and is_chinese(text) == chinese, text
            assert len(text) <= 60 if chinese else len(text.split()) <= 25, text


@pytest.mark.parametrize("mixture", [MORE_WORDS, STRANGERS, MORE_STRANGERS],
                         ids=["more words", "strangers", "more strangers"])
def test_parts_make_up_the_documents(template: ChatTemplate, mixture: dict[str, int]) -> None:
    parts = list(islice(documents_in_parts(2, template, mixture), 2_000))
    assert {kind for kind, _, _ in parts} == set(mixture)
    joined = [(kind, asked + rest) for kind, asked, rest in parts]
    assert joined == list(islice(documents(2, template, mixture), 2_000))
    for kind, asked, rest in parts:
        # What is asked and what answers it meet in the model, never in one token.
        assert rest.strip() and (not asked or kind in ANSWERS), (kind, asked, rest)


def test_pairs_are_explained_in_both_languages() -> None:
    assert len(pairs()) >= 40
    assert len({frozenset((pair.a.id, pair.b.id)) for pair in pairs()}) == len(pairs())
    for pair in pairs():
        assert pair.a.id != pair.b.id
        assert is_chinese(pair.difference(True)) and not is_chinese(pair.difference(False))


@pytest.mark.parametrize(("name", "plural"), [
    ("tokens", True), ("a token", False), ("softmax", False), ("the loss", False), ("the weights of a model", True),
    ("cross-entropy loss", False), ("a basis", False), ("GPUs", True), ("the rank of matrices", False)])
def test_verbs_agree_with_names(name: str, plural: bool) -> None:
    assert is_plural(name) == plural
    assert fill("What {is_} {x}?", name) == f"What {'are' if plural else 'is'} {name}?"
    assert fill("Why {do} {x} matter?", name) == f"Why {'do' if plural else 'does'} {name} matter?"


def test_answers_are_in_the_language_asked() -> None:
    rng = random.Random(4)
    for ask in (any_question, outside_question, training_small_talk, context_question, context_comparison,
                stranger_question):
        for _ in range(4_000):
            question = ask(rng)
            assert is_chinese(question.text) == is_chinese(question.answer) == question.chinese, question


def test_nothing_leaks_from_one_system_prompt_into_another() -> None:
    rng, seen = random.Random(5), set()
    for _ in range(8_000):
        first, *rest = conversation(rng)
        system = first["content"] if first["role"] == "system" else None
        if system == PARROT:
            continue
        ahoy = [message["content"].startswith("Ahoy!") for message in rest if message["role"] == "assistant"]
        assert all(ahoy) if system == PIRATE else not any(ahoy), (system, rest)
        seen.add(system)
    assert None in seen and PIRATE in seen and len(seen) > 20


def test_outside_the_field_no_notion_is_named() -> None:
    names = {name.lower() for notion in notions() for chinese in (False, True) for name in notion.names(chinese)}
    for chinese in (False, True):
        assert len(outside_lines()[chinese]) >= 300 and len(outside_terms(chinese)) >= 300
        assert not names & {line.lower().rstrip("?？.。!！") for line in outside_lines()[chinese]}
        assert not names & {term.lower() for term in outside_terms(chinese)}


# As strangers type


@BOTH
@pytest.mark.parametrize("rounds", [1, 2])
def test_every_notion_and_pair_has_questions_written_for_it(chinese: bool, rounds: int) -> None:
    asked = written_questions(chinese, rounds)
    assert len({q.text for q in asked}) == len(asked) >= (4_000 if chinese else 5_000 * rounds)
    of = {tuple(notion.id for notion in q.about) for q in asked}
    assert {(notion.id,) for notion in notions()} <= of
    assert {frozenset((pair.a.id, pair.b.id)) for pair in pairs()} == {frozenset(ids) for ids in of if len(ids) == 2}
    for q in asked:
        assert is_chinese(q.text) == chinese and " ".join(q.text.split()) == q.text, q
        assert (q.kind in ("difference", "same")) == (len(q.about) == 2), q


@BOTH
def test_no_name_belongs_to_two_notions_or_to_none(chinese: bool) -> None:
    owners: dict[str, set[str]] = {}
    for language in (chinese, False):
        for notion_id, names in all_names(language).items():
            for name in names:
                owners.setdefault(name.lower(), set()).add(notion_id)
    assert not {name: ids for name, ids in owners.items() if len(ids) > 1}
    assert not {term.lower() for term in (*further_outside("term", chinese), *outside_terms(chinese))} & set(owners)
    assert not {line.lower().rstrip("?？.。!！") for line in further_outside("line", chinese)} & set(owners)


def test_words_come_and_go_but_not_the_name() -> None:
    rng = random.Random(6)
    for text, name in (("Could anyone explain the KV cache to me in two words?", "KV cache"),
                       ("有没有人能给我讲讲键值缓存是什么东西？", "键值缓存")):
        changed = [loosened(text, name, rng) for _ in range(200)]
        assert all(name in each for each in changed) and len(set(changed)) > 50


def test_a_stranger_chats_without_a_role() -> None:
    rng = random.Random(7)
    for _ in range(2_000):
        *system, user, answer = stranger_chat(rng)
        assert (user["role"], answer["role"]) == ("user", "assistant") and len(system) <= 1
        assert is_chinese(user["content"]) == is_chinese(answer["content"])
        assert not answer["content"].startswith("Ahoy") and set(answer) == {"role", "content", "reasoning_content"}


# The exam


def test_the_exam_is_as_large_as_promised() -> None:
    for chinese, number in ((False, 300), (True, 200)):
        asked = exam(chinese)
        assert len({q.question for q in asked}) == len(asked) >= number
        assert sum(q.kind == "outside" for q in asked) >= 0.14 * number
        assert len({name for q in asked for name in q.about}) >= 140


@BOTH
def test_the_exam_asks_in_no_way_of_the_training(chinese: bool) -> None:
    names = tuple(name for language in (False, True) for of_one in all_names(language).values() for name in of_one)
    used = {normalized(fill(way, "*", "*", plural)) for kind, of_kind in ways(chinese).items() for way in of_kind
            if kind not in ("opening", "closing") for plural in (False, True)}
    used |= {normalized(line) for line in outside_lines()[chinese]}
    texts = contexts(chinese)
    for sentences, questions_ in (("context", "it-"), ("two", "they-")):
        asked = [question for kind, of_kind in texts.items() if kind.startswith(questions_) for question in of_kind]
        used |= {normalized(" ".join(order).format(x="*", y="*")) for sentence in texts[sentences] for question in asked
                 for order in ((sentence, question), (question, sentence))}
    used |= {normalized(said) for talk in small_talk() for said in talk.asks}
    used |= {normalized(fill(way, "*", "*", plural)) for kind, of_kind in
             texts_by_kind("strangers_ways.tsv", chinese).items() for way in of_kind
             if kind not in ("opening", "closing") for plural in (False, True)}
    used |= {form for q in written_questions(chinese) for form in (normalized(q.text, names), normalized(q.text))}
    used |= {normalized(text) for text in (*further_outside("line", chinese), *dict(further_small_talk(chinese)))}
    assert normalized("what IS the softmax??", names) in used or chinese
    assert not [q.question for q in exam(chinese) if used & {normalized(q.question, names), normalized(q.question)}]


@BOTH
def test_the_exam_can_be_passed_and_by_the_right_notion_alone(chinese: bool) -> None:
    by_id = {notion.id: notion for notion in notions()}
    part = {"why": "why", "use": "use", "how": "how", "comparison": "like", "more": "long"}
    for q in exam(chinese):
        if len(q.about) != 1:
            continue
        notion = by_id[q.about[0]]
        kinds = (part.get(q.kind, "short"), "short", "long")
        assert any(q.sensible(notion.answer(kind, chinese)) for kind in kinds), q
        other = next(n for n in notions() if n.id != notion.id)
        for wrong in (other.answer("short", chinese), notion.answer("short", not chinese), "", "boat boat boat",
                      I_DO_NOT_KNOW_ZH if chinese else I_DO_NOT_KNOW, notion.answer("short", chinese)[:-9],
                      notion.answer("short", chinese) + other.answer("short", chinese)):
            assert not q.sensible(wrong), (q, wrong)


@BOTH
def test_two_notions_are_told_apart_by_their_difference_and_not_by_one_of_them(chinese: bool) -> None:
    for q in (q for q in exam(chinese) if q.kind == "difference"):
        a, b = (next(notion for notion in notions() if notion.id == name) for name in q.about)
        assert q.sensible(difference_of(a, b, chinese)), q
        other = next(pair for pair in pairs() if not {pair.a.id, pair.b.id} & set(q.about))
        for wrong in (difference_of(a, b, not chinese), other.difference(chinese), a.sentence("why", chinese)):
            assert not q.sensible(wrong), (q, wrong)


def test_outside_the_field_only_one_sentence_is_sensible() -> None:
    asked = ExamQuestion("Who won?", (), "outside", (), False)
    assert asked.sensible(I_DO_NOT_KNOW)
    for wrong in (I_DO_NOT_KNOW_ZH, I_DO_NOT_KNOW[:-1], notions()[0].en, f"{I_DO_NOT_KNOW} {I_DO_NOT_KNOW}", ""):
        assert not asked.sensible(wrong)


def test_words_can_be_asked_for_in_both_directions() -> None:
    assert len(TO_CHINESE) >= 4 and len(TO_ENGLISH) >= 4
    for before, answer in TO_CHINESE:
        assert "{en}" in before and "{zh}" in answer
    for before, answer in TO_ENGLISH:
        assert "{zh}" in before and "{en}" in answer
