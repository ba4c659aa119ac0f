"""Data changed before a training: the kinds that are understood keep their kind and their length."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import ChainDataset, DataLoader, Dataset, Subset, TensorDataset

from pytest_mltd.probes.datasets import wrapped
from pytest_mltd.probes.samples import changed, few, loaders_changed, shuffled_labels, size, without_inputs

X, Y = torch.arange(40.0).reshape(20, 2), torch.arange(20) % 2
KINDS = {
    "tensors": (X, Y),
    "arrays": (X.numpy(), Y.numpy()),
    "lists": (X.tolist(), Y.tolist()),
    "a tuple": ((X, Y),),
    "a frame": (pd.DataFrame(X.numpy()), pd.Series(Y.numpy())),
    "columns": ({"a": X, "b": X}, Y),
}


@pytest.mark.parametrize("data", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("change", [lambda: few(4, 0), without_inputs, lambda: shuffled_labels(1)])
def test_kind_and_length_are_kept(data, change):
    """What a training slices, indexes or measures is what it was."""
    result = changed(data, change())
    assert [type(part) for part in result] == [type(part) for part in data]
    assert [size(part) for part in result] == [size(part) for part in data]


def test_few_samples_have_varied_labels_that_stay_with_their_inputs():
    """Four samples of two labels: two of each, however the labels lie."""
    x, y = changed((X, torch.arange(20) // 18), few(4, 3))
    assert len(x.unique(dim=0)) == 4
    assert {(float(a), int(b)) for a, b in zip(x[:, 0], y, strict=True)} == {
        (float(a), int(a >= 36)) for a in x[:, 0].unique()
    }
    assert set(y.tolist()) == {0, 1}


def test_empty_inputs_are_zero_where_they_are_real_and_the_first_sample_where_not():
    """Zero may be a token of its own; the labels stay."""
    x, y = changed((X, Y), without_inputs())
    assert not x.any()
    assert torch.equal(y, Y)
    tokens, _ = changed((np.arange(3, 23), Y), without_inputs())
    assert set(tokens) == {3}


def test_shuffled_labels_are_the_same_labels():
    """Their frequency stays, and each shuffle is another one."""
    one, two = (changed((X, torch.arange(20)), shuffled_labels(seed))[1] for seed in (1, 2))
    assert sorted(one.tolist()) == list(range(20))
    assert not torch.equal(one, two)


def test_a_sample_in_two_subsets_has_one_label():
    """Labels are shuffled in the dataset below, so that rows in training and validation set stay the same rows."""
    base = TensorDataset(X, torch.arange(20))
    change = shuffled_labels(1)
    one, two = (wrapped(Subset(base, [3, 5]), change)[0][1] for _ in range(2))
    assert one == two


def test_a_dataset_of_mappings():
    """Inputs and label are found by their names."""

    class Own(Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return {"label": i, "image": torch.full((2,), float(i))}

    item = wrapped(Own(), without_inputs())[4]
    assert (item["label"], item["image"].tolist()) == (4, [0.0, 0.0])
    assert sorted(wrapped(Own(), shuffled_labels(1))[i]["label"] for i in range(6)) == list(range(6))


def test_loaders_are_given_back():
    """Within the block each loader has the changed data; afterwards its own, also after an exception."""
    loader = DataLoader(TensorDataset(X, Y), 5)
    own, change = loader.dataset, without_inputs()
    with pytest.raises(KeyError), loaders_changed(change):
        assert not next(iter(loader))[0].any()
        raise KeyError
    assert loader.dataset is own
    assert next(iter(loader))[0].any()
    assert change.done


def test_what_cannot_be_changed_is_refused():
    """Numbers, streams and parts of unequal length."""
    with pytest.raises(TypeError, match="^data: int has no samples"):
        changed((3,), few(2, 0))
    with pytest.raises(ValueError, match="^data: its parts differ in length: 20, 3"):
        changed((X, Y[:3]), few(2, 0))
    with pytest.raises(TypeError, match="^data: an IterableDataset"):
        wrapped(ChainDataset([]), few(2, 0))
    with pytest.raises(TypeError, match="^data: a sample is a pair"):
        wrapped([1, 2], without_inputs())[0]
