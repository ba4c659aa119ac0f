"""What the graph of a loss tells: terms, shapes, targets, what is kept; and that looking at it changes nothing."""

import io
import math
import warnings

import pytest
import torch
from torch import nn
from torch.distributions import Categorical
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pytest_mltd.core.traces import read_trace
from pytest_mltd.recording import graph, rectified, sources, terms
from pytest_mltd.recording.naming import Names
from pytest_mltd.recording.recorder import record
from pytest_mltd.recording.spool import Spool
from pytest_mltd.recording.walks import Walks

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 3, 4, 0])
NUMBERS = torch.randn(6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def five():
    """Return a net with five outputs."""
    torch.manual_seed(0)
    return nn.Linear(4, 5)


@pytest.fixture
def one():
    """Return a net with one output."""
    torch.manual_seed(0)
    return nn.Linear(4, 1)


def told(losses, kind=("term", "targets")):
    """Return the details of the facts that walks from these losses state, one after the other."""
    spool = Spool(io.BytesIO(), Names())
    walks = Walks(spool.names, spool)
    for loss in losses:
        walks.walk((loss,), "train.py:3")
    return [fact.details for fact in spool.facts if fact.kind in kind]


class TestWhatALossIsGiven:
    @pytest.mark.parametrize(
        ("make", "loss", "fed"),
        [
            (lambda z: F.cross_entropy(z.softmax(1), Y), "cross_entropy", "softmax"),
            (lambda z: F.cross_entropy(z.softmax(1) + 1e-8, Y), "cross_entropy", "softmax"),
            (lambda z: F.cross_entropy(z.softmax(1).clamp(1e-6, 1).reshape(6, 5), Y), "cross_entropy", "softmax"),
            (lambda z: F.cross_entropy(z.sigmoid(), Y), "cross_entropy", "sigmoid"),
            (lambda z: F.cross_entropy(torch.cat([z[:3].softmax(1), z[3:].softmax(1)]), Y), "cross_entropy", "softmax"),
            (lambda z: F.nll_loss(z.softmax(1).log_softmax(1), Y), "cross_entropy", "softmax"),
            (lambda z: F.cross_entropy(z.softmax(1), torch.rand(6, 5)), "log_softmax", "softmax"),
            (lambda z: -(z.softmax(1).log_softmax(1)[torch.arange(6), Y]).mean(), "log_softmax", "softmax"),
            (lambda z: F.binary_cross_entropy_with_logits(z.sigmoid(), z.detach().sigmoid()), None, "sigmoid"),
            (lambda z: F.binary_cross_entropy(z.sigmoid().sigmoid(), z.detach().sigmoid()), None, None),
            (lambda z: -Categorical(logits=z.softmax(1)).log_prob(Y).mean(), "logsumexp", "softmax"),
            (lambda z: F.cross_entropy(z, Y), "cross_entropy", None),
            (lambda z: F.cross_entropy(z.log_softmax(1), Y), "cross_entropy", None),
            (lambda z: F.cross_entropy((z.softmax(1) + 1e-8).log(), Y), "cross_entropy", None),
            (lambda z: F.cross_entropy(z.softmax(1) * 20, Y), "cross_entropy", None),
            (lambda z: F.nll_loss((z.softmax(1) + 1e-8).log(), Y), "nll_loss", None),
            (lambda z: -Categorical(z.softmax(1)).log_prob(Y).mean(), None, None),
            (lambda z: F.kl_div(z.log_softmax(1), z.detach().softmax(1), reduction="batchmean"), "log_softmax", None),
        ],
    )
    def test_a_softmax_before_one_is_told_from_what_is_fine(self, five, make, loss, fed):
        """Through clamps, epsilons and shapes; not through logarithms and temperatures."""
        found = told([make(five(X))])
        assert {d.get("fed_by") for d in found} - {None} == ({fed} if fed else set())
        assert loss is None or loss in [d["loss"] for d in found if d.get("fed_by") == fed]

    def test_label_smoothing_is_two_terms(self, five):
        """The loss of a constant answer is not told then."""
        found = told([F.cross_entropy(five(X), Y, label_smoothing=0.1)])
        assert [d["loss"] for d in found] == ["cross_entropy", "log_softmax"]
        assert not any(d["alone"] for d in found)

    def test_factors_and_reductions_are_seen_through(self, five):
        """A loss divided for accumulation; a mean by hand."""
        (divided,) = told([F.cross_entropy(five(X), Y) / 4])
        assert (divided["factor"], divided["reduction"]) == (0.25, "mean")
        (by_hand,) = told([F.cross_entropy(five(X), Y, reduction="none").mean()])
        assert (by_hand["factor"], by_hand["reduction"]) == (1.0, "mean")
        (weighted,) = told([(F.cross_entropy(five(X), Y, reduction="none") * NUMBERS).sum()])
        assert (weighted["factor"], weighted["reduction"]) == (None, "sum")

    def test_a_loss_scale_is_no_factor(self, five):
        """A recorded loss does not have it in it."""
        (found,) = told([F.cross_entropy(five(X), Y) * torch.tensor(65536.0)])
        assert found["factor"] == 1.0


class TestShapes:
    @pytest.mark.parametrize(
        "make",
        [
            lambda p: F.mse_loss(p, NUMBERS),
            lambda p: F.mse_loss(p[:, 0], NUMBERS[:, None]),
            lambda p: F.l1_loss(p, NUMBERS),
            lambda p: F.huber_loss(p, NUMBERS) + p.sum() * 0,
            lambda p: F.smooth_l1_loss(p, NUMBERS),
            lambda p: ((p - NUMBERS) ** 2).mean(),
            lambda p: ((NUMBERS - p) ** 2).mean().sqrt(),
            lambda p: ((p - NUMBERS) / 2).abs().sum(),
            lambda p: -(p.sigmoid().log() * NUMBERS).mean(),
            lambda p: torch.linalg.vector_norm(p - NUMBERS),
            lambda p: torch.cosh(p - NUMBERS).log().mean(),
            lambda p: torch.max(0.9 * (NUMBERS - p), -0.1 * (NUMBERS - p)).mean(),
            lambda p: F.relu(1 - p * NUMBERS.sign()).mean(),
        ],
    )
    def test_six_against_six_that_became_thirty_six(self, one, make):
        """In torch's losses, by hand, and in a product."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = told([make(one(X))])
        assert [d["compared"] for d in found if "compared" in d] == [[6, 6]]  # one fact for each kind of term

    @pytest.mark.parametrize(
        "make",
        [
            lambda p: F.mse_loss(p[:, 0], NUMBERS),
            lambda p: F.mse_loss(p, NUMBERS[:, None]),
            lambda p: F.mse_loss(p.expand(6, 3), NUMBERS[:, None].expand(6, 3)),
            lambda p: ((p[:, 0][:, None] - NUMBERS[None]) ** 2).mean(),
            lambda p: ((p - p.T) ** 2).mean(),
            lambda p: (p * NUMBERS[:, None]).mean(),
            lambda p: (p.mean() - NUMBERS).abs().mean(),
            lambda p: (p[:1] - NUMBERS).pow(2).mean(),
            lambda p: F.relu(1 - p[:, 0] * NUMBERS.sign()).mean(),
            lambda p: F.relu(1 - (p[:, :1, None] - NUMBERS)).mean(),
        ],
    )
    def test_what_was_lined_up_is_left_alone(self, one, make):
        """One shape, all pairs on purpose, one number against many."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert not [d for d in told([make(one(X))]) if "compared" in d]

    def test_the_axis_of_a_likelihood(self, five):
        """Rows sum to one over the classes; where the graph tells it, none is summed."""
        (usual,) = told([F.nll_loss(five(X).log_softmax(1), Y)])
        assert "row_sum" not in usual
        (turned,) = told([F.nll_loss(five(X.repeat(5, 1)).log_softmax(0), Y.repeat(5))])
        assert (turned["rows_off"], turned["rows_summed"]) == (30, 30)
        (moved,) = told([F.nll_loss(five(X[None]).log_softmax(-1).view(-1, 5), Y)])
        assert (moved["rows_off"], moved["rows_summed"]) == (0, 6)

    def test_a_view_for_a_transposition(self):
        """And not a view that goes there and back, or a transposition."""
        scores = torch.randn(4, 9, 7, requires_grad=True)
        labels = torch.zeros(4, 9, dtype=torch.long)
        (found,) = told([F.cross_entropy((scores + 1).reshape(4, 7, 9), labels)])
        assert found["viewed"] == [[4, 9, 7], [4, 7, 9]]
        back = F.cross_entropy((scores.transpose(1, 2) + 1).reshape(4, 9, 7).reshape(4, 7, 9), labels)
        for loss in (back, F.cross_entropy(scores.transpose(1, 2), labels)):
            assert "viewed" not in told([loss])[0]

    @pytest.mark.parametrize(("axis", "wrong"), [(0, True), (-2, True), (-1, False)])
    def test_the_axis_of_attention(self, axis, wrong):
        """Keys are the last axis of the scores; dropout between changes nothing."""
        scores, values = torch.randn(3, 5, 5, requires_grad=True), torch.randn(3, 5, 2)
        loss = (F.dropout(scores.softmax(axis), 0.1) @ values).sum()
        assert bool(told([loss], kind=("attention_axis",))) == wrong

    def test_assignments_are_no_attention(self):
        """Nodes to clusters, then a product over the nodes."""
        scores, nodes = torch.randn(3, 5, 5, requires_grad=True), torch.randn(3, 5, 2)
        assert not told([(scores.softmax(-1).transpose(1, 2) @ nodes).sum()], kind=("attention_axis",))


class TestTargets:
    def batches(self, five, labels, **arguments):
        return told([F.cross_entropy(five(X[:1].expand(len(y), 4)), y, **arguments) for y in labels])[0]

    def test_the_entropy_of_labels_over_all_looks_and_within_one(self, five):
        """Sorted labels: little within a batch, all of it over the batches."""
        found = self.batches(five, [torch.full((100,), k) for k in range(5)])
        assert found["batch_entropy"] == 0
        assert found["entropy"] == pytest.approx(math.log(5), abs=0.01)
        assert found["level"] == found["entropy"]

    def test_few_labels_tell_no_entropy(self, five):
        """Twenty for each class are needed, on the average."""
        assert "entropy" not in self.batches(five, [Y])

    def test_ignored_labels_and_batches_of_nothing_else(self, five):
        """Counted apart."""
        ignored = torch.full((50,), -100)
        found = self.batches(five, [ignored, torch.cat([ignored, Y])])
        assert (found["ignored"], found["labels"], found["empty_batches"]) == (100, 6, 1)

    def test_class_weights_weigh(self, five):
        """A constant answer follows the weighted frequencies."""
        labels = [torch.arange(500) % 2]
        found = self.batches(five, labels, weight=torch.tensor([9.0, 1, 1, 1, 1]))
        expected = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
        assert found["level"] == pytest.approx(expected, abs=0.01)

    def test_chances(self, one):
        """The entropy of each column's mean; none for targets out of range."""
        z = one(X[:1]).expand(50, 1)
        (found,) = told([F.binary_cross_entropy_with_logits(z, torch.full((50, 1), 0.25))])
        assert found["entropy"] == pytest.approx(0.5623, abs=1e-4)
        (wrong,) = told([F.binary_cross_entropy_with_logits(z, torch.full((50, 1), -1.0))])
        assert wrong["low"] == -1
        assert "entropy" not in wrong

    def test_the_spread_of_amounts_is_around_each_column_s_own_mean(self):
        """A column of zeros and one of hundreds do not make a spread."""
        targets = torch.stack([torch.arange(40.0) % 2, torch.full((40,), 100.0)], 1)
        (found,) = told([F.mse_loss(torch.zeros(40, 2, requires_grad=True) + 1, targets)])
        assert found["var"] == pytest.approx(0.125)
        assert (found["low"], found["high"], found["mean"]) == (0, 100, 50.25)


class TestWhatIsKept:
    def test_a_recorded_program_tells_how_large_its_graphs_are(self, one):
        """The first five, and each fiftieth."""
        optimizer = torch.optim.SGD(one.parameters(), 0.01)
        with record() as run:
            for _ in range(60):
                optimizer.zero_grad()
                F.mse_loss(one(X)[:, 0], NUMBERS).backward()
                optimizer.step()
        (fact,) = [f for f in run.trace.facts if f.kind == "graph"]
        assert fact.details["old"] == [0] * 6
        assert len(set(fact.details["nodes"])) == 1
        assert (fact.details["held"], fact.details["followed"]) == (0, 5)
        (targets,) = [f for f in run.trace.facts if f.kind == "targets"]
        assert targets.details["looks"] == 6
        assert targets.who == run.trace.streams[0]

    def test_an_epoch_of_fifty_batches_is_not_always_looked_at_in_the_same_place(self, five):
        """Its first batch, time and again, would have labels of one class only."""
        optimizer = torch.optim.SGD(five.parameters(), 0.01)
        with record() as run:
            for step in range(200):
                optimizer.zero_grad()
                F.cross_entropy(five(X), torch.full((len(X),), step % 50 // 10)).backward()
                optimizer.step()
        (fact,) = [f for f in run.trace.facts if "labels_seen" in f.details]
        assert (fact.details["labels_seen"], fact.details["looks"]) == (3, 8)

    def test_losses_that_are_held_with_their_graphs(self, one):
        """A mark on a node lives as long as the node."""
        losses = [F.mse_loss(one(X)[:, 0], NUMBERS) for _ in range(4)]
        assert told(losses, kind=("graph",))[0]["held"] == 3

    def test_no_more_than_some_are_followed(self, one):
        """All that are, are still counted."""
        losses = [F.mse_loss(one(X)[:, 0], NUMBERS) for _ in range(70)]
        (fact,) = told(losses, kind=("graph",))
        assert (fact["held"], fact["followed"]) == (64, 64)

    def test_a_graph_that_reaches_back(self):
        """What is older than the last look is counted."""
        weight, total, losses = torch.ones(1, requires_grad=True), 0.0, []
        spool = Spool(io.BytesIO(), Names())
        walks = Walks(spool.names, spool)
        for _ in range(4):
            total = total + (weight * 2).sum()
            walks.walk((total,), "a:1")
            losses.append(spool.facts[0].details["old"][-1])
        assert losses == [0, 3, 6, 9]

    def test_facts_are_in_the_file_before_the_end(self, five):
        """Also as they were mended since."""
        spool = Spool(io.BytesIO(), Names())
        walks = Walks(spool.names, spool)
        for _ in range(3):
            walks.walk((F.cross_entropy(five(X), Y),), "a:1")
            spool.flush()
        trace = read_trace(spool.file)
        assert [f.details["looks"] for f in trace.facts if f.kind == "term"] == [3]


class TestSilentUnits:
    def test_units_that_are_zero_for_every_row_are_counted(self):
        """Of F.relu, under the name of the layer before it."""
        net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
        with torch.no_grad():
            net[0].bias[:3] = -100
        optimizer = torch.optim.SGD(net.parameters(), 0.01)
        with record() as run:
            for _ in range(3):
                optimizer.zero_grad()
                F.mse_loss(net[1](F.relu(net[0](X)))[:, 0], NUMBERS).backward()
                optimizer.step()
        (fact,) = [f for f in run.trace.facts if f.kind == "relu"]
        assert fact.who + ".weight" == run.trace.parameters[0].name
        assert fact.details["units"] == 8
        assert min(fact.details["silent"]) >= 3
        assert fact.details["looks"] == 3

    def test_channels_are_the_units_of_a_convolution(self):
        """Through batch norm, at any place."""
        net = nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
        with torch.no_grad():
            net[1].bias[0] = -100
        result = net(torch.randn(4, 1, 6, 6))
        silent, rows = rectified.silent_units(result.grad_fn, rectified.layer_before(result.grad_fn))
        assert silent.tolist() == [True, False, False, False, False]
        assert rows == 4


class TestSources:
    @pytest.mark.parametrize(
        ("make", "operation"),
        [
            (lambda z: (F.relu(z - 9).log() * NUMBERS[:, None]).mean(), "Log"),
            (lambda z: (z / (F.relu(z - 9) * 0)).mean(), "Div"),
            (lambda z: ((z * 400).exp() @ torch.randn(5, 1)).mean(), "Exp"),
            (lambda z: (-(z**2) - 1).sqrt().mean(), "Sqrt"),
            (
                lambda z: (z.masked_fill(torch.ones(6, 5) > 0, -math.inf).softmax(1) @ torch.randn(5, 2)).mean(),
                "Softmax",
            ),
        ],
    )
    def test_the_operation_that_made_the_first_one_is_named(self, five, make, operation):
        """From what the graph kept, without a replay."""
        assert sources.source_of((make(five(X)),)).operation == operation

    def test_what_came_with_the_batch_was_made_by_no_operation(self, five):
        """The graph does not tell more."""
        assert sources.source_of((five(torch.full((6, 4), math.nan)).mean(),)) is None

    def test_the_maker_is_named_and_not_what_moved_it(self, five):
        """A product in half precision that overflows, seen through a view."""
        big = torch.full((1, 5, 2), 6e4, dtype=torch.float16)
        scores = five(X).half()[None] @ big
        loss = (scores.reshape(6, 2) * scores.reshape(6, 2)).float().mean() - math.inf
        assert sources.source_of((loss,)).operation == "Bmm"

    def test_masked_scores_are_none(self, five):
        """Minus infinity is how scores are masked."""
        scores = five(X).masked_fill(torch.arange(5) > 2, -math.inf)
        assert sources.source_of(((scores.softmax(1) ** 2).mean(),)) is None

    def test_it_is_told_once_and_not_where_the_weights_hold_it(self, five):
        """An earlier step made those."""
        spool = Spool(io.BytesIO(), Names())
        walks = Walks(spool.names, spool)
        loss = (F.relu(five(X) - 99).log() * NUMBERS[:, None]).mean()
        walks.walk((loss,), "a:1", 7, nonfinite=True)
        walks.walk((loss,), "a:1", 8, nonfinite=True)
        (fact,) = [f for f in spool.facts if f.kind == "nonfinite"]
        assert (fact.step, fact.details["operation"], fact.details["high"]) == (7, "Log", 0)
        with torch.no_grad():
            five.weight[0, 0] = math.nan
        walks = Walks(spool.names, spool)
        walks.walk((five(X).log().mean(),), "a:1", 9, nonfinite=True)
        assert sum(f.kind == "nonfinite" for f in spool.facts) == 1
        assert not walks.wants_nonfinite


def test_the_first_targets_are_kept_for_the_probes(five):
    """A copy, with the name of the loss, and a plus where another term stands beside it."""
    spool = Spool(io.BytesIO(), Names())
    walks = Walks(spool.names, spool)
    walks.walk((F.cross_entropy(five(X), Y),), "a:1")
    walks.walk((F.mse_loss(five(X)[:, 0], NUMBERS),), "a:2")
    name, kept = walks.first_targets
    assert name == "cross_entropy"
    assert torch.equal(kept, Y)
    assert kept.data_ptr() != Y.data_ptr()
    walks = Walks(spool.names, spool)
    walks.walk((F.cross_entropy(five(X), Y) + five.weight.pow(2).sum(),), "a:1")
    assert walks.first_targets[0] == "cross_entropy+"


class TestTheProgramIsLeftAlone:
    def test_saved_values_behind_hooks_are_not_unpacked(self, five):
        """The program's own hooks run as often as without us; the structure is read all the same."""
        calls = []

        def unpack(value):
            calls.append(1)
            return value

        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
            loss = F.cross_entropy(five(X).softmax(1), Y)
        (found,) = told([loss])
        assert not calls
        assert found["fed_by"] == "softmax"
        assert found["labels"] == 0

    def test_a_checkpointed_block_runs_as_often_as_before(self):
        """Batch norm counts one batch for the forward and one for the recomputation."""
        norm = nn.BatchNorm1d(4)
        body = nn.Sequential(nn.Linear(4, 4), norm, nn.ReLU())
        optimizer = torch.optim.SGD(body.parameters(), 0.01)
        with record():
            for _ in range(3):
                optimizer.zero_grad()
                F.mse_loss(checkpoint(body, X, use_reentrant=False).sum(1), NUMBERS).backward()
                optimizer.step()
        assert norm.num_batches_tracked.item() == 6

    def test_a_value_changed_in_place_is_passed_over(self):
        """Backward itself will say so."""
        targets = NUMBERS.clone()
        loss = F.mse_loss(torch.zeros(6, requires_grad=True) + 1, targets)
        targets.add_(1)
        (found,) = told([loss])
        assert "var" not in found

    def test_a_graph_that_is_gone_is_passed_over(self, five):
        """Backward was called on it before; the program is about to be told."""
        loss = F.cross_entropy(five(X), Y)
        loss.backward()
        assert told([loss])[0]["labels"] == 0

    def test_marks_have_no_part_in_backward(self, five):
        """Gradients are the same to the bit."""
        F.cross_entropy(five(X), Y).backward()
        expected = five.weight.grad.clone()
        five.weight.grad = None
        loss = F.cross_entropy(five(X), Y)
        told([loss])
        loss.backward()
        assert torch.equal(five.weight.grad, expected)

    def test_a_long_sum_is_known_by_its_first_terms(self):
        """A walk has an end."""
        weight = torch.ones(2, requires_grad=True)
        loss = sum(F.mse_loss(weight + k, torch.zeros(2)) for k in range(400))
        assert len(terms.terms_of((loss,))) <= 256
        assert graph.walk((loss,)).nodes > 1000

    def test_a_learned_factor_is_read_without_a_warning(self, five):
        """torch warns of a number that is read out of a parameter."""
        factor = nn.Parameter(torch.tensor(3.0))
        assert told([F.cross_entropy(five(X), Y) * factor])
