"""Of what a loss is made: each fault in its message, and what looks like it."""

import json

import numpy as np
import pytest

from pytest_mltd.checks.runs import objective
from pytest_mltd.checks.runs.objective import (
    assert_no_double_softmax,
    check_double_softmax,
    check_high_start,
    check_ignored_labels,
    check_kept_graph,
    check_loss_broadcast,
    check_missing_log,
    check_softmax_axis,
    check_target_range,
)
from pytest_mltd.core.findings import CheckFailed
from pytest_mltd.core.traces import Fact, Module, Trace

SITE = "train.py:12"
USUAL = {
    "loss": "cross_entropy",
    "looks": 8,
    "alone": True,
    "reduction": "mean",
    "factor": 1.0,
    "rows": 32,
    "weighted": False,
    "classes": 10,
    "given": "log_softmax",
    "labels": 256,
    "labels_seen": 10,
    "ignored": 0,
}
SIZES = {"nodes": [10] * 9, "old": [0] * 9, "held": 0, "followed": 9}
CHECKS = (
    check_double_softmax,
    check_loss_broadcast,
    check_softmax_axis,
    check_missing_log,
    check_target_range,
    check_ignored_labels,
    check_kept_graph,
)


def with_facts(made, *facts):
    run = made()
    run.kept["facts"] = tuple(facts)
    return run.trace()


def term(made, **details):
    """Return a run whose loss has one term, the usual one with these details."""
    graph = Fact(kind="graph", who=SITE, details=SIZES)
    return with_facts(made, graph, Fact(kind="term", who=SITE, details={**USUAL, **details}))


class TestDoubleSoftmax:
    def test_a_softmax_before_cross_entropy(self, made):
        """The level that probabilities cannot fall below stands beside the loss."""
        finding = check_double_softmax(term(made, fed_by="softmax", fed=8))
        assert str(finding) == (
            "objective.double_softmax: a softmax comes before cross_entropy in the loss of 'train.py:12', in 8 of 8 looks: the "
            "loss applies a softmax itself, to probabilities instead of logits\n"
            "\n"
            "    loss                      value\n"
            "    first                     2.303\n"
            "    last                      0.1088\n"
            "  > lowest that it can reach  1.461\n"
            "\n"
            "    Probabilities lie between 0 and 1, so as logits they differ by 1 at most: the answer stays unsure, and its "
            "gradients are small.\n"
            "    next: leave the softmax out of what the loss is given, and apply it where probabilities are read"
        )

    def test_the_module_is_named_where_it_is_the_last_one(self, made):
        """A Softmax at the end of the net, and no other."""
        run = made()
        run.modules = (*run.modules, Module(name="final", kind="Softmax"))
        run.kept["facts"] = (Fact(kind="term", who=SITE, details={**USUAL, "fed_by": "softmax", "fed": 8}),)
        assert "'final', a softmax, comes before cross_entropy" in check_double_softmax(run.trace()).headline

    def test_a_sigmoid_before_the_loss_with_logits(self, made):
        """Its level is that of a certain yes."""
        details = {"loss": "binary_cross_entropy_with_logits", "fed_by": "sigmoid", "fed": 8}
        finding = check_double_softmax(term(made, **details))
        assert "a sigmoid comes before binary_cross_entropy_with_logits" in finding.headline
        assert finding.amount == pytest.approx(0.3133, abs=1e-4)

    def test_a_distribution_that_is_given_probabilities_as_logits(self, made):
        """It has no level that is known, and no table then."""
        finding = check_double_softmax(term(made, loss="logsumexp", fed_by="softmax", fed=8))
        assert "before logsumexp (a distribution's logits)" in finding.headline
        assert finding.table is None

    def test_a_loss_with_other_terms_has_no_such_level(self, made):
        """Its lowest value is not that of this term."""
        finding = check_double_softmax(term(made, fed_by="softmax", fed=8, alone=False))
        assert finding.failed
        assert finding.table is None

    def test_logits_pass(self, made):
        """What was looked at is said."""
        finding = check_double_softmax(term(made))
        assert finding.ok
        assert finding.looked_at == "cross_entropy of 'train.py:12' (8 looks)"

    def test_a_stream_may_be_allowed_and_the_assertion_raises(self, made):
        """By the line of backward."""
        run = term(made, fed_by="softmax", fed=8)
        finding = check_double_softmax(run, allow={SITE: "a baseline on purpose"})
        assert finding.ok
        assert finding.allowed == ((SITE, "a baseline on purpose"),)
        with pytest.raises(CheckFailed, match=r"objective\.double_softmax"):
            assert_no_double_softmax(run)


