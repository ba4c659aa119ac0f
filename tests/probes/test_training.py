"""Does a training learn, and from what? Plain loops with a fault, their twins, and honest ones that look like the fault."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split

from pytest_mltd.core.findings import CheckFailed, NotAsked
from pytest_mltd.probes.training import (
    assert_learns_from_inputs,
    assert_learns_nothing_from_shuffled_labels,
    assert_overfits,
    check_learns_from_inputs,
    check_learns_nothing_from_shuffled_labels,
    check_overfits,
)


@pytest.fixture
def data():
    """Points with a label that their first two numbers decide."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(160, 6, generator=generator)
    return x, (x[:, 0] + x[:, 1] > 0).long()


def fit(x, y, *, epochs=60, lr=1e-2, see=lambda b: b, own_rows=True):
    """A plain loop; returns the accuracy on the last quarter."""
    cut = len(x) * 3 // 4
    rows = cut if own_rows else len(x)
    model = nn.Sequential(nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(epochs):
        for batch in torch.randperm(rows).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(see(x[batch])), y[batch]).backward()
            optimizer.step()
    return (model(x[cut:]).argmax(1) == y[cut:]).float().mean().item()


def fit_loaders(data, *, epochs=60, batch_size=32, **settings):
    """The same with DataLoaders of its own making; augmented."""
    x, y = data
    train, val = random_split(TensorDataset(x, y), [120, 40], torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    for _ in range(epochs):
        for xb, yb in DataLoader(train, batch_size=batch_size, shuffle=True, drop_last=True):
            optimizer.zero_grad()
            F.cross_entropy(model(xb + 0.01 * torch.randn_like(xb)), yb).backward()
            optimizer.step()
    x, y = next(iter(DataLoader(val, batch_size=40)))
    return {"loss": 0.3, "acc": (model(x).argmax(1) == y).float().mean()}


class TestOverfits:
    def test_a_plain_loop_learns_a_few_samples(self, data):
        """The loop is run as it is, on copies of the same eight samples, and the pass tells the margin."""
        finding = check_overfits(fit, *data)
        assert finding.ok, str(finding)
        assert finding.asked
        assert "200 steps on the same 8 samples" in finding.looked_at
        assert finding.amount < 0.05

    @pytest.mark.parametrize("see", [torch.zeros_like, torch.Tensor.detach], ids=["inputs lost", "as they are"])
    def test_only_the_training_that_sees_its_inputs_does(self, data, see):
        """Inputs that are lost on the way are found, since the samples differ in their labels."""
        assert check_overfits(lambda x, y: fit(x, y, see=see), *data).ok == (see is torch.Tensor.detach)

    def test_the_whole_text(self, data):
        """Amounts, limit, the course of the loss, one next step."""
        text = str(check_overfits(lambda x, y: fit(x, y, lr=0.0), *data))
        lines = text.splitlines()
        assert lines[0].startswith(
            "training.overfits: 8 samples are not learned in 200 steps: the loss tests/probes/test_training.py:"
        )
        assert lines[0].endswith("1 of it left (max_share=0.05)")
        assert lines[-2:] == [
            "    The samples were the same few throughout, so neither their number nor their variety is in the way.",
            "    next: ask what is broken, mltd.assert_healthy(mltd.run(train, x, y)); if nothing is, raise the learning rate",
        ]

    def test_loaders_of_its_own_get_the_few_samples(self, data):
        """Without data every DataLoader is filled with copies, so that drop_last and batch size mean what they meant."""
        assert check_overfits(lambda: fit_loaders(data)).ok
        assert_overfits(fit_loaders, data)

    @pytest.mark.slow
    def test_a_model_and_a_loader_may_be_handed_over(self, data):
        """A loop that takes both gets the few samples through the loader; a model among tensors stays as it is."""

        def loop(model, batches, epochs):
            optimizer = torch.optim.Adam(model.parameters(), 1e-2)
            for _ in range(epochs):
                for x, y in batches:
                    optimizer.zero_grad()
                    F.cross_entropy(model(x), y).backward()
                    optimizer.step()

        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
        before = model[0].weight.clone()
        finding = check_overfits(loop, model, DataLoader(TensorDataset(*data), 40, shuffle=True), 50)
        assert finding.ok, str(finding)
        assert finding.asked
        finding = check_overfits(lambda model, x, y: loop(model, [(x, y)] * 4, 50), model, *data)
        assert finding.ok, str(finding)
        assert torch.equal(before, model[0].weight)

    def test_a_dataset_keeps_its_length_and_gives_the_few(self):
        """A Dataset of one's own is asked for the same few items, chosen with varied labels."""
        seen = set()

        class Own(Dataset):
            classes = 2

            def __len__(self):
                return 100

            def __getitem__(self, i):
                return torch.full((3,), float(i)), int(i >= 50)

        def train(dataset):
            assert (len(dataset), dataset.classes) == (100, 2)
            rows = [dataset[i] for i in range(100)]
            seen.update(float(x[0]) for x, _ in rows)
            assert (len(seen), {y for _, y in rows}) == (4, {0, 1})

        assert not check_overfits(train, Own(), samples=4).asked

    def test_a_short_training_is_not_judged(self, data):
        """Too few steps are no failure; the reason says how to give it more."""
        finding = check_overfits(lambda x, y: fit(x, y, epochs=2, lr=1e-3), *data)
        assert not finding.asked
        assert finding.headline.startswith("8 of at least 200 steps")

    def test_a_loss_that_is_not_finite_fails(self, data):
        """NaN is never a small loss."""
        finding = check_overfits(lambda x, y: fit(x / 0.0, y), *data, steps=20)
        assert finding.failed
        assert "ended at nan" in finding.headline

    @pytest.mark.parametrize("loss", [lambda out: out.mean() - 3, None], ids=["negative", "none"])
    def test_what_cannot_be_judged_is_not_asked(self, data, loss):
        """A loss below zero has no share; without a loss there is nothing."""

        def train(x, y):
            model = nn.Linear(6, 1)
            optimizer = torch.optim.SGD(model.parameters(), 0.01)
            for _ in range(10 if loss else 0):
                loss(model(x)).backward()
                optimizer.step()

        with pytest.raises(NotAsked):
            assert_overfits(train, *data)

    def test_two_losses_side_by_side_are_not_judged(self, data):
        """Neither player's loss of a game stands for what was learned."""

        def train(x, y):
            one, two = nn.Linear(6, 1), nn.Linear(6, 1)
            a, b = (torch.optim.SGD(m.parameters(), 0.01) for m in (one, two))
            for _ in range(8):
                one(x).pow(2).mean().backward()
                a.step()
                two(x).pow(2).mean().backward()
                b.step()

        assert "side by side" in check_overfits(train, *data).headline

    def test_misuse_names_the_argument(self, data):
        """What cannot be run, and what is out of range, is refused before anything runs."""
        for error, name, arguments in (
            (TypeError, "train", (nn.Linear,)),
            (TypeError, "data", (fit, 3, 4)),
            (ValueError, "data", (fit, data[0], data[1][:5])),
            (ValueError, "train", (lambda x, y: 1 / 0, *data)),
        ):
            with pytest.raises(error, match=f"^{name}: "):
                check_overfits(*arguments)
        with pytest.raises(ValueError, match="^samples: "):
            check_overfits(fit, *data, samples=0)
        with pytest.raises(ValueError, match="^max_share: "):
            check_overfits(fit, *data, max_share=1.5)

    def test_the_callers_data_and_random_state_stay(self, data):
        """Nothing of what the training does reaches this process."""
        state, before = torch.get_rng_state(), data[0].clone()

        def train(x, y):
            x.zero_()
            fit(x, y, epochs=1)

        check_overfits(train, *data)
        check_learns_from_inputs(train, *data)
        assert torch.equal(state, torch.get_rng_state())
        assert torch.equal(before, data[0])


class TestLearnsFromInputs:
    def test_a_plain_loop_does(self, data):
        """The loss falls further than with zeros."""
        assert_learns_from_inputs(fit, *data)

    def test_the_whole_text_for_inputs_that_never_arrive(self, data):
        """Both losses side by side, and that they are the same from the first step."""
        finding = check_learns_from_inputs(lambda x, y: fit(x, y, see=torch.ones_like), *data)
        text = str(finding)
        assert text.startswith(
            "training.learns_from_inputs: nothing is learned from the inputs: the late loss tests/probes/test_training.py:"
        )
        assert "(min_gain=0.02)" in text.splitlines()[0]
        assert "Both runs are equal from the first step on: the inputs do not reach the loss." in text
        assert "next: follow one batch by hand" in text

    @pytest.mark.slow
    def test_inputs_that_belong_to_other_labels_are_found(self, data):
        """A shuffle of the inputs alone leaves nothing but the frequency of the labels."""

        def train(x, y):
            model = nn.Linear(6, 2)
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            for _ in range(100):
                optimizer.zero_grad()
                F.cross_entropy(model(x[torch.randperm(len(x))]), y).backward()
                optimizer.step()

        with pytest.raises(CheckFailed, match="how frequent the labels are"):
            assert_learns_from_inputs(train, *data)

    def test_tokens_become_those_of_the_first_sample(self):
        """Whole numbers index something: zero may be padding, and is not written over them."""
        tokens = torch.arange(5, 45).reshape(20, 2)

        def train(x, y):
            assert (x == tokens).all() or (x == tokens[0]).all()

        check_learns_from_inputs(train, tokens, torch.zeros(20))

    @pytest.mark.slow
    def test_targets_made_of_the_inputs_are_not_judged(self, data):
        """An autoencoder reconstructs zeros better than anything; that is no fault."""

        def train(x):
            model = nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 6))
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            for _ in range(50):
                optimizer.zero_grad()
                F.mse_loss(model(x), x).backward()
                optimizer.step()

        finding = check_learns_from_inputs(train, data[0])
        assert not finding.asked
        assert "the targets seem to be made from the inputs" in finding.headline

    @pytest.mark.slow
    def test_loaders_of_its_own_lose_their_inputs(self, data):
        """Without data the first part of each loader's samples is emptied."""
        assert check_learns_from_inputs(lambda: fit_loaders(data)).ok

    def test_a_training_that_refuses_zeros_is_not_judged(self, data):
        """What raises only with empty inputs could not be compared."""

        def train(x, y):
            if not x.any():
                raise ValueError("all zero")
            fit(x, y, epochs=2)

        assert (
            "with inputs at zero the training raised ValueError: all zero"
            in check_learns_from_inputs(train, *data).headline
        )


