"""Is any metric worse: red with the fault planted, green without, at every origin of the tolerance."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_mltd.checks.runs.metric_names import cost_of, direction_of, wanders
from pytest_mltd.checks.runs.metrics import assert_no_regression, check_regression, has_latency
from pytest_mltd.checks.runs.tolerances import student
from pytest_mltd.core.findings import CheckFailed, NotAsked

GOOD = {
    "val": {"auc": [0.91, 0.92, 0.915, 0.93, 0.92], "loss": 0.2},
    "test": {"women": {"auc": 0.9}, "men": {"auc": 0.89}},
}


def changed(**values):
    """Return GOOD with some metrics replaced, by path with two underscores for the slash."""
    flat = {"val/auc": GOOD["val"]["auc"], "val/loss": 0.2, "test/women/auc": 0.9, "test/men/auc": 0.89}
    return {**flat, **{k.replace("__", "/"): v for k, v in values.items()}}


class TestVerdict:
    def test_the_same_metrics_pass_and_say_what_was_looked_at(self):
        """A pass names its margin."""
        found = check_regression(GOOD, GOOD)
        assert found.ok
        assert found.headline.startswith("no metric is worse (4 asked); nearest to its limit: '")
        assert found.looked_at == "test/men/auc, test/women/auc, val/auc, val/loss"

    def test_a_fall_of_one_subgroup_is_found_at_its_place(self):
        """The mean over the groups hides it, the group's own row does not."""
        found = check_regression(changed(test__men__auc=0.80), GOOD)
        assert found.failed
        assert found.culprit == "test/men/auc"
        assert found.table.rows[found.table.culprit][0] == "test/men/auc"

    def test_better_is_never_worse(self):
        """A rise of an AUC and a fall of a loss pass, however large."""
        assert check_regression(changed(val__auc=1.0, val__loss=0.0, test__men__auc=0.99), GOOD).ok

    def test_one_seed_that_collapses_is_found(self):
        """A run that has become unstable cannot excuse itself by its own spread."""
        assert check_regression(changed(val__auc=[0.92, 0.91, 0.3]), GOOD).failed

    def test_the_worst_comes_first(self):
        """By how many times the tolerance is passed; the headline counts the others."""
        found = check_regression(changed(val__auc=[0.6] * 3, test__men__auc=0.85), GOOD)
        assert found.culprit == "val/auc"
        assert found.headline.endswith("; 1 more metric fails")

    def test_a_new_metric_is_named_and_fails_nothing(self):
        """The baseline does not know it yet."""
        found = check_regression(changed(val__f1=0.1), GOOD)
        assert found.ok
        assert found.looked_at.endswith("; not in the baseline: val/f1")

    def test_an_allowed_metric_may_be_worse(self):
        """With its reason, by path or pattern."""
        worse = changed(test__men__auc=0.5)
        found = check_regression(worse, GOOD, allow={"test/men/*": "relabelled in June"})
        assert found.ok
        assert found.allowed == (("test/men/auc", "relabelled in June"),)
        assert check_regression(worse, GOOD, allow={"val/*": "other"}).failed


