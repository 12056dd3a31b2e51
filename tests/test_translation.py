"""The course in other languages: what of a notebook is translated, catalogs, whether what is committed is in step."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "notebooks"))

import build  # noqa: E402  (scripts beside the notebooks, not modules of the package)
import catalogs  # noqa: E402
import code_texts  # noqa: E402
import code_writing  # noqa: E402
import rules  # noqa: E402
import translation  # noqa: E402
from translation import Message  # noqa: E402

LANGUAGES = sorted(path.name for path in build.LOCALE.iterdir() if path.is_dir())
TRANSLATED = [path for language in LANGUAGES for path in sorted((build.FOLDER / language).glob("*.ipynb"))]

# ---- texts in code ------------------------------------------------------------------------------------------

SEEN = {
    "print": ('print("a boat", 3)', ["a boat"]),
    "print a word": ('print("boats")', ["boats"]),
    "print a choice": ('print("yes" if x else "no")', ["yes", "no"]),
    "print joined": ('print(", and ".join(words))', [", and "]),
    "f-string": ('print(f"{n:>3} boats of {size}")', ["{n:>3} boats of {size}"]),
    "f-string's own quotes": ("print(f'{d[\"a\"]} boats')", ["{d['a']} boats"]),
    "f-string's brace": ('print(f"{{x}} is {x}")', ["{{x}} is {x}"]),
    "two lines": ('print("a boat "\n      f"of {size}")', ["a boat of {size}"]),
    "caption": ('plots.show_figure(fig, "A boat.")', ["A boat."]),
    "comment": ("x = 1  # the first\n# a long\n# comment\ny = 2", ["the first", "a long comment"]),
    "comment with a list": ("# two:\n#   1\nx = 1", ["two:\n  1"]),
    "docstring": ('def f():\n    """Row\n\n    after row."""', ["Row\n\nafter row."]),
    "failure": ('assert x, "no boat"', ["no boat"]),
    "error": ('raise ValueError("no boat")', ["no boat"]),
    "magic": ("%matplotlib inline\nprint('boat')", ["boat"]),
}
PERHAPS = {
    "prompt": ('x = "The boat"', ["The boat"]),
    "prompt handed over": ('generate("The boat")', ["The boat"]),
    "prompt in a print": ('print(tokenizer.encode("The boat"))', ["The boat"]),
    "labels": ('for name, x in (("plain", 1), ("compiled", 2)):\n    pass', ["plain", "compiled"]),
}
NEVER = {
    "key": 'print(d["total"])', "comparison": 'print(x == "boat")', "name": 'load_model("nano")',
    "file": 'x = "config.json"', "format": 'print(f"{x:>10}")', "setting": "import os  # noqa: F401",
}


@pytest.mark.parametrize("source, expected", SEEN.values(), ids=SEEN)
def test_what_a_reader_sees_needs_a_translation(source, expected):
    assert [text.message for text in code_texts.texts(source) if text.needed] == expected


@pytest.mark.parametrize("source, expected", PERHAPS.values(), ids=PERHAPS)
def test_prompts_and_labels_may_have_a_translation(source, expected):
    assert [(text.message, text.needed) for text in code_texts.texts(source)] == [(text, False) for text in expected]


@pytest.mark.parametrize("source", NEVER.values(), ids=NEVER)
def test_names_have_no_translation(source):
    assert code_texts.texts(source) == []


def chinese(told):
    return lambda text: told.get(text.message)


REWRITTEN = {
    "placeholders in another order": (
        'print(f"{a!r} of {b:.1f} boats")', {"{a!r} of {b:.1f} boats": "{b:.1f} 条船里的 {a!r}"},
        'print(f"{b:.1f} 条船里的 {a!r}")'),
    "quotes and backslashes": ('print("a boat")', {"a boat": 'say "船" \\ \n'}, 'print("say \\"船\\" \\\\ \\n")'),
    "comment": ("x = 1  # boat\ny = 2", {"boat": "船"}, "x = 1  # 船\ny = 2"),
    "docstring": ('def f():\n    """A\n\n    b.\n    """\n    return 1', {"A\n\nb.": "甲\n\n乙。"},
                  'def f():\n    """甲\n\n    乙。\n    """\n    return 1'),
    "title": ("# @title Setup: go\nx = 1", {"Setup: go": "准备"}, "# @title 准备\nx = 1"),
    "braces beside a placeholder": ('print(f"a {{boat}} {x}")', {"a {{boat}} {x}": "{{船}} {x}"},
                                    'print(f"{{船}} {x}")'),
}


@pytest.mark.parametrize("source, told, expected", REWRITTEN.values(), ids=REWRITTEN)
def test_code_with_other_texts(source, told, expected):
    assert code_writing.with_texts(source, chinese(told)) == expected


def test_what_is_read_by_a_label_follows_its_translation():
    cells = ['rates = {"boat": 1}', 'x, y = rates["boat"], rates.pop("boat")', 'z = rates["tree"] + f("boat")']
    labels = {label for cell in cells for label in code_texts.labels(cell)}
    told = chinese({"boat": "船", "tree": "树"})
    assert [code_writing.with_texts(cell, told, labels) for cell in cells] == [
        'rates = {"船": 1}', 'x, y = rates["船"], rates.pop("船")', 'z = rates["tree"] + f("boat")']


@pytest.mark.parametrize("source", ['print("long")', 'x = "long text"', 'print(f"long {x}")', "# long\nx = 1"])
def test_long_translations_are_broken_into_lines_that_fit_and_say_the_same(source):
    told = {"long": "长" * 90 + "。", "long text": "长 long " * 30, "long {x}": "长，" * 50 + "{x}" + "短" * 30}
    result = code_writing.with_texts(source, chinese(told))
    assert max(map(rules.columns_of, result.splitlines())) <= rules.MOST_COLUMNS
    assert len(result.splitlines()) > 2
    said = [text.message for text in code_texts.texts(result)][0]
    assert "".join(said.split()) == "".join(told[code_texts.texts(source)[0].message].split())


def test_a_long_translation_that_would_stand_far_right_begins_below():
    source = f'show({"x" * 50}, """\nlong\ntext""")\ny = 1'
    result = code_writing.with_texts(source, chinese({"\nlong\ntext": "长" * 50}))
    assert result == f'show({"x" * 50},\n    "{"长" * 34}"\n    "{"长" * 16}")\ny = 1'


@pytest.mark.parametrize("told, fault", [
    ("船", "the placeholder {n} is missing"), ("{n} {m}", "{m} is not in the English"), ("{n", "not closed"),
    ("{n} }", "stands alone"), ("{n!r}", "{n} is missing"),
])
def test_placeholders_are_kept(told, fault):
    text, = code_texts.texts('print(f"{n} boats")')
    assert any(fault in found for found in code_texts.faults(text, told))


def test_a_placeholder_that_only_chooses_between_words_may_go():
    text, = code_texts.texts("""print(f"{n} boat{'' if n == 1 else 's'}")""")
    assert list(code_texts.faults(text, "{n} 条船")) == []
    assert list(code_texts.faults(text, "{n} {'条' if n == 1 else '只'}")) == []


# ---- notebooks ----------------------------------------------------------------------------------------------

SOLVED = "<!-- solution 4.1 -->\n<details><summary>Solution</summary>\n\n```python\nx\n```\n\n</details>\n" \
         "<!-- end of solution -->"


def notebook(*texts_):
    return new_notebook(cells=[new_markdown_cell("# 9. Boats\n\n[Open in Colab](x) · [Open](y)\n\nA boat."),
                               *(new_markdown_cell(text) for text in texts_), new_code_cell('print("a boat")')])


def translated(source, told):
    return [cell.source for cell in translation.translated(source, "zh", told.get, "BADGES").cells]


def test_every_badge_has_a_translation():
    links = build.badges("https://github.com/ann/course", "01_boat.ipynb")
    assert re.findall(r"\[(.*?)\]", links) == list(translation.BADGES)
    for language in LANGUAGES:
        assert not set(translation.BADGES) & set(build.catalogs(language).behind(catalogs.COMMON))


def test_badges_and_solutions_are_no_part_of_a_message():
    found = list(translation.messages(notebook(f"Hint.\n\n{SOLVED}", SOLVED)))
    assert found == [Message("# 9. Boats\n\nA boat.", "Markdown", True),
                     Message("Hint.\n\n<!-- solution 4.1 -->", "Markdown", True), Message("a boat", "string", True)]


def test_a_translated_notebook_is_filled_in_and_leads_to_the_right_places():
    links = "![x](images/x.png) [2](02.ipynb) [r](../R.md) [h](#a)"
    told = {"# 9. Boats\n\nA boat.": "# 9. 船\n\n一条船。", "a boat": "一条船", "Solution": "答案", links: links,
            "Hint.\n\n<!-- solution 4.1 -->": "提示。\n\n<!-- solution 4.1 -->"}
    cells = translated(notebook(f"Hint.\n\n{SOLVED}", links), told)
    assert cells == ["# 9. 船\n\nBADGES\n\n一条船。", "提示。\n\n" + SOLVED.replace("Solution", "答案"),
                     "![x](../images/x.png) [2](02.ipynb) [r](../../R.md) [h](#a)", 'print("一条船")']


def test_outputs_stay_while_a_cell_does_the_same():
    earlier = new_notebook(cells=[new_code_cell('print("one "\n      "boat")  # a', outputs=[new_output("stream")]),
                                  new_code_cell("%pip\nx = 1", outputs=[new_output("stream")])])
    told = new_notebook(cells=[new_code_cell(code) for code in (
        'print("one boat")', 'print("two boats")', "%pip\nx = 1", "%pip\nx = 2")])
    assert [len(cell.outputs) for cell in build.with_outputs(told, earlier).cells] == [1, 0, 1, 0]


def test_what_is_not_translated_is_shown_in_english_and_says_so():
    first, code = translated(notebook(), {translation.BEHIND: "未译："})
    assert first == "# 9. Boats\n\nBADGES\n\n*未译：*\n\nA boat."
    assert code == '# 未译：\nprint("a boat")'


@pytest.mark.parametrize("english, told, fault", [
    ("## A", "# A", "the heading ## is missing"), ("[a](b)", "[a](c)", "the link b is missing"),
    ("<details>", "x", "the tag <details is missing"), ("$x$", "x", "the formula $x$ is missing"),
    ("`x`", "x", "`x` stands in one"), ("A boat, a", "一条船, 一", "Chinese punctuation"),
    ("**Time:** a", "**时间：**一", "does not see this emphasis"), ("| a |\n|---|", "| a |", "row of a table"),
])
def test_what_a_translation_must_keep(english, told, fault):
    found = list(translation.faults(Message(english, "Markdown", True), told, set()))
    assert any(fault in one for one in found)


def test_an_adapted_translation_may_have_other_code():
    assert list(translation.faults(Message("`cat`", "Markdown", True), "`猫`", {"adapted"})) == []


# ---- catalogs -----------------------------------------------------------------------------------------------

def needed(*texts_):
    return [Message(text, "Markdown", True) for text in texts_]


def opened(folder, **chapters):
    return catalogs.Catalogs(folder, "zh", chapters)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "zh"
    opened(path, one=needed("A small boat lies here.", "Shared by both."),
           two=needed("Shared by both.")).update(["common", "one", "two"])
    for name, english, told in (("one", "A small boat lies here.", "小船。"), ("common", "Shared by both.", "共有。")):
        catalog = catalogs.read(path / f"{name}.po", "zh")
        catalog[english].string = told
        catalogs.write(catalog, path / f"{name}.po")
    return path


def test_what_stands_in_two_chapters_is_translated_once(folder):
    ours = opened(folder, one=needed("A small boat lies here.", "Shared by both."), two=needed("Shared by both."))
    assert ours.told("one", "Shared by both.") == ours.told("two", "Shared by both.") == "共有。"
    assert [ours.behind(name) for name in ("common", "one", "two")] == [[], [], []]
    assert "Shared" not in (folder / "one.po").read_text(encoding="utf-8")


def test_a_changed_message_is_fuzzy_and_keeps_the_earlier_english(folder):
    changed = "A small boat lies here now."
    ours = opened(folder, one=needed(changed, "Shared by both."), two=needed("Shared by both."))
    assert list(ours.faults("one"))  # out of step until it is updated
    ours.update(["one"])
    assert ours.told("one", changed) is None
    assert ours.behind("one") == [changed]
    text = (folder / "one.po").read_text(encoding="utf-8")
    assert "#, fuzzy" in text and '#| msgid "A small boat lies here."' in text and "小船。" in text
    assert list(ours.faults("one")) == []


def test_a_message_that_is_gone_is_kept_apart_and_found_again(folder):
    both = {"two": needed("Shared by both.")}
    opened(folder, one=needed("Quite another.", "Shared by both."), **both).update(["one"])
    assert '#~ msgid "A small boat lies here."' in (folder / "one.po").read_text(encoding="utf-8")
    again = opened(folder, one=needed("A small boat lies here.", "Shared by both."), **both)
    again.update(["one"])
    assert again.told("one", "A small boat lies here.") == "小船。"
    assert "#~" not in (folder / "one.po").read_text(encoding="utf-8")


def test_a_message_that_comes_to_stand_in_two_chapters_moves_with_its_translation(folder):
    both = needed("A small boat lies here.", "Shared by both.")
    ours = opened(folder, one=both, two=both)
    ours.update(["common", "one", "two"])
    assert ours.told("two", "A small boat lies here.") == "小船。"
    assert "A small boat" not in (folder / "one.po").read_text(encoding="utf-8")


def test_writing_a_catalog_again_changes_nothing(folder):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    opened(folder, one=needed("A small boat lies here.", "Shared by both."),
           two=needed("Shared by both.")).update(["common", "one", "two"])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_terms_of_the_glossary():
    terms = [catalogs.Term("cache", "缓存", ()), catalogs.Term("KV cache", "键值缓存", ("KV 缓存",))]
    assert list(catalogs.unusual(terms, "The KV cache and two caches.", "键值缓存和两个缓存")) == []
    assert list(catalogs.unusual(terms, "A KV cache.", "键值储存")) == ["KV cache: 键值缓存 or KV 缓存"]
    assert list(catalogs.unusual(terms, "`cache` and {cache}", "无")) == []


# ---- a language from nothing ---------------------------------------------------------------------------------

@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one chapter, a README and a package of one module, and no language but English."""
    notebooks, package = tmp_path / "notebooks", tmp_path / "course_utils"
    notebooks.mkdir()
    package.mkdir()
    (package / "talk.py").write_text('def f(n):\n    return gettext("{n} boats")\n', encoding="utf-8")
    (tmp_path / "README.md").write_text("# Boats\n\n[1](notebooks/01_boat.ipynb)\n\n```\nrow\n\nrow\n```\n\n"
                                        "At https://ann.github.io/boats/ is more.\n", encoding="utf-8")
    chapter = new_notebook(cells=[new_markdown_cell("# 1. Boats\n\nA boat."),
                                  new_code_cell('# @title Go\nprint("a boat")'), new_code_cell("1 + 1"),
                                  new_code_cell('print("a boat")')])
    chapter.cells[2].execution_count = 2
    build.write(build.filled_in(chapter, "01_boat.ipynb"), notebooks / "01_boat.ipynb")
    for name, value in (("FOLDER", notebooks), ("LOCALE", notebooks / "locale"), ("PACKAGE", package),
                        ("README", tmp_path / "README.md")):
        monkeypatch.setattr(build, name, value)
    for cached in (build.catalogs, build.package_catalog):
        cached.cache_clear()
    yield tmp_path
    for cached in (build.catalogs, build.package_catalog):
        cached.cache_clear()


