"""The package under the course: Qwen3 in plain PyTorch, its tokenizer, its caches, and every way to generate.

What it offers stands in `public.py`, and is imported when it is first asked for. PyTorch takes seconds, and an
instructor's table, which is looked at every minute, needs none of it.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from course_utils.public import *  # noqa: F403
    from course_utils.public import __all__ as __all__
else:
    def __getattr__(name: str) -> object:
        """A name that was not asked for before: a module, or one of `public.py`."""
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if importlib.util.find_spec(f"{__name__}.{name}") is not None:
            return importlib.import_module(f"{__name__}.{name}")
        public = importlib.import_module(f"{__name__}.public")
        if name != "__all__" and name not in public.__all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(public, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *importlib.import_module(f"{__name__}.public").__all__})