class TestMessages:
    def test_from_the_spread(self):
        """The whole message: how much, the limit by name, where it comes from, with every number."""
        found = check_regression({"val": {"auc": [0.87, 0.88, 0.865]}}, {"val": {"auc": GOOD["val"]["auc"]}})
        assert str(found) == (
            "metrics.regression: 'val/auc' fell from 0.919 to 0.8717, 0.04733 worse; "
            "0.02029 is allowed (alpha=0.01, spread of 5 seeds)\n"
            "\n"
            "    metric   baseline  now     change    allowed  limit from\n"
            "  > val/auc  0.919     0.8717  -0.04733  0.02029  alpha=0.01, spread of 5 seeds\n"
            "\n"
            "    From the spread: sd 0.00742 over 5 seeds, √(1/5 + 1/3) = 0.730, t = 3.75; "
            "a change of seed alone does this in less than 0.01.\n"
            "    next: look at what changed since the baseline was made; if the new number is meant, make a new baseline"
        )

    def test_by_the_default(self):
        """One seed says nothing of the noise, and the message says that."""
        found = check_regression({"val": {"auc": 0.8}}, {"val": {"auc": 0.91}})
        assert str(found) == (
            "metrics.regression: 'val/auc' fell from 0.91 to 0.8, 0.11 worse; "
            "0.0273 is allowed (default_rtol=0.03, 1 seed)\n"
            "\n"
            "    metric   baseline  now  change  allowed  limit from\n"
            "  > val/auc  0.91      0.8  -0.11   0.0273   default_rtol=0.03, 1 seed\n"
            "\n"
            "    The default tolerance is 0.03 of the baseline: the baseline has 1 seed, so the spread is unknown. "
            "State rtol= or atol=, or give at least 3 seeds.\n"
            "    next: look at what changed since the baseline was made; if the new number is meant, make a new baseline"
        )

    @pytest.mark.parametrize(
        ("current", "baseline", "limits", "headline"),
        [
            (
                0.89,
                0.91,
                {"rtol": 0.01},
                "'m/auc' fell from 0.91 to 0.89, 0.02 worse; 0.0091 is allowed (rtol=0.01)",
            ),
            (
                0.89,
                0.91,
                {"atol": 0.01},
                "'m/auc' fell from 0.91 to 0.89, 0.02 worse; 0.01 is allowed (atol=0.01)",
            ),
            (0.89, None, {"minimum": {"auc": 0.9}}, "'m/auc' is 0.89 (minimum=0.9)"),
            ([0.88, 0.9], None, {"minimum": {"m/*": 0.9}}, "'m/auc' is 0.89, the mean of 2 seeds (minimum=0.9)"),
            (0.89, None, {"maximum": {"m/auc": 0.8}}, "'m/auc' is 0.89 (maximum=0.8)"),
            (0.8999999, None, {"minimum": {"auc": 0.9}}, "'m/auc' is 0.8999999 (minimum=0.9)"),
            (math.nan, 0.9, {}, "'m/auc' is NaN"),
            ([0.9, math.inf], 0.9, {}, "'m/auc' is inf in 1 of 2 seeds"),
            (0.9, math.nan, {}, "the baseline of 'm/auc' is NaN"),
        ],
    )
    def test_headlines(self, current, baseline, limits, headline):
        """Complete by themselves: place, amount, limit under its argument's name."""
        found = check_regression(
            {"m": {"auc": current}}, None if baseline is None else {"m": {"auc": baseline}}, **limits
        )
        assert found.failed
        assert found.headline == headline

    def test_a_missing_metric_is_named_with_the_nearest(self):
        """Renamed, most likely."""
        found = check_regression({"val": {"roc_auc": 0.9}}, {"val": {"auc": 0.91}})
        assert found.headline == "'val/auc' is missing; its baseline is 0.91"
        assert found.next_step == "report it under its old name; the nearest now is 'val/roc_auc'"

    def test_a_missing_split_is_named(self):
        """Each of its metrics, the others counted."""
        found = check_regression({"val": GOOD["val"]}, GOOD)
        assert found.headline == "'test/men/auc' is missing; its baseline is 0.89; 1 more metric fails"

    def test_a_hostile_name_stays_on_one_line(self):
        """Control signs are escaped."""
        found = check_regression({"a\nb": math.nan}, {"a\nb": 1.0})
        assert found.headline == "'a\\nb' is NaN"


class TestCosts:
    def test_a_latency_is_a_ratio_of_medians(self):
        """One slow outlier of five does not alarm, twice the time does."""
        before = {"val": {"latency_ms": [12, 12, 13, 12, 12]}}
        assert check_regression({"val": {"latency_ms": [12, 12, 90, 13, 12]}}, before).ok
        found = check_regression({"val": {"latency_ms": 24}}, before)
        assert found.headline == "'val/latency_ms' is 2 times its baseline: 12 then, 24 now (max_latency_ratio=1.5)"
        assert check_regression({"val": {"latency_ms": 24}}, before, max_latency_ratio=3).ok

    def test_memory_has_its_own_limit(self):
        """An extra copy of the batch is found."""
        found = check_regression({"peak_memory_mb": 130}, {"peak_memory_mb": 100})
        assert found.headline == "'peak_memory_mb' is 1.3 times its baseline: 100 then, 130 now (max_memory_ratio=1.2)"
        assert check_regression({"peak_memory_mb": 110}, {"peak_memory_mb": 100}).ok

    def test_throughput_turns_round(self):
        """Half of it is twice worse."""
        found = check_regression({"throughput": 50}, {"throughput": 100})
        assert found.headline == "'throughput' is 0.5 times its baseline: 100 then, 50 now (max_latency_ratio=1.5)"
        assert check_regression({"throughput": 200}, {"throughput": 100}).ok

    @pytest.mark.parametrize(
        ("name", "cost"),
        [
            ("val/step_ms", "latency"),
            ("epoch_time", "latency"),
            ("seconds_per_step", "latency"),
            ("peak_memory_gb", "memory"),
            ("tokens_per_second", "throughput"),
            ("ms_ssim", None),
            ("ms", None),
            ("times_seen_accuracy", None),
        ],
    )
    def test_costs_are_known_by_name(self, name, cost):
        """By their words and units; a unit in front, or alone, is none."""
        assert cost_of(name) == cost

    @pytest.mark.parametrize(
        ("name", "value", "ok"),
        [("latency_ms", 49, True), ("latency_ms", 51, False), ("latency_s", 0.051, False), ("p95Latency", 51, False)],
    )
    def test_an_absolute_latency(self, name, value, ok):
        """In milliseconds, by the unit in the name."""
        found = check_regression({"val": {name: value, "auc": 0.9}}, None, max_latency_ms=50)
        assert found.ok is ok
        assert ok or found.headline == f"'val/{name}' is 51 ms (max_latency_ms=50)"

    def test_a_limit_without_a_latency_is_misuse(self):
        """Nothing would be held against it."""
        with pytest.raises(ValueError, match="max_latency_ms: no latency among the metrics"):
            check_regression({"auc": 0.9}, None, max_latency_ms=50)
        assert has_latency({"val": {"latency_ms": 1}})
        assert not has_latency({"val": {"auc": 1}})