def fill(path, told):
    catalog = catalogs.read(path, "it")
    for english, translation_ in told.items():
        catalog[english].string = translation_
    catalogs.write(catalog, path)
    build.catalogs.cache_clear()
    build.package_catalog.cache_clear()


def test_a_new_language_is_one_command_and_one_folder(course, capsys):
    build.translate("it", [])
    assert "01_boat: 3 messages, 3 behind" in capsys.readouterr().out
    assert not (course / "notebooks" / "it" / "01_boat.ipynb").exists()  # far behind, and nobody asked for it
    assert translation.BEHIND in (course / "README.it.md").read_text(encoding="utf-8")
    locale = course / "notebooks" / "locale" / "it"
    fill(locale / "01_boat.po", {"# 1. Boats\n\nA boat.": "# 1. Barche\n\nUna barca.", "Go": "Via",
                                 "a boat": "una barca"})
    link = "[1](notebooks/01_boat.ipynb)"
    fill(locale / "README.po", {"# Boats": "# Barche", link: link, "At https://OWNER.github.io/NAME/ is more.":
                                "Altro: https://OWNER.github.io/NAME/."})
    fill(course / "course_utils" / "locale" / "it.po", {"{n} boats": "{n} barche"})
    build.translate("it", [])
    path = course / "notebooks" / "it" / "01_boat.ipynb"
    cells = build.read(path).cells
    assert cells[0].source.startswith("# 1. Barche\n\n[Open in Colab](") and "/it/01_boat.ipynb" in cells[0].source
    assert cells[1].source.startswith('# @title Via\nimport os\n\nos.environ["COURSE_LANGUAGE"] = "it"\n')
    readme = (course / "README.it.md").read_text(encoding="utf-8")
    assert readme == ("# Barche\n\n[1](notebooks/it/01_boat.ipynb)\n\n```\nrow\n\nrow\n```\n\n"
                      f"Altro: {build.website(build.repository())}.\n")


