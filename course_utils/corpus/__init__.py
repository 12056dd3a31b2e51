"""The text that the bundled models are trained on: written by this project, generated from a seed.

`documents(seed)` is an endless, reproducible stream. Every kind of document has a small file of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from course_utils.chat import ChatTemplate
from course_utils.corpus.conversations import conversation
from course_utils.corpus.copying import copying_document
from course_utils.corpus.notions import notion_document
from course_utils.corpus.stories import description, story
from course_utils.corpus.stories_zh import description_zh, story_zh
from course_utils.corpus.words import translation_document

# How often each kind comes up, relative to the others. Stories are several times as long as questions.
MIXTURE: dict[str, tuple[int, Callable[[random.Random], str]]] = {
    "notion": (34, notion_document),
    "translation": (24, translation_document),
    "copying": (11, copying_document),
    "story": (6, story),
    "story_zh": (4, story_zh),
    "description": (4, description),
    "description_zh": (3, description_zh),
}
CONVERSATIONS = 20


def documents(seed: int, template: ChatTemplate) -> Iterator[tuple[str, str]]:
    """Documents without end: (kind, text). The same seed gives the same documents on every machine.

    Args:
        seed: training uses 0; other seeds give held-out text of the same kinds.
        template: how conversations are written as text.
    """
    rng = random.Random(seed)
    kinds = [*MIXTURE, "conversation"]
    weights = [weight for weight, _ in MIXTURE.values()] + [CONVERSATIONS]
    while True:
        kind = rng.choices(kinds, weights)[0]
        if kind == "conversation":
            yield kind, template.render(conversation(rng), add_generation_prompt=False)
        else:
            yield kind, MIXTURE[kind][1](rng)