class TestTolerance:
    @pytest.mark.parametrize("alpha", [0.05, 0.01, 1e-3, 1e-5])
    @pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 31, 100])
    def test_student_is_student(self, alpha, freedom):
        """Against scipy's inverse survival function."""
        stats = pytest.importorskip("scipy.stats")
        assert student(alpha, freedom) == pytest.approx(stats.t.isf(alpha, freedom), rel=1e-9)

    def test_seeds_that_agree_do_not_make_a_tolerance_of_zero(self):
        """Three equal values say little: the default holds."""
        assert check_regression({"accuracy": 0.98}, {"accuracy": [1.0, 1.0, 1.0]}).ok
        found = check_regression({"accuracy": 0.9}, {"accuracy": [1.0, 1.0, 1.0]})
        assert "all seeds of the baseline agree" in found.shows

    def test_a_tiny_spread_is_raised_to_a_tenth_of_the_default(self):
        """0.3% of an accuracy is not worth an alarm, however well three seeds agree."""
        before = {"auc": [0.9, 0.90001, 0.9]}
        assert check_regression({"auc": 0.898}, before).ok
        found = check_regression({"auc": 0.89}, before)
        assert "raised to a tenth of the default tolerance 0.027" in found.shows

    def test_few_seeds_are_held_at_the_default(self):
        """Three seeds alone would allow 8 standard deviations."""
        found = check_regression({"auc": 0.85}, {"auc": [0.9, 0.91, 0.905]})
        assert found.failed
        assert "held at the default 0.02715" in found.shows

    def test_two_seeds_have_no_spread(self):
        """One difference is no spread: the default holds."""
        assert check_regression({"auc": 0.8}, {"auc": [0.9, 0.91]}).table.rows[0][-1] == "default_rtol=0.03, 2 seeds"

    def test_a_loss_may_wander_more(self):
        """Its default is half of the baseline, under its own name."""
        assert check_regression({"loss": 0.28}, {"loss": 0.2}).ok
        found = check_regression({"loss": 0.31}, {"loss": 0.2})
        assert found.headline.endswith("0.1 is allowed (default_loss_rtol=0.5, 1 seed)")
        assert check_regression({"loss": 0.31}, {"loss": 0.2}, default_loss_rtol=0.6).ok

    def test_a_jump_up_passes_and_is_named(self):
        """It may be a leak; by less it is not worth a word."""
        found = check_regression({"auc": 0.998}, {"auc": 0.7})
        assert found.ok
        assert "; much better than its baseline: 'auc' rose from 0.7 to 0.998" in found.looked_at
        assert "much better" not in check_regression({"auc": 0.71}, {"auc": 0.7}).looked_at

    def test_a_stated_tolerance_wins_over_the_spread(self):
        """And may be 0."""
        before = {"auc": [0.8, 0.9, 1.0]}
        assert check_regression({"auc": 0.89}, before).ok
        assert check_regression({"auc": 0.89}, before, atol=0.001).failed
        assert check_regression({"auc": 0.9 - 1e-9}, {"auc": 0.9}, rtol=0, atol=0).failed
        assert check_regression({"auc": 0.9}, {"auc": 0.9}, rtol=0, atol=0).ok

    def test_a_tolerance_by_metric(self):
        """The others keep theirs."""
        found = check_regression({"a_auc": 0.8, "b_auc": 0.8}, {"a_auc": 0.9, "b_auc": 0.9}, rtol={"a_auc": 0.2})
        assert found.culprit == "b_auc"
        assert found.headline.endswith("(default_rtol=0.03, 1 seed)")

    def test_noise_alarms_as_rarely_as_promised(self):
        """400 redraws of five seeds of four metrics: alpha is for all together."""
        rng = np.random.default_rng(0)
        alarms = 0
        for _ in range(400):
            then, now = ({f"m{k}_auc": rng.normal(0.9, 0.003, 5) for k in range(4)} for _ in range(2))
            alarms += check_regression(now, then).failed
        assert alarms <= 10  # 4 expected; more than 10 has probability 0.003

    def test_a_fall_of_four_standard_deviations_is_seen(self):
        """With five seeds on both sides, in at least nine of ten redraws."""
        rng = np.random.default_rng(0)
        seen = sum(
            check_regression({"auc": rng.normal(0.888, 0.003, 5)}, {"auc": rng.normal(0.9, 0.003, 5)}).failed
            for _ in range(200)
        )
        assert seen >= 180


