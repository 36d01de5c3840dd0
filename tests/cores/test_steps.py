"""What the nonlinearity does at single pixels, by numpy and by torch: elu of x and of -x, wherever values lie."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from condgen.cores.steps import Here, activate


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("filters", [1, 3, 40])
@pytest.mark.parametrize("parts", [1, 4])
def test_concat_elu_at_a_pixel(dtype: torch.dtype, filters: int, parts: int) -> None:
    """Of a feature by itself, and of parts of one, whose values lie apart."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.zeros(2, 5, filters * parts, dtype=dtype)
    strip = torch.full((5, 3, 2 * filters), 7.0, dtype=dtype)
    for part in whole.chunk(parts, dim=-1):
        x = Here(part)
        step = activate("concat_elu", x, list(strip.unbind(1)))
        for column in (0, 2):
            values = 3 * torch.randn(5, filters, generator=generator, dtype=torch.float64).to(dtype)
            x.values.copy_(values)
            step(column)
            expected = F.elu(torch.cat([values, -values], 1).double())
            close = {torch.float32: 1e-6, torch.float64: 1e-15, torch.bfloat16: 4e-3}[dtype]
            torch.testing.assert_close(strip[:, column].double(), expected, rtol=close, atol=close)
    assert bool((strip[:, 1] == 7).all())