class TestLossBroadcast:
    def test_a_prediction_with_an_axis_more_than_its_target(self, made):
        """Shapes and numbers stand in a table."""
        details = {"loss": "mse_loss", "prediction": [32, 1], "target": [32], "compared": [32, 32]}
        assert str(check_loss_broadcast(term(made, **details))) == (
            "objective.loss_broadcast: broadcasting in the loss of 'train.py:12': a prediction of shape (32, 1) against a "
            "target of shape (32,) becomes (32, 32) in mse_loss, every one against every other\n"
            "\n"
            "                        shape     numbers\n"
            "    prediction          (32, 1)   32\n"
            "    target              (32,)     32\n"
            "  > what the loss sees  (32, 32)  1024\n"
            "\n"
            "    The shapes differ, so 32 numbers became 1,024: rows no longer belong together, a constant near the mean of "
            "the targets is the best answer to all of them.\n"
            "    next: give both one shape: prediction.squeeze(-1), or target.unsqueeze(-1)"
        )

    def test_factors_of_another_shape(self, made):
        """Log-probabilities (N, 1) times advantages (N,)."""
        details = {"loss": "product", "prediction": [8, 1], "target": [8], "compared": [8, 8]}
        finding = check_loss_broadcast(term(made, **details))
        assert "a value of shape (8, 1) against a factor of shape (8,) becomes (8, 8) in a product" in finding.headline
        assert "weighed with the sum of all factors" in finding.shows

    def test_one_shape_passes(self, made):
        """Nothing was stretched."""
        assert check_loss_broadcast(term(made, loss="mse_loss")).ok


class TestSoftmaxAxis:
    def test_probabilities_that_sum_to_one_over_another_axis(self, made):
        """The share of rows is held against the limit."""
        finding = check_softmax_axis(term(made, rows_off=250, rows_summed=256, row_sum=0.31))
        assert str(finding) == (
            "objective.softmax_axis: softmax over the wrong axis in the loss of 'train.py:12': in 250 of 256 rows the "
            "probabilities of the 10 classes sum to 0.31 instead of 1 (max_rows_off=0.5)\n"
            "    It was normalised over another axis, the batch perhaps: rows compete with each other instead of classes.\n"
            "    next: apply softmax or log_softmax over the class axis (dim=1, or dim=-1 where classes come last)"
        )

    @pytest.mark.parametrize("details", [{"rows": 10}, {"given": "softmax"}, {"rows_off": 100}])
    def test_what_may_be_meant_passes(self, made, details):
        """A square table of similarities, a likelihood that is another question's, and few rows."""
        assert check_softmax_axis(term(made, **{"rows_off": 250, "rows_summed": 256, "row_sum": 0.31, **details})).ok

    def test_a_view_where_a_transposition_was_meant(self, made):
        """Both shapes are said."""
        finding = check_softmax_axis(term(made, viewed=[[16, 9, 7], [16, 7, 9]]))
        assert "a view makes (16, 7, 9) of (16, 9, 7), which mixes up places and classes" in finding.headline

    def test_a_single_class(self, made):
        """Over one class every probability is 1."""
        finding = check_softmax_axis(term(made, classes=1))
        assert "one class only" in finding.headline
        assert "binary_cross_entropy_with_logits" in finding.next_step

    @pytest.mark.parametrize(("axis", "over"), [(0, "the batch"), (2, "the queries")])
    def test_attention_over_the_batch_or_the_queries(self, made, axis, over):
        """The weights sum over the keys and were normalised over something else."""
        fact = Fact(kind="attention_axis", who=SITE, details={"shape": [32, 2, 10, 10], "axis": axis})
        finding = check_softmax_axis(with_facts(made, fact))
        assert f"normalised over axis {axis}, {over}, and sum over the last one" in finding.headline
        assert finding.culprit == SITE

    def test_the_usual_axis_passes(self, made):
        """The graph alone tells it, no row was summed."""
        assert check_softmax_axis(term(made)).ok


