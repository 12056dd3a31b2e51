"""Reading the hand-written files of this folder: lines of JSON, and tables with a column for the language."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


def json_lines(name: str) -> list[dict[str, Any]]:
    """The objects of a file, one on each line."""
    return [json.loads(line) for line in (_FOLDER / name).read_text(encoding="utf-8").splitlines()]


@cache
def rows(name: str, chinese: bool) -> tuple[dict[str, str], ...]:
    """The rows of a table with a column `language` that are in one language, by column."""
    with (_FOLDER / name).open(encoding="utf-8", newline="") as file:
        return tuple(row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
                     if row["language"] == ("zh" if chinese else "en"))


@cache
def texts_by_kind(name: str, chinese: bool) -> Mapping[str, tuple[str, ...]]:
    """The texts of a table with the columns language, kind and text: those in one language, by kind."""
    kinds = dict.fromkeys(row["kind"] for row in rows(name, chinese))
    return {kind: tuple(row["text"] for row in rows(name, chinese) if row["kind"] == kind) for kind in kinds}
