"""Mistakes about the axis of the samples, and what looks like them."""

import pytest
import torch
from torch import nn

from pytest_mltd.probes.axes import misread
from pytest_mltd.probes.copies import Copy


class Gated(nn.Module):
    """Elements weighed by a softmax over an axis."""

    def __init__(self, axis):
        super().__init__()
        self.score, self.axis = nn.Linear(3, 1), axis

    def forward(self, x):
        return (x * torch.softmax(self.score(x), self.axis)).sum(1)


class Turned(nn.Module):
    """A recurrent net that wants elements × samples."""

    def __init__(self, turn, embedded=False):
        super().__init__()
        self.turn, self.rnn = turn, nn.GRU(3, 5)
        self.emb = nn.Linear(3, 3) if embedded else None

    def forward(self, x):
        return self.rnn(self.turn(x if self.emb is None else self.emb(x)))[0][-1]


def told(model, x=None):
    """Return what is said of a model given 4 samples of 6 elements."""
    torch.manual_seed(0)
    x = torch.randn(4, 6, 3) if x is None else x
    return misread(Copy(model, ((x,), {})), x)


@pytest.mark.parametrize("axis", [0, -3])
def test_a_softmax_over_the_samples_is_told(axis):
    """However the axis is counted."""
    assert told(Gated(axis)) == "A softmax runs over the first axis of 4 × 6 × 1, which counts the samples."


def test_a_softmax_over_the_elements_is_not():
    """Nor one over the first axis of elements × samples."""
    assert told(Gated(1)) == ""

    class First(Gated):
        def forward(self, x):
            return super().forward(x.transpose(0, 1))

    assert told(First(0)) == ""


def test_samples_may_be_shared_out_among_answers():
    """As many answers as elements: nothing tells which of them the second axis counts."""

    class Shares(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1)).softmax(0)

    assert told(Shares(18, 6)) == ""
    assert told(Shares(18, 6), torch.randn(4, 18)) == ""
    assert told(nn.Softmax(0), torch.randn(4, 18)) == ""


@pytest.mark.parametrize("embedded", [False, True])
def test_a_view_where_a_transpose_is_meant_is_told(embedded):
    """Of the inputs and of what became of them."""
    said = told(Turned(lambda x: torch.relu(x).reshape(6, 4, 3), embedded))
    assert said == "4 × 6 × 3 is viewed as 6 × 4 × 3, which mixes the 4 samples: transpose(0, 1) would not."


class Ends(nn.Module):
    """The last states of two layers, side by side."""

    def __init__(self, join):
        super().__init__()
        self.join, self.rnn = join, nn.GRU(3, 5, num_layers=2, batch_first=True)

    def forward(self, x):
        return self.join(self.rnn(x)[1])


def test_a_view_of_layers_by_samples_is_told():
    """As in the hidden state of a recurrent net, which has its samples second."""
    said = told(Ends(lambda h: h.view(4, -1)))
    assert said == "2 × 4 × 5 is viewed as 4 × 10, which mixes the 4 samples: transpose(0, 1) would not."
    assert told(Ends(lambda h: h.transpose(0, 1).reshape(4, -1))) == ""
    assert told(Ends(lambda h: torch.cat([*h], 1))) == ""


@pytest.mark.parametrize("embedded", [False, True])
def test_a_transpose_is_not(embedded):
    """Nor views that keep samples whole."""
    assert told(Turned(lambda x: x.transpose(0, 1), embedded)) == ""
    assert told(Turned(lambda x: x.permute(1, 0, 2).contiguous(), embedded)) == ""
    assert (
        told(Turned(lambda x: x.view(24, 3).view(4, 6, 3).view(4, 3, 6).view(4, 6, 3).transpose(0, 1), embedded)) == ""
    )


def test_samples_on_the_axis_of_time_are_told():
    """As torch's own modules want them where nobody says batch_first."""
    said = told(Turned(lambda x: x))
    assert said == "'rnn' (GRU, batch_first=False) wants the 4 samples on its second axis and is given 4 × 6 × 3."
