"""Which of a model's arguments are a sequence whose targets are the next element, and which only look like it."""

import pytest
import torch

from pytest_mltd.probes.copies import CannotAsk
from pytest_mltd.probes.sequences import by_moment, later_changed, plain_sequence, sequence_in

TEXT = torch.randint(0, 11, (5, 12), generator=torch.Generator().manual_seed(0))


def of(value, targets, **named):
    """Return what is found, as (argument, axis)."""
    found = sequence_in(((value,), named), targets)
    return None if found is None else (found.argument, found.axis)


def test_targets_that_are_the_next_inputs_are_recognised():
    """As long as the inputs or one shorter, flat or not, time first or second, words or numbers, padded or not."""
    x, y = TEXT[:, :-1], TEXT[:, 1:]
    assert of(x, y) == of(x, y.reshape(-1)) == of(TEXT, y) == ("input 0", 1)
    assert of(x.T.contiguous(), y.T.reshape(-1)) == ("input 0", 0)
    wave = torch.randn(4, 9, 2)
    assert of(wave[:, :-1], wave[:, 1:]) == ("input 0", 1)
    padded = y.clone()
    padded[:, 8:] = -100
    found = sequence_in(((x,), {}), padded)
    assert found.last.tolist() == [7] * 5
    assert of(TEXT, torch.nn.functional.pad(y, (0, 1), value=-100), labels=TEXT) == ("input 0", 1)


@pytest.mark.parametrize(
    "targets",
    [TEXT[:, :-1], TEXT[:, :-1].roll(1, 1), TEXT[:, 0], torch.zeros(5, 11).long(), torch.full((5, 11), -100)],
    ids=["the inputs", "the inputs before", "a class", "zeros", "none"],
)
def test_other_targets_are_not(targets):
    """A masked language model, a delayed copy, a classifier."""
    assert of(TEXT[:, :-1], targets) is None


def test_what_stands_still_has_no_next_element():
    """Each element is the next one too."""
    still = torch.arange(5)[:, None].expand(5, 12).contiguous()
    assert of(still[:, :-1], still[:, 1:]) is None


def test_what_is_decoded_comes_after_what_is_encoded():
    """Of two arguments that the targets follow from, the last one must not see the future."""
    found = sequence_in(((TEXT, TEXT[:, :-1]), {}), TEXT[:, 1:])
    assert found.argument == "input 1"


def test_only_later_elements_change():
    """They become those of the next sample, of other moments where there is one sample; never others than there are."""
    for text in (TEXT, TEXT[:1]):
        sequence = plain_sequence(((text,), {}), "", 1)
        (other,), _ = later_changed(((text,), {}), sequence, torch.full((len(text),), 6))
        assert torch.equal(other[:, :6], text[:, :6])
        assert not torch.equal(other[:, 6:], text[:, 6:])
        assert set(other.unique().tolist()) <= set(text.unique().tolist())
    same = torch.zeros(3, 4).long()
    with pytest.raises(CannotAsk, match="all inputs of the sequence are the same"):
        later_changed(((same,), {}), plain_sequence(((same,), {}), "", 1), torch.tensor([2, 2, 2]))


def test_an_answer_is_read_by_moments():
    """Flat, transposed, one moment short; an answer for the whole is none."""
    for answer in (torch.rand(5, 12, 3), torch.rand(60, 3), torch.rand(5, 3, 12), torch.rand(5, 11, 3)):
        assert by_moment(answer, TEXT, 1).shape[0] == 5
    assert by_moment(torch.rand(12, 5, 3), TEXT.T, 0).shape == (5, 12, 3)
    assert by_moment(torch.rand(5, 3), TEXT, 1) is None
