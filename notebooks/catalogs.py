"""The catalogs of a language, `locale/LANGUAGE/*.po`: brought up to date, looked up, and what in them is behind.

A chapter has a catalog with its notebook's name, and what stands in several chapters is translated once, in common.po.
They are gettext's files, which translators' programs know: an entry whose English text has changed is "fuzzy" and keeps
the English that it was translated from; one that is gone stands at the end of its file, commented out, so that it can
be found again.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.catalog import Message as Entry
from babel.messages.pofile import read_po, write_po
from translation import Message, faults

COMMON = "common"
BOUND = 0.05  # of a catalog's needed messages may be behind
OPTIONAL = "may stay English (msgstr empty): a prompt, an example or a label"
_HEADER = '''\
# Written by `notebooks/build.py translate`, all but the msgstr.
msgid ""
msgstr ""
"Language: {language}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=UTF-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: {plurals}\\n"

'''


def read(path: Path, language: str) -> Catalog:
    """A catalog from its file; an empty one if there is none."""
    if not path.is_file():
        return Catalog(locale=language)
    with path.open("rb") as file:
        return read_po(file, locale=language)


def write(catalog: Catalog, path: Path) -> None:
    """A catalog to its file, unless that would change nothing: no dates, no line numbers, long lines as they are."""
    for entry in _entries(catalog):  # Babel guesses from the braces; ours are f-strings'
        entry.flags -= {"python-format", "python-brace-format"}
    lines = BytesIO()
    write_po(lines, catalog, width=0, no_location=True, omit_header=True, include_previous=True)
    head = _HEADER.format(language=catalog.locale_identifier, plurals=catalog.plural_forms)
    text = head + lines.getvalue().decode().strip("\n") + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def template(language: str, messages: Iterable[Message]) -> Catalog:
    """A catalog without translations. A text that stands somewhere where it is needed is needed."""
    needed: dict[str, bool] = {}
    for message in messages:
        needed[message.text] = needed.get(message.text, False) or message.needed
    catalog = Catalog(locale=language)
    for text, is_needed in needed.items():
        catalog.add(text, auto_comments=[] if is_needed else [OPTIONAL])
    return catalog


class Catalogs:
    """All catalogs of one language.

    Args:
        folder: where they are, such as `locale/zh`.
        language: its short name, such as "zh".
        messages: for each chapter, by its notebook's name without the ending, its messages.
        own: messages that belong to no chapter.
    """

    def __init__(self, folder: Path, language: str, messages: dict[str, list[Message]],
                 own: Iterable[str] = ()) -> None:
        self.folder, self.language = folder, language
        chapters = Counter(text for of_one in messages.values() for text in {message.text for message in of_one})
        # What a single word means depends on what stands around it, and each chapter chooses its own prompts.
        optional = {message.text for of_one in messages.values() for message in of_one if not message.needed}
        shared = {text for text, count in chapters.items()
                  if count > 1 and re.search(r"\w\W* \W*\w", text) and text not in optional}
        self.messages = {COMMON: [Message(text, "Markdown", True) for text in own]}
        self.messages[COMMON] += [message for of_one in messages.values() for message in of_one
                                  if message.text in shared]
        for name, of_one in messages.items():
            self.messages[name] = [message for message in of_one if message.text not in shared]
        self.catalogs = {name: read(folder / f"{name}.po", self.language) for name in self.messages}

    def update(self, names: Iterable[str]) -> None:
        """Bring catalogs up to date with the English messages; what another one has translated is taken from there."""
        known = {entry.id: entry for catalog in self.catalogs.values() for entry in _entries(catalog)
                 if _is_told(entry)}
        known |= {id_: entry for catalog in self.catalogs.values() for id_, entry in catalog.obsolete.items()
                  if _is_told(entry) and id_ not in known}
        current = {message.text for of_one in self.messages.values() for message in of_one}
        for name in names:
            catalog = self.catalogs[name]
            for message in self.messages[name]:
                if message.text in known and message.text not in catalog:
                    catalog.add(message.text, known[message.text].string, flags=known[message.text].flags)
            catalog.update(template(self.language, self.messages[name]), no_fuzzy_matching=True)
            for text in [text for text, entry in catalog.obsolete.items() if text in current or not entry.string]:
                del catalog.obsolete[text]
            _follow_changes(catalog)
            write(catalog, self.folder / f"{name}.po")

    def told(self, name: str, text: str) -> str | None:
        """The translation of a chapter's message, None if there is none from the present English text."""
        for catalog in (self.catalogs[name], self.catalogs[COMMON]):
            if (entry := catalog.get(text)) is not None and _is_told(entry):
                return str(entry.string)
        return None

    def needed(self, name: str) -> list[str]:
        """The messages of a catalog that need a translation, each once."""
        return list(dict.fromkeys(message.text for message in self.messages[name] if message.needed))

    def behind(self, name: str) -> list[str]:
        """Those of them that have none from the present English text."""
        return [text for text in self.needed(name) if self.told(name, text) is None]

    def faults(self, name: str) -> Iterator[str]:
        """What is wrong with a catalog: entries that are out of step with the English, and faulty translations."""
        catalog = self.catalogs[name]
        wanted = {message.text for message in self.messages[name]}
        there = {str(entry.id) for entry in _entries(catalog)}
        for text in sorted(wanted ^ there):
            yield f"{_short(text)}: is {'not in the catalog' if text in wanted else 'in no notebook'}; run translate."
        for message in dict.fromkeys(self.messages[name]):
            entry = catalog.get(message.text)
            if entry is not None and _is_told(entry):
                for fault in faults(message, str(entry.string), entry.flags):
                    yield f"{_short(message.text)}: {fault}"


def _follow_changes(catalog: Catalog) -> None:
    """Give a message that is new and much like one that is gone the translation of that, as fuzzy."""
    for entry in _entries(catalog):
        if not entry.string and (found := get_close_matches(str(entry.id), map(str, catalog.obsolete), 1)):
            earlier = catalog.obsolete.pop(found[0])
            entry.string, entry.previous_id = earlier.string, [found[0]]
            entry.flags |= {"fuzzy"}


def _entries(catalog: Catalog) -> list[Entry]:
    return [entry for entry in catalog if entry.id]


def _is_told(entry: Entry) -> bool:
    return bool(entry.string) and not entry.fuzzy


def _short(text: str) -> str:
    return repr(text if len(text) < 60 else text[:57] + "...")


@dataclass(frozen=True)
class Term:
    """A line of a glossary: an English term, the usual translation first, and others that are allowed."""

    english: str
    usual: str
    also: tuple[str, ...]


def glossary(path: Path) -> list[Term]:
    """The terms of a language: a table with tabs, of English, translation, and allowed others between `|`."""
    if not path.is_file():  # a language that has just been begun
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    return [Term(english, usual, tuple(filter(None, also.split("|")))) for english, usual, also, *_ in rows]


def unusual(terms: list[Term], english: str, translation: str) -> Iterator[str]:
    """Terms of the glossary that an English text holds and its translation renders in none of the fixed ways."""
    plain = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|\{[^}]*\}|<[^>]*>", " ", english, flags=re.DOTALL)
    for term in sorted(terms, key=lambda term: -len(term.english)):
        pattern = rf"(?<![\w-]){re.escape(term.english)}(?:s|es)?(?![\w-])"
        plain, count = re.subn(pattern, " ", plain, flags=re.IGNORECASE)
        if count and not any(word.casefold() in translation.casefold() for word in (term.usual, *term.also)):
            yield f"{term.english}: {' or '.join((term.usual, *term.also))}"