def test_a_faulty_translation_is_not_written(course, capsys):
    build.translate("it", [])
    fill(course / "notebooks" / "locale" / "it" / "01_boat.po", {"# 1. Boats\n\nA boat.": "Barche"})
    build.translate("it", [course / "notebooks" / "01_boat.ipynb"])
    assert "the heading # is missing" in capsys.readouterr().out
    assert not (course / "notebooks" / "it" / "01_boat.ipynb").exists()


def test_outputs_stay_where_the_code_is_the_same(course):
    path = course / "notebooks" / "01_boat.ipynb"
    build.translate("it", [path])
    ours = course / "notebooks" / "it" / "01_boat.ipynb"
    notebook_ = build.read(ours)
    for cell in notebook_.cells[1:]:
        cell.outputs = [new_output("stream", name="stdout", text="2\n")]
    build.write(notebook_, ours)
    fill(course / "notebooks" / "locale" / "it" / "01_boat.po", {"a boat": "una barca"})
    build.translate("it", [path])
    assert [len(cell.outputs) for cell in build.read(ours).cells[1:]] == [1, 1, 0]  # set-up, the same, another


# ---- what is committed --------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", TRANSLATED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_committed_translation_is_in_step_with_the_english_notebook(path):
    assert rules.translated_faults(build.read(path), build.up_to_date(path)) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_catalogs_are_in_step_with_the_english_notebooks(language):
    ours = build.catalogs(language)
    assert {name: found for name in ours.messages if (found := list(ours.faults(name)))} == {}