class TestNames:
    @pytest.mark.parametrize(
        "name",
        "auc val_auc ROC-AUC rocAUC roc_auc_score accuracy top1_acc balancedAccuracy f1 macro_f1 F1Score r2 R2 r2_score mAP "
        "mAP50 iou mIoU dice recall@5 recall_at_5 precision_at_fpr ndcg@10 bleu bleu4 rouge_l psnr score test_score "
        "neg_mean_squared_error hit_rate reward elbo throughput true_positive_rate ms_ssim fps cv_score".split(),
    )
    def test_more_is_better(self, name):
        """Names in common use, in every spelling."""
        assert direction_of(f"val/{name}") == "higher"

    @pytest.mark.parametrize(
        "name",
        "loss val_loss trainLoss nll mse RMSE val_rmse mae mape perplexity ppl error error_rate top1_error wer cer fid brier "
        "brier_score ece logloss log_loss cross_entropy fpr false_positive_rate latency_ms p95_latency peak_memory_mb "
        "epoch_seconds kl kl_divergence precision_loss auc_gap crossEntropy cross-entropy step_ms ms_per_token epoch_time "
        "seconds_per_step peakVRAM".split(),
    )
    def test_less_is_better(self, name):
        """Losses, errors and costs."""
        assert direction_of(f"val/{name}") == "lower"

    @pytest.mark.parametrize(
        "name",
        [
            "foo",
            "x",
            "temperature",
            "lr",
            "learning_rate",
            "n",
            "12",
            "",
            "mapping_size",
            "anomaly_score",
            "entropy",
            "ms",
            "s",
        ],
    )
    def test_an_unknown_name_is_not_guessed(self, name):
        """The check asks for the direction."""
        assert direction_of(name) is None

    def test_the_split_does_not_decide(self):
        """Only the metric's own name counts."""
        assert direction_of("error_analysis/auc") == "higher"

    def test_what_wanders(self):
        """Losses do, scores and distances in the target's units do not."""
        assert wanders("val/loss")
        assert wanders("r2")
        assert not wanders("val/auc")
        assert not wanders("rmse")


