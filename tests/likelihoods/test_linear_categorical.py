"""The softmax whose logits are linear in the pixel's earlier colours, against a sum written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from condgen.likelihoods import Categorical, LinearCategorical


def slow_log_prob(parameters: list[float], pixel: list[int], levels: int) -> float:
    """ln p of one pixel, block after block as the docstring lists them."""
    total, place = 0.0, 0
    for c, value in enumerate(pixel):
        block = [parameters[place + k * levels : place + (k + 1) * levels] for k in range(c + 1)]
        place += (c + 1) * levels
        logits = [
            block[0][v] + sum(block[1 + i][v] * (2 * pixel[i] / (levels - 1) - 1) for i in range(c))
            for v in range(levels)
        ]
        total += logits[value] - math.log(sum(math.exp(logit) for logit in logits))
    return total


def random_parameters(likelihood: LinearCategorical, batch: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, likelihood.outputs, height, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("channels", "levels"), [(1, 5), (2, 3), (3, 4), (4, 3)])
def test_log_prob_is_the_sum_written_out(channels: int, levels: int, layout: torch.memory_format) -> None:
    likelihood = LinearCategorical(channels, levels)
    parameters = random_parameters(likelihood, 2, 2, 3).contiguous(memory_format=layout)
    x = torch.randint(0, levels, (2, channels, 2, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    found = likelihood.log_prob(parameters, x)
    for b, r, c in ((0, 0, 0), (0, 1, 2), (1, 0, 1)):
        slow = slow_log_prob(parameters[b, :, r, c].tolist(), x[b, :, r, c].tolist(), levels)
        assert float(found[b, r, c]) == pytest.approx(slow, abs=1e-12)


def test_the_paper_counts_1536_outputs_and_grey_has_a_softmax() -> None:
    assert LinearCategorical(3, 256).outputs == 1536
    grey, plain = LinearCategorical(1, 16), Categorical(1, 16)
    parameters = random_parameters(grey, 2, 3, 3)
    x = torch.randint(0, 16, (2, 1, 3, 3), generator=torch.Generator().manual_seed(1))
    assert grey.outputs == plain.outputs
    torch.testing.assert_close(grey.log_prob(parameters, x), plain.log_prob(parameters, x))


def test_whole_pixels_take_one_pass_and_a_colour_ignores_the_later_ones() -> None:
    likelihood = LinearCategorical(3, 4)
    assert likelihood.passes == 1 and not likelihood.colour_ordered
    parameters = random_parameters(likelihood, 1, 1, 1)
    x, other = torch.tensor([[[[1]], [[2]], [[0]]]]), torch.tensor([[[[1]], [[3]], [[3]]]])
    tables = [[likelihood.table(parameters, image, c) for c in range(3)] for image in (x, other)]
    assert torch.equal(tables[0][0], tables[1][0]) and torch.equal(tables[0][1], tables[1][1])
    assert not torch.allclose(tables[0][2], tables[1][2])


def test_a_drawn_value_has_its_uniform_within_its_share_of_the_table() -> None:
    likelihood, n = LinearCategorical(3, 8), 500
    parameters = random_parameters(likelihood, n, 1, 1)
    uniforms = torch.rand(n, 3, 1, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    x = likelihood.draw(parameters, torch.zeros(n, 3, 1, 1, dtype=torch.uint8), uniforms, 0)
    for c in range(3):
        cumulated = likelihood.table(parameters, x, c).exp().cumsum(1)
        value = x[:, c, None].long()
        upper = cumulated.gather(1, value)
        lower = upper - likelihood.table(parameters, x, c).exp().gather(1, value)
        assert (uniforms[:, c, None] <= upper + 1e-12).all() and (uniforms[:, c, None] >= lower - 1e-12).all()