class TestMissingLog:
    def test_scores_into_nll_loss(self, made):
        """What their exponentials sum to is held against the limit."""
        finding = check_missing_log(term(made, loss="nll_loss", given="", row_sum=6.24, rows_off=256, rows_summed=256))
        assert str(finding) == (
            "objective.missing_log: nll_loss in the loss of 'train.py:12' is given numbers that are no log-probabilities "
            "(logits?): their exponentials sum to 6.24 in a row (max_sum=1.5), the logarithm is missing\n"
            "    Without the normalisation the loss falls by making every number larger, below zero and without end.\n"
            "    next: use cross_entropy on the logits, or apply log_softmax before nll_loss"
        )

    def test_probabilities_into_nll_loss(self, made):
        """The loss is minus a probability."""
        finding = check_missing_log(term(made, loss="nll_loss", given="softmax", row_sum=11.2))
        assert "is given probabilities (of a softmax)" in finding.headline
        assert "minus a probability" in finding.shows

    @pytest.mark.parametrize(
        "details",
        [{}, {"loss": "nll_loss", "given": "log", "row_sum": 1.6}, {"loss": "nll_loss", "given": "", "row_sum": 1.01}],
    )
    def test_logarithms_pass(self, made, details):
        """Of a softmax, with an epsilon, or put together by hand."""
        assert check_missing_log(term(made, **details)).ok


BINARY = {"loss": "binary_cross_entropy_with_logits", "low": 0.0, "high": 1.0}


class TestTargetRange:
    def test_labels_of_minus_one_and_one(self, made):
        """Both ends are said."""
        assert str(check_target_range(term(made, **{**BINARY, "low": -1.0}))) == (
            "objective.target_range: labels out of range in the loss of 'train.py:12': targets of "
            "binary_cross_entropy_with_logits go from -1 to 1, and 0 to 1 is meant (max_excess=0.5)\n"
            "    Beyond 1 and below 0 there is no best answer: the loss falls as long as the logits grow.\n"
            "    next: bring the targets to 0 and 1: (y + 1) / 2, y - 1, y / 255, whatever they are codes of"
        )

    def test_smoothed_labels_pass(self, made):
        """Up to 1.2, as a discriminator's may be."""
        assert check_target_range(term(made, **{**BINARY, "high": 1.2})).ok

    def test_targets_that_are_not_a_number_fail(self, made):
        """NaN is in no range."""
        assert check_target_range(term(made, **{**BINARY, "high": float("nan"), "low": float("nan")})).failed