class TestMisuse:
    def test_an_unknown_direction_is_asked_for_by_the_argument(self):
        """With the line to write."""
        with pytest.raises(
            ValueError, match='^direction: is more or less of \'val/foo\' better. Say direction={"foo": "higher"}'
        ):
            check_regression({"val": {"foo": 1}}, {"val": {"foo": 2}})
        assert check_regression({"val": {"foo": 1}}, {"val": {"foo": 2}}, direction={"foo": "lower"}).ok
        assert check_regression({"val": {"foo": 1}}, {"val": {"foo": 2}}, direction="higher").failed
        assert check_regression({"val": {"foo": 1}}, None, minimum={"foo": 0}).ok

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"minimum": {"val/acu": 0.9}}, "^minimum: no metric 'val/acu'; the nearest is 'val/auc'"),
            ({"maximum": {"zzz": 0.9}}, "^maximum: no metric 'zzz'; there are"),
            ({"minimum": {"val/auc": "high"}}, "^minimum: 'val/auc' needs a number"),
            ({"minimum": {"val/auc": math.nan}}, "^minimum: 'val/auc' needs a number"),
            ({"rtol": -0.1}, "^rtol: a number of at least 0"),
            ({"rtol": {"acu": 0.1}}, "^rtol: no metric 'acu'; the nearest is 'auc'"),
            ({"atol": math.nan}, "^atol: a number of at least 0"),
            ({"alpha": 0.0}, "^alpha: a probability"),
            ({"alpha": "x"}, "^alpha: a probability"),
            ({"max_latency_ratio": 0.5}, "^max_latency_ratio: a number of at least 1"),
            ({"direction": "up"}, '^direction: "higher" or "lower" is needed'),
            ({"direction": {"auc": "up"}}, '^direction: "higher" or "lower" is needed'),
        ],
    )
    def test_a_wrong_argument_is_named(self, arguments, said):
        """With what is needed."""
        with pytest.raises(ValueError, match=said):
            check_regression(GOOD, GOOD, **arguments)

    @pytest.mark.parametrize("value", ["0.9", None, True, object(), [0.9, "x"], {1, 2}])
    def test_what_is_no_number_is_named_by_its_path(self, value):
        """Not coerced."""
        with pytest.raises(
            TypeError, match="^current: 'val/auc' is .*a number, or a list of numbers over seeds, is needed"
        ):
            check_regression({"val": {"auc": value}}, GOOD)

    def test_what_is_no_mapping_is_refused(self):
        """A bare number has no name."""
        with pytest.raises(TypeError, match="^current: a mapping of metrics is needed"):
            check_regression(0.9, GOOD)
        with pytest.raises(TypeError, match="^minimum: a mapping by metric is needed"):
            check_regression(GOOD, GOOD, minimum=0.9)

    def test_a_metric_given_twice_is_refused(self):
        """Nested and as a path."""
        with pytest.raises(ValueError, match="^current: 'val/auc' is given twice"):
            check_regression({"val": {"auc": 1}, "val/auc": 1}, None)

    def test_nothing_to_ask_is_not_a_pass(self):
        """Neither metrics, nor anything to hold them against."""
        for current, baseline in (
            ({}, None),
            ({}, {}),
            ({"auc": 1}, None),
            ({"auc": 1}, {}),
            ({"auc": []}, {"auc": []}),
        ):
            assert not check_regression(current, baseline).asked
            with pytest.raises(NotAsked):
                assert_no_regression(current, baseline)

    def test_tensors_and_arrays_are_numbers(self):
        """Of one value or one for each seed; limits too."""
        assert check_regression({"auc": 0.8}, None, minimum={"auc": np.float32(0.9)}).failed
        assert check_regression({"auc": 0.8}, {"auc": 0.9}, rtol=np.float64(0.01)).failed
        torch = pytest.importorskip("torch")
        current = {"auc": torch.tensor(0.9), "f1": np.float32(0.5), "acc": np.array([1, 2])}
        assert check_regression(current, current).ok

    def test_the_twin_raises_with_the_message(self):
        """And carries the finding."""
        with pytest.raises(CheckFailed, match=r"^metrics.regression: 'auc' is 0.8 \(minimum=0.9\)") as caught:
            assert_no_regression({"auc": 0.8}, None, minimum={"auc": 0.9})
        assert caught.value.findings[0].details["current"] == {"auc": 0.8}


metric = st.floats(0.1, 1.0)
table = st.dictionaries(
    st.sampled_from(["auc", "val/loss", "test/men/f1", "rmse"]), st.lists(metric, min_size=1, max_size=5), min_size=1
)


class TestLaws:
    @settings(deadline=None)
    @given(table)
    def test_nothing_is_worse_than_itself(self, metrics):
        """Whatever the seeds' spread."""
        assert check_regression(metrics, metrics).ok

    @settings(deadline=None)
    @given(table, table, st.permutations(range(4)))
    def test_the_order_of_metrics_does_not_matter(self, now, then, order):
        """Nor that of a dictionary."""
        keys = sorted({*now, *then})
        shuffled = [keys[i] for i in order if i < len(keys)]
        again = check_regression({k: now[k] for k in shuffled if k in now}, {k: then[k] for k in shuffled if k in then})
        assert str(again) == str(check_regression(now, then))

    @settings(deadline=None)
    @given(
        st.lists(metric, min_size=1, max_size=6),
        st.lists(metric, min_size=1, max_size=6),
        st.sampled_from([0.25, 8.0, 1024.0]),
    )
    def test_the_unit_does_not_matter(self, then, now, scale):
        """Metres or millimetres: relative tolerances give the same verdict."""
        one = check_regression({"rmse": now}, {"rmse": then})
        other = check_regression({"rmse": [v * scale for v in now]}, {"rmse": [v * scale for v in then]})
        assert one.ok == other.ok

    @settings(deadline=None)
    @given(st.lists(metric, min_size=1, max_size=6), metric, metric)
    def test_worse_than_what_fails_fails(self, then, a, b):
        """The verdict is monotonous."""
        better, worse = max(a, b), min(a, b)
        if check_regression({"auc": better}, {"auc": then}).failed:
            assert check_regression({"auc": worse}, {"auc": then}).failed
