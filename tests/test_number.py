"""What counts as a number, whoever gives it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from course_utils.number import finite_number, whole_number

NO_NUMBERS = [True, np.True_, torch.tensor(True), "3", b"3", np.str_("3"), None, [3], {}, 3j, np.array([3]),
              torch.tensor([3]), torch.tensor(3, device="meta"), object()]


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3),
                                   torch.tensor(3, dtype=torch.uint8)], ids=repr)
def test_whole_numbers_of_every_kind(value: Any) -> None:
    assert type(whole_number(value)) is int and whole_number(value) == 3
    assert type(finite_number(value)) is float and finite_number(value) == 3.0


@pytest.mark.parametrize("value", [0.5, np.float64(0.5), np.float32(0.5), np.array(0.5), torch.tensor(0.5)], ids=repr)
def test_floats_of_every_kind(value: Any) -> None:
    assert type(finite_number(value)) is float and finite_number(value) == 0.5
    assert whole_number(value) is None


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number(value: Any) -> None:
    assert whole_number(value) is None and finite_number(value) is None


@pytest.mark.parametrize("value", [float("inf"), float("nan"), np.float32("inf"), torch.tensor(float("nan"))], ids=repr)
def test_what_is_not_finite(value: Any) -> None:
    assert finite_number(value) is None and whole_number(value) is None


def test_large_numbers() -> None:
    assert whole_number(10**400) == 10**400 and finite_number(10**400) is None  # too large for a float
    assert whole_number(2.0) is None
