"""The package in the reader's language: which one that is, what is looked up, and that a catalog reaches every text."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from course_utils import language
from course_utils.exercises import ask, check, show_progress
from course_utils.language import gettext

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "notebooks"))

import build  # noqa: E402  (scripts beside the notebooks, not modules of the package)
import catalogs  # noqa: E402
import package_texts  # noqa: E402

PACKAGE = REPOSITORY / "course_utils"
SYSTEM = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    """A catalog of a made-up language, xx."""
    path = tmp_path / "xx.po"
    path.write_text('# head\nmsgid ""\nmsgstr ""\n"Language: xx\\n"\n\nmsgid "boat"\nmsgstr "naoto"\n\n'
                    'msgid ""\n"{count} boats\\n"\n"and \\"more\\""\nmsgstr ""\n"\\"naoti\\"\\n"\n"{count}"\n\n'
                    '#, fuzzy\n#| msgid "ship"\nmsgid "ships"\nmsgstr "navi"\n\nmsgid "moon"\nmsgstr ""\n\n'
                    '#~ msgid "sun"\n#~ msgstr "soli"\n', encoding="utf-8")
    monkeypatch.setattr(language, "_CATALOGS", tmp_path)
    for cached in (language.languages, language._catalog):
        cached.cache_clear()
    monkeypatch.setenv("COURSE_LANGUAGE", "xx")
    yield path
    for cached in (language.languages, language._catalog):
        cached.cache_clear()


def test_a_text_is_looked_up_and_english_where_there_is_no_translation(catalog):
    assert gettext("boat") == "naoto"
    assert gettext('{count} boats\nand "more"').format(count=3) == '"naoti"\n3'
    assert [gettext(text) for text in ("ships", "moon", "sun", "star", "")] == ["ships", "moon", "sun", "star", ""]


@pytest.mark.parametrize("wanted, system, found", [
    ("en", "zh_CN.UTF-8", "en"), ("zh", "C", "zh"), ("ZH-Hans", "", "zh"), ("zh_TW", "", "zh"),
    ("", "zh_CN.UTF-8", "zh"),
    ("", "zh_CN:en", "zh"), ("", "C.UTF-8", "en"), ("", "", "en"), ("tlh", "zh_CN", "en"),
])
def test_the_language_is_the_one_asked_for_or_that_of_the_system(monkeypatch, wanted, system, found):
    for name in SYSTEM:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COURSE_LANGUAGE", wanted)
    monkeypatch.setenv("LANG", system)
    if sys.platform == "win32" and not system:
        pytest.skip("needs POSIX: Windows tells its language in another way")
    assert language.language() == found


def test_remarks_questions_and_progress_are_in_the_readers_language(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_LANGUAGE", "zh")
    check("4.1", lambda logits: logits[:, -1].argmax(-1))
    check("4.1", lambda logits: 7)
    check("4.4", lambda b, t, v: 1 / 0)
    ask("4.A")
    show_progress(4)
    said = capsys.readouterr().out
    assert "还没通过 4.1 选出下一个词元：词元的形状是 (3,)，要的是 (3, 1)：keepdim=True" in said
    assert "ZeroDivisionError" in said and "小题 4.A：" in said and "第 4 章：" in said
    assert not [word for word in ("NOT YET", "Question", "exercises", "raised") if word in said]


def test_no_text_that_a_reader_sees_is_out_of_reach_of_the_catalogs():
    assert package_texts.unreachable(PACKAGE) == []


@pytest.mark.parametrize("source, reached, missed", [
    ('x = gettext("the boat")', ["the boat"], []),
    ('x = gettext("the boat" if y else "a ship")', ["the boat", "a ship"], []),
    ('raise InputError("No boat here.")', ["No boat here."], []),
    ('raise InputError(f"No boat {x} here.")', [], ["No boat {} here."]),
    ('print("the boat")', [], ["the boat"]),
    ('x = f"{n} boats are here"', [], ["{} boats are here"]),
    ('"""The docstring."""\nx = y["the boat"]', [], []),
])
def test_what_a_catalog_reaches(tmp_path, source, reached, missed):
    (tmp_path / "module.py").write_text(source, encoding="utf-8")
    assert [message.text for message in package_texts.messages(tmp_path)] == reached
    found = package_texts.unreachable(tmp_path)
    assert [repr(text) in line for text, line in zip(missed, found, strict=True)] == [True] * len(missed)


@pytest.mark.parametrize("name", [name for name in language.languages() if name != "en"])
def test_the_catalog_is_in_step_with_the_package(name):
    assert list(build.package_catalog(name).faults(name)) == []


@pytest.mark.parametrize("name", [name for name in language.languages() if name != "en"])
def test_no_more_than_the_bound_of_the_package_is_behind(name):
    ours = build.package_catalog(name)
    assert len(ours.behind(name)) <= catalogs.BOUND * len(ours.needed(name))