class TestIgnoredLabels:
    def test_a_batch_without_a_label(self, made):
        """Its mean is over nothing."""
        finding = check_ignored_labels(term(made, empty_batches=2, labels=150, ignored=42))
        assert str(finding) == (
            "objective.ignored_labels: all labels are ignored in 2 of 8 batches looked at in the loss of 'train.py:12' "
            "(max_empty=0)\n"
            "\n"
            "    labels                   count\n"
            "    that count               150\n"
            "  > left out (ignore_index)  42\n"
            "\n"
            "    The loss is a mean over the labels that count: over none it is 0 / 0, NaN.\n"
            "    next: leave such batches out, or divide the summed loss by max(count, 1)"
        )

    def test_nine_of_ten_ignored_pass_and_so_does_a_sum_over_nothing(self, made):
        """Masked words; a sum over no label is 0."""
        assert check_ignored_labels(term(made, ignored=9000)).ok
        assert check_ignored_labels(term(made, empty_batches=2, reduction="sum")).ok

    def test_a_sum_over_no_label_in_any_batch_learns_nothing(self, made):
        """A mask that covers the answers too; one term among others may wait for its labels."""
        none = {"labels": 0, "labels_seen": 0, "ignored": 4000, "looks": 8, "empty_batches": 8}
        finding = check_ignored_labels(term(made, **none, reduction="sum"))
        assert str(finding) == (
            "objective.ignored_labels: all labels are ignored in 8 of 8 batches looked at in the loss of 'train.py:12' "
            "(max_empty=0)\n"
            "\n"
            "    labels                   count\n"
            "    that count               0\n"
            "  > left out (ignore_index)  4000\n"
            "\n"
            "    No label counts in any batch: the loss is zero, and nothing is learned from it.\n"
            "    next: print the labels of one batch and find what masks them: a mask of the prompt may cover the answer too"
        )
        assert check_ignored_labels(term(made, **none, reduction="sum", alone=False)).ok
        assert check_ignored_labels(term(made, **none | {"looks": 2, "empty_batches": 2}, reduction="sum")).ok


class TestKeptGraph:
    def sizes(self, made, **details):
        return with_facts(made, Fact(kind="graph", who=SITE, details={**SIZES, **details}))

    def test_losses_that_are_held_with_their_graphs(self, made):
        """All that were followed."""
        assert str(check_kept_graph(self.sizes(made, held=9))) == (
            "objective.kept_graph: the graph of the loss of 'train.py:12' is kept after its step: 9 of 9 losses followed are "
            "still held (min_followed=8)\n"
            "    Something holds each loss together with its graph, as total += loss or losses.append(loss) does: memory "
            "grows.\n"
            "    next: keep numbers instead of tensors: loss.item(), or loss.detach()"
        )

    def test_a_graph_that_reaches_back_further_each_time(self, made):
        """Six looks tell it, the last of them 50 steps later."""
        details = {"nodes": [5, 9, 13, 17, 21, 205], "old": [0, 3, 7, 11, 15, 19], "followed": 5}
        finding = check_kept_graph(self.sizes(made, **details))
        assert "reaches back into earlier steps, further each time: from 5 to 205 operations" in finding.headline
        assert finding.table.rows[-1] == (5, 205, 19)

    def test_sequences_that_grow_pass(self, made):
        """Nothing in them is of an earlier step."""
        assert check_kept_graph(self.sizes(made, nodes=[10, 20, 30, 40, 50, 500, 900, 910, 920])).ok

    def test_a_window_passes(self, made):
        """It reaches back, and is cut again and again."""
        old = [0, 3, 7, 0, 3, 0, 7, 3, 0]
        assert check_kept_graph(self.sizes(made, old=old, nodes=[5 + n for n in old])).ok

    def test_an_epoch_s_sum_passes(self, made):
        """The last losses are held, the first were let go."""
        assert check_kept_graph(self.sizes(made, held=3)).ok

    def test_eight_losses_are_held_by_the_end_of_250_steps(self, made):
        """Nine looks were taken; the loss of the last is not followed yet."""
        assert not check_kept_graph(self.sizes(made, held=8, followed=8)).ok

    def test_eight_losses_are_needed(self, made):
        """A short run is not judged."""
        finding = check_kept_graph(self.sizes(made, held=5, followed=5))
        assert not finding.asked
        assert finding.headline == "the graphs of 5 losses were followed, of at least 8"


