"""JSON from a file or a server: whatever is wrong with it is a `ValueError`."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: if it is no JSON, or nested so deeply that Python cannot follow (`json.loads` raises a
            `RecursionError` then, which a reader who expects a damaged file does not catch).
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
