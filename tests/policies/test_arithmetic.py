"""Training computes in bfloat16 where that is asked for and the processor has it."""

import pytest
import torch

from deer_policies.training import arithmetic
from deer_policies.training.arithmetic import mixed_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "has", "half"),
    [
        ("bfloat16", True, True),
        ("bfloat16", False, False),
        ("float32", True, False),
    ],
)
def test_products_are_in_bfloat16_only_if_asked_for_and_had(monkeypatch, precision, has, half):
    monkeypatch.setattr(arithmetic, "cpu_has_bfloat16", lambda: has)
    with mixed_precision(CPU, precision):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if half else torch.float32)


def test_this_processor_tells(caplog):
    arithmetic.cpu_has_bfloat16.cache_clear()
    with caplog.at_level("INFO"):
        had = arithmetic.cpu_has_bfloat16()
    assert ("no bfloat16" in caplog.text) == (not had)
