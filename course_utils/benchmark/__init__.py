"""How fast each way of generating is on this machine, side by side, beside the limit of its memory.

`engines` are the ways, each with one method; `worker` runs one in a process of its own and reads the clock; `run` takes
turns among them; `report` holds what was measured; `peers` are other people's programs, imported where asked for. It
begins in `choices`, with what a reader asks for.
"""

from course_utils.benchmark.choices import choose_rows, choose_settings
from course_utils.benchmark.engines import ROWS, Row
from course_utils.benchmark.report import Report, Settings
from course_utils.benchmark.run import run_benchmark
from course_utils.benchmark.weights import Subject

__all__ = ["ROWS", "Report", "Row", "Settings", "Subject", "choose_rows", "choose_settings",
           "run_benchmark"]
