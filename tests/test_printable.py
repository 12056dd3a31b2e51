"""Text of strangers on its way to a terminal."""

from __future__ import annotations

import pickle
import sys
import unicodedata

import pytest

from course_utils.errors import CourseError, InputError
from course_utils.printable import printable


def test_no_control_character_is_left() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = printable(every)
    assert not [letter for letter in shown if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")]
    assert not [letter for letter in shown if unicodedata.bidirectional(letter) in (
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")]
    assert printable(shown) == shown


@pytest.mark.parametrize("text", ["", "plain", "月亮\u3000。", "👩\u200d🚀 é\u0301 שלום \u200f", "a\\x1b"])
def test_ordinary_text_stays(text: str) -> None:
    assert printable(text) == text


def test_what_may_stay_stays() -> None:
    assert printable("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"


def test_an_error_is_one_printable_line_wherever_it_is_shown() -> None:
    error = InputError("The key is 'a\x1b[31m\nb'\u2028: leave it out.")
    for shown in (str(error), f"{error}", str(pickle.loads(pickle.dumps(error))), str(CourseError(error))):
        assert shown == "The key is 'a\\x1b[31m b' : leave it out."
