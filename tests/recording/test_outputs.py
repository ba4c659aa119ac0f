"""What is kept of a module's output."""

import math

import pytest
import torch

from pytest_mltd.recording import lanes, outputs


@pytest.fixture
def lane():
    return lanes.Lane()


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(40, 7), (300, 300), (5,), (2, 3, 4, 5)])
def test_both_engines_describe_an_output_alike(lane, shape):
    """The small path in numpy and the large one in torch agree; a mean far above the spread does not cancel it."""
    x = normal(*shape) + 100
    small = outputs.numbers(x, lane)
    large = lane.read(outputs.statistics(x))
    assert small == pytest.approx(large, rel=1e-4)
    assert small[0] == pytest.approx(x.double().mean().item(), rel=1e-5)
    assert small[1] == pytest.approx(x.double().std(correction=0).item(), rel=1e-3)


@pytest.mark.parametrize(("count", "last"), [(100, 10), (1 << 20, 1024), (1 << 20, 7), (12_345, 4096), (1, 1)])
def test_the_sampled_stride_leaves_the_columns(count, last):
    """At most 4,096 values, and not always the same unit."""
    stride = outputs.stride_for(count, last)
    assert -(-count // stride) <= 4096
    assert stride == 1 or math.gcd(stride, last) == 1


class TestRowsAgainstEachOther:
    def test_the_spread_is_over_rows_and_not_over_units(self, lane):
        """Units that differ are no spread; it is the RMS over units of the standard deviation over rows."""
        x = normal(32, 5) + torch.arange(5) * 100
        across = outputs.described(x, lane)[5]
        assert across == pytest.approx(x.std(0, correction=0).square().mean().sqrt().item(), rel=1e-4)

    def test_rows_that_are_all_alike_have_none(self, lane):
        """A collapsed batch: 0 across, whatever the units do."""
        assert outputs.described(normal(1, 6).expand(16, 6), lane)[5] == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize("shape", [(16, 10), (16, 7, 10), (16, 10, 6, 6), (16, 10, 3, 4, 5)])
    def test_silent_units_are_those_that_are_zero_everywhere(self, lane, shape):
        """Channels of images are the second axis, units of sequences the last; honest sparsity is not silence."""
        x = torch.relu(normal(*shape))
        (x if len(shape) < 4 else x.transpose(1, -1))[..., :3] = 0
        assert outputs.described(x, lane)[6] == pytest.approx(0.3)
        assert outputs.described(torch.relu(normal(*shape)), lane)[6] == 0

    @pytest.mark.parametrize("shape", [(8,), (3, 4), (0, 4)])
    def test_few_rows_say_nothing(self, shape):
        """One axis, or fewer than four rows."""
        assert outputs._sample(torch.zeros(shape)) is None

    @pytest.mark.parametrize("shape", [(500, 5000), (128, 300, 700), (80, 2000, 30, 30)])
    def test_little_of_a_large_output_is_looked_at(self, shape):
        """64 rows and one or two thousand numbers of each."""
        rows, positions, units = outputs._sample(torch.empty(shape)).shape
        assert rows == 64
        assert 256 <= positions * units <= 2048

    def test_a_device_says_the_same(self):
        """The reductions that stay on an accelerator, here on the CPU."""
        sample = outputs._sample(torch.relu(normal(16, 9, 10) - 2))
        there = [float(t) for t in outputs._compared_there(sample)]
        assert there == pytest.approx(outputs.compared(sample), rel=1e-5)

    def test_nan_stays_nan(self, lane):
        """No number is made up of what is none; a NaN unit is not silent."""
        x = torch.zeros(8, 2)
        x[:, 0] = float("nan")
        across, silent = outputs.described(x, lane)[5:]
        assert math.isnan(across)
        assert silent == 0.5

    def test_half_precision_is_read(self, lane):
        """In float32."""
        assert outputs.described(torch.ones(8, 4, dtype=torch.bfloat16), lane)[5:] == (0, 0)