class TestHighStart:
    def run(self, made, values, **details):
        run = made()
        run.loss = np.asarray(values)
        run.kept["facts"] = (Fact(kind="targets", who=SITE, details={**USUAL, **details}),)
        return run.trace()

    def test_a_net_that_begins_sure_and_wrong(self, made):
        """What an even guess gives, and how long it took to come down to it."""
        assert str(check_high_start(self.run(made, np.geomspace(40, 1, 200)))) == (
            "losses.high_start: the initial loss of 'train.py:12' is 40, 17.4 times the 2.303 of an even guess among 10 "
            "classes, and comes down to that in 155 of 200 steps (max_start=3)\n"
            "\n"
            "    step  loss\n"
            "  > 0     40\n"
            "    49    16.13\n"
            "    99    6.383\n"
            "    149   2.527\n"
            "    199   1\n"
            "\n"
            "    The untrained net is sure, and wrong: its outputs are far too large, by inputs that were not scaled or by "
            "initial weights that are too large.\n"
            "    next: scale the inputs to a spread of 1, or begin with small weights in the last layer"
        )

    def test_a_start_that_a_few_steps_repair_passes(self, made):
        """As that of tied embeddings, or of heads that are thrown in."""
        loss = np.concatenate([np.geomspace(40, 1, 30), np.full(170, 1.0)])
        assert check_high_start(self.run(made, loss)).ok

    @pytest.mark.parametrize(
        "details", [{"factor": 20.0}, {"alone": False}, {"reduction": "sum"}, {"loss": "nll_loss"}]
    )
    def test_what_has_another_level_is_not_held_against_it(self, made, details):
        """A factor, another term, a sum."""
        assert not check_high_start(self.run(made, np.geomspace(40, 1, 200), **details)).failed

    def test_a_short_run_is_not_asked(self, made):
        """Fifty steps are needed."""
        run = made(steps=30)
        run.kept["facts"] = (Fact(kind="targets", who=SITE, details=USUAL),)
        assert check_high_start(run.trace()).headline == "30 of at least 50 steps"

    def test_limits_that_mean_nothing_are_misuse(self, made):
        """By their names."""
        with pytest.raises(ValueError, match=r"^max_start: "):
            check_high_start(self.run(made, np.ones(200)), max_start=1.0)
        with pytest.raises(ValueError, match=r"^max_recovery: "):
            check_high_start(self.run(made, np.ones(200)), max_recovery=1.0)


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_to_look_at_is_not_a_pass(made, check):
    """A trace of numbers has no graphs, and a run without training no losses."""
    assert check(Trace.from_scalars({"loss": [1.0, 0.5]})).headline == (
        "the graphs of the losses were not looked at (a trace of numbers only, or an earlier recorder)"
    )
    assert check(Trace()).headline.startswith("nothing was trained while recording")


@pytest.mark.parametrize("check", CHECKS[:1] + CHECKS[2:6])
def test_a_loss_of_another_kind_is_not_asked(made, check):
    """A squared difference by hand holds no likelihood."""
    run = term(made, loss="difference")
    assert check(run).headline.startswith("no loss function of the kind")


@pytest.mark.parametrize(
    ("check", "limit"),
    [
        (check_softmax_axis, {"max_rows_off": 1.0}),
        (check_missing_log, {"max_sum": 1.0}),
        (check_target_range, {"max_excess": -0.1}),
        (check_ignored_labels, {"max_empty": -1}),
        (check_kept_graph, {"min_followed": 5}),
    ],
)
def test_a_limit_that_means_nothing_is_misuse(made, check, limit):
    """The message begins with its name."""
    with pytest.raises(ValueError, match=f"^{next(iter(limit))}: "):
        check(term(made), **limit)


def test_a_cause_is_named_once_and_folds_what_it_explains():
    """A loss that cannot fall explains a plateau."""
    for check in CHECKS[:4]:
        assert "losses.*" in check.info.explains


def test_facts_of_an_odd_file_break_nothing(made):
    """A file may hold facts of these kinds with nothing in them."""
    run = with_facts(made, Fact(kind="term", who=SITE), Fact(kind="graph", who=SITE))
    for check in CHECKS:
        assert not check(run).failed


def test_a_finding_survives_json(made):
    """Shapes are text and numbers."""
    details = {"loss": "mse_loss", "prediction": [4, 1], "target": [4], "compared": [4, 4]}
    assert json.loads(json.dumps(check_loss_broadcast(term(made, **details)).as_dict()))["amount"] == 16
    assert objective.__doc__