class TestShuffledLabels:
    def test_a_clean_pipeline_falls_to_chance(self, data):
        """The pass tells the true score, the shuffled one, and chance."""
        finding = check_learns_nothing_from_shuffled_labels(
            lambda x, y: fit(x, y, epochs=10, lr=3e-2), *data, shuffles=3
        )
        assert finding.ok, str(finding)
        assert finding.asked
        assert "by chance (max_learned=0.3)" in finding.headline

    def test_the_whole_text_for_validation_rows_that_train(self, data):
        """A model that has seen its validation rows knows their labels, shuffled or not."""
        with pytest.raises(CheckFailed) as error:
            assert_learns_nothing_from_shuffled_labels(
                lambda x, y: fit(x, y, epochs=60, lr=5e-2, own_rows=False), *data, shuffles=2
            )
        lines = str(error.value).splitlines()
        assert lines[0].startswith(
            "training.learns_nothing_from_shuffled_labels: the score stays high with shuffled labels: 1 with "
        )
        assert lines[2] == "    labels     score"
        assert lines[-1].startswith("    next: ask mltd.assert_no_leakage(train, validation);")

    @pytest.mark.slow
    def test_features_chosen_on_all_rows_are_found(self):
        """Of many columns of noise those that go with the labels are chosen before the split."""
        generator = np.random.default_rng(0)
        x, y = generator.normal(size=(80, 2000)).astype("float32"), np.arange(80) % 2

        def train(x, y, first=True):
            rows = slice(None) if first else slice(0, 40)
            best = np.argsort(-np.abs(((y[rows] - 0.5)[:, None] * x[rows]).mean(0)))[:20]
            direction = ((y[:40] - 0.5)[:, None] * x[:40, best]).mean(0)
            return float((((x[40:, best] @ direction) > 0) == (y[40:] > 0)).mean())

        finding = check_learns_nothing_from_shuffled_labels(train, x, y)
        assert finding.failed, str(finding)
        x[:, 0] += 3 * (y - 0.5)
        finding = check_learns_nothing_from_shuffled_labels(lambda x, y: train(x, y, first=False), x, y)
        assert finding.ok, str(finding)

    @pytest.mark.slow
    def test_one_score_of_several_is_named(self, data):
        """A mapping needs a word on which number counts; labels of a random_split are shuffled below it."""
        finding = check_learns_nothing_from_shuffled_labels(
            lambda: fit_loaders(data, epochs=10), score="acc", chance=0.5, shuffles=2
        )
        assert finding.ok, str(finding)
        with pytest.raises(ValueError, match="^score: train returned loss, acc"):
            check_learns_nothing_from_shuffled_labels(lambda: fit_loaders(data, epochs=1), chance=0.5)
        with pytest.raises(ValueError, match="^score: train returned no 'auc'"):
            check_learns_nothing_from_shuffled_labels(lambda: fit_loaders(data, epochs=1), chance=0.5, score="auc")

    def test_a_model_that_knows_nothing_anyway_is_not_judged(self, data):
        """Where true labels bring nothing there is nothing to lose."""
        finding = check_learns_nothing_from_shuffled_labels(lambda x, y: 0.4, *data)
        assert not finding.asked
        assert "no better than chance" in finding.headline

    def test_misuse_names_the_argument(self, data):
        """No number, labels that are no classes, a score that is no accuracy."""
        x, y = data
        with pytest.raises(ValueError, match="^train: it returned no number"):
            check_learns_nothing_from_shuffled_labels(lambda x, y: None, x, y)
        with pytest.raises(ValueError, match="^chance: "):
            check_learns_nothing_from_shuffled_labels(lambda x, y: 0.9, x, x[:, 0])
        with pytest.raises(ValueError, match="^chance: "):
            check_learns_nothing_from_shuffled_labels(lambda x, y: 12.0, x, y)