@pytest.mark.parametrize("language", LANGUAGES)
def test_committed_readme_and_front_page_are_in_step(language):
    assert (REPOSITORY / f"README.{language}.md").read_text(encoding="utf-8") == build.readme_in(language)
    assert (build.FOLDER / language / "index.md").read_text(encoding="utf-8") == build.index_in(language)
    assert build.catalogs(language).behind("README") == []


@pytest.mark.parametrize("path", TRANSLATED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_more_than_the_bound_is_behind(path):
    ours = build.catalogs(path.parent.name)
    for name in (catalogs.COMMON, path.stem):
        behind = ours.behind(name)
        assert len(behind) <= catalogs.BOUND * len(ours.needed(name)), behind


@pytest.mark.parametrize("language", LANGUAGES)
def test_glossary_fixes_each_term_once(language):
    terms = catalogs.glossary(build.LOCALE / language / "glossary.tsv")
    assert len(terms) >= 150
    assert len({term.english.casefold() for term in terms}) == len(terms)


@pytest.mark.parametrize("path", TRANSLATED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_most_terms_are_those_of_the_glossary(path):
    ours = build.catalogs(path.parent.name)
    terms = catalogs.glossary(build.LOCALE / path.parent.name / "glossary.tsv")
    texts_ = [text for text in ours.needed(path.stem) if ours.told(path.stem, text)]
    unusual = [(text[:60], list(found)) for text in texts_
               if (found := list(catalogs.unusual(terms, text, ours.told(path.stem, text))))]
    assert len(unusual) <= 0.15 * len(texts_), unusual
