import pytest

from pytest_mltd.intake.naming import is_loss, rank_of_step, roles


def _roles(*names, **sizes):
    return roles({**dict.fromkeys(names, 100), **sizes})


@pytest.mark.parametrize(
    "name",
    [
        "loss",
        "train/loss",
        "train_loss",
        "Loss/train",
        "trainLoss",
        "training_loss",
        "train/epoch_loss",
        "total_loss",
        "loss/total",
    ],
)
def test_training_loss_is_known_by_the_names_that_people_give_it(name):
    """One rule for all spellings: the words beside "loss" say nothing else."""
    assert _roles(name, "accuracy", "lr").loss == name
    assert is_loss(name)


@pytest.mark.parametrize(
    "name", ["val_loss", "eval_loss", "Loss/val", "validation/epoch_loss", "valid_loss", "loss/test", "dev_loss"]
)
def test_validation_loss_is_no_training_loss(name):
    """A word for held-out data makes it the other one."""
    found = _roles("loss", name)
    assert (found.loss, found.val) == ("loss", name)
    assert _roles(name).loss == ""


@pytest.mark.parametrize("name", ["loss_scale", "best_loss", "loss_weight", "min_loss", "glossary", "closs"])
def test_what_only_sounds_like_a_loss_is_none(name):
    """A scale, a weight or the best so far is not what is minimised."""
    assert _roles(name, "accuracy").loss == ""


def test_the_whole_is_taken_before_its_parts():
    """Of a total and its terms, the total; of step and epoch means, the one that is written most often."""
    assert _roles("loss", "recon_loss", "kl_loss").loss == "loss"
    assert _roles("train_loss_step", train_loss_epoch=5).loss == "train_loss_step"
    assert _roles("loss", train_loss=1).loss == "loss"


def test_of_several_parts_none_is_guessed():
    """Without a total it is not known which is minimised, and it is said."""
    found = _roles("loss_box", "loss_class")
    assert found.loss == ""
    assert found.why == "which of 'loss_box', 'loss_class' is minimised is not known"


def test_a_lone_loss_is_taken_whatever_its_name_says():
    """``mse_loss`` alone is the loss."""
    assert _roles("mse_loss", "accuracy").loss == "mse_loss"


@pytest.mark.parametrize(
    "names",
    [
        ("loss_d", "loss_g"),
        ("train/loss", "rollout/ep_rew_mean"),
        ("actor_loss", "critic_loss"),
        ("gan/generator_loss", "loss"),
    ],
)
def test_losses_whose_measure_moves_are_not_judged(names):
    """Two nets against each other and agents that make their own data may honestly have a rising loss."""
    found = _roles(*names)
    assert found.loss == ""
    assert "moves" in found.why


def test_a_loss_that_stops_being_finite_is_taken_all_the_same():
    """NaN is no matter of levels."""
    assert roles({"loss_d": 9, "loss_g": 9}, ["loss_g", "loss_d"]).loss == "loss_g"


def test_rates_and_gradient_norm_are_known_and_those_of_layers_are_not():
    """The norm of all gradients is one name; every group's rate counts."""
    found = _roles(
        "loss", "lr-AdamW/pg1", "lr-AdamW/pg2", "learning_rate", "config/lr", "grad_2.0_norm_total", "grad_norm/layer1"
    )
    assert found.grad_norm == "grad_2.0_norm_total"
    assert found.lr == ("lr-AdamW/pg1", "lr-AdamW/pg2", "learning_rate")


def test_steps_are_counted_by_the_finest_name():
    """A global step comes before a step, an iteration, an epoch."""
    order = ["trainer/global_step", "step", "iteration", "epoch"]
    assert sorted(order, key=lambda name: rank_of_step("global_step") if "/" in name else rank_of_step(name)) == order
    assert rank_of_step("footstep") is None
    assert rank_of_step("_step") == rank_of_step("Step") == rank_of_step("step")


def test_test_loss_counts_only_where_there_is_no_other():
    """A final test is not the validation curve."""
    assert _roles("loss", "val_loss", test_loss=1).val == "val_loss"
    assert _roles("loss", "test_loss").val == "test_loss"
    assert _roles("loss", "val_loss_epoch", val_loss_step=900).val == "val_loss_epoch"
