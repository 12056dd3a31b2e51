"""How fast a machine can read its memory, which limits how fast it can write text.

A decoding step reads every weight once and does little with each, so reading is what takes the time. Bytes
per second divided by bytes of weights is then the most steps per second that any program can reach: the left
end of the roofline model, https://doi.org/10.1145/1498765.1498785.
"""

from __future__ import annotations

import torch

from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.timing import median_seconds

_CPU_BYTES, _GPU_BYTES = 256 << 20, 1 << 30


def read_bandwidth(device: torch.device | str, num_bytes: int | None = None, repeats: int = 7) -> float:
    """Measure how many bytes per second a device reads from its memory when it adds up a long row of numbers.

    Args:
        device: whose memory.
        num_bytes: length of the row; it has to be longer than the processor's caches. None is 256 MiB on a
            CPU and 1 GiB elsewhere.
        repeats: how often to read it. The fastest time counts: a limit is what is possible at best, and other
            programs only make it look slower.

    Returns:
        Bytes per second.

    Raises:
        InputError: if `num_bytes` is not positive, or `repeats` less than 1.
    """
    device = torch.device(device)
    if num_bytes is None:
        num_bytes = _CPU_BYTES if device.type == "cpu" else _GPU_BYTES
    if num_bytes < torch.float32.itemsize:
        raise InputError(gettext("num_bytes is {num_bytes}: give at least {itemsize}, better some hundred "
                                 "million.").format(num_bytes=num_bytes, itemsize=torch.float32.itemsize))
    # Ones, not zeros: a page that nobody has written to is not in memory at all.
    row = torch.ones(num_bytes // torch.float32.itemsize, device=device)
    return row.numel() * row.itemsize / median_seconds(row.sum, device, repeats).low
