"""The language in which the package speaks to its reader, and its texts in that language.

English stands in the code. `gettext` looks a text up where it is shown: in `locale/LANGUAGE.po`, for the language that
the environment variable COURSE_LANGUAGE names, such as "zh", else for that of the system. What has no translation is
shown in English. A text with something in it is looked up first and filled in then:
`_("{count} tokens").format(count=count)`. A text that is kept, such as an exercise's title, is kept in English.

The catalogs are read as translators write them, so that none is ever out of step with a compiled copy.
"""

from __future__ import annotations

import json
import locale
import os
import re
import sys
from functools import cache
from pathlib import Path

_VARIABLE = "COURSE_LANGUAGE"
_CATALOGS = Path(__file__).parent / "locale"
# Where a system says which language it speaks, in the order that gettext(3) looks.
_SYSTEM = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
_FIELD = re.compile(r'^(msgid|msgstr) (".*"(?:\n".*")*)$', re.MULTILINE)


def language() -> str:
    """The language that texts are shown in: "en", or another one that has a catalog, such as "zh"."""
    wanted = os.environ.get(_VARIABLE) or _of_system()
    short = re.split(r"[_.@:-]", wanted.strip())[0].lower()
    return short if short in languages() else "en"


@cache
def languages() -> tuple[str, ...]:
    """The languages that the package speaks."""
    return ("en", *sorted(path.stem for path in _CATALOGS.glob("*.po")))


def gettext(text: str) -> str:
    """A text in the reader's language; in English where it has no translation."""
    return _catalog(language()).get(text, text)


def noted(text: str) -> str:
    """The same text, marked for the catalogs: it is kept in English, and `gettext` looks it up where it is shown."""
    return text


@cache
def _catalog(name: str) -> dict[str, str]:
    """The translations of a language by the English texts; what is fuzzy or empty is none."""
    if name == "en":
        return {}
    found = {}
    for entry in (_CATALOGS / f"{name}.po").read_text(encoding="utf-8").split("\n\n"):
        if not re.search(r"^#,.*\bfuzzy\b", entry, re.MULTILINE):
            fields = {key: "".join(map(json.loads, lines.split("\n"))) for key, lines in _FIELD.findall(entry)}
            if fields.get("msgid") and fields.get("msgstr"):
                found[fields["msgid"]] = fields["msgstr"]
    return found


def _of_system() -> str:
    if named := next((os.environ[name] for name in _SYSTEM if os.environ.get(name)), ""):
        return named
    if sys.platform == "win32":  # has none of these variables
        import ctypes

        return locale.windows_locale.get(ctypes.windll.kernel32.GetUserDefaultUILanguage(), "")
    return ""
