"""What a live recording still holds is probed without being asked: where it applies, in a second, and nothing is harmed."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pytest_mltd as mltd
from pytest_mltd.core.findings import CheckFailed
from pytest_mltd.core.traces import Trace
from pytest_mltd.probes import recorded


class Reader(nn.Module):
    """A recurrent language model."""

    def __init__(self, both=False, words=8):
        super().__init__()
        self.emb = nn.Embedding(words, 8)
        self.rnn = nn.GRU(8, 8, batch_first=True, bidirectional=both)
        self.out = nn.Linear(16 if both else 8, words)

    def forward(self, ids, keep=None):
        h = self.rnn(self.emb(ids))[0]
        return self.out(h if keep is None else h * keep)


def read(model, *, steps=3, **given):
    """Train on what follows."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    ids = torch.randint(0, 8, (4, 7))
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(ids[:, :-1], **given).flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()


def probed(train, *args, **kwargs):
    """Return what the probes find in a recorded run."""
    torch.manual_seed(0)
    with mltd.record() as run:
        train(*args, **kwargs)
    return mltd.diagnose(run, only="model.*")


def why(diagnosis, name):
    """Return why a question of the model was not asked."""
    return next(f.looked_at for f in diagnosis.not_asked if f.id == f"model.{name}")


def test_a_model_that_sees_the_future_is_found_in_an_unedited_loop():
    """The culprit is named, and what it cost."""
    diagnosis = probed(read, Reader(both=True))
    assert [f.id for f in diagnosis.failed] == ["model.causal_leak"]
    assert diagnosis.failed[0].culprit == "rnn"
    assert "forwards of a copy of the model" in str(diagnosis)
    assert probed(read, Reader()).ok


def test_the_model_of_a_program_that_goes_on_is_not_touched():
    """Weights and random state after the diagnosis are those before."""
    model = Reader(both=True)
    with mltd.record() as run:
        read(model)
    weights, state = [p.clone() for p in model.parameters()], torch.get_rng_state()
    mltd.diagnose(run)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert model.training


def test_keyword_arguments_of_the_batch_are_given_too():
    """A mask that was passed by its name must not be forgotten."""
    model = Masked()
    assert probed(read, model, keep=torch.full((6, 6), float("-inf")).triu(1)).ok
    assert probed(read, Masked(), keep=torch.zeros(6, 6)).failed[0].id == "model.causal_leak"


class Masked(nn.Module):
    """Attention whose mask comes with the call."""

    def __init__(self):
        super().__init__()
        self.emb, self.out = nn.Embedding(8, 8), nn.Linear(8, 8)

    def forward(self, ids, keep):
        h = self.emb(ids)
        return self.out(F.scaled_dot_product_attention(h, h, h, attn_mask=keep))


def test_a_recording_that_goes_on_is_not_probed():
    """The recorder would take the probes' forwards for the program's."""
    with mltd.record() as run:
        read(Reader(both=True))
        assert {f.headline for f in mltd.diagnose(run, only="model.*").not_asked} == {
            "they are asked once the recording is over"
        }


def test_it_can_be_left_out_and_a_loaded_trace_has_no_model(tmp_path):
    """``probe=False`` says nothing of it, a trace says why; `assert_healthy` takes both."""
    torch.manual_seed(0)
    with mltd.record() as run:
        read(Reader(both=True))
    assert not {f.id for f in mltd.diagnose(run, probe=False).not_asked if f.id.startswith("model.")}
    mltd.assert_healthy(run, probe=False, skip="updates.*")
    loaded = mltd.diagnose(Trace.load(run.save(tmp_path / "t.mltd")), only="model.*")
    assert {f.headline for f in loaded.not_asked} == {
        "the model is gone: they are asked of a live recording, or by mltd.assert_model_sound(model, inputs)"
    }
    with pytest.raises(CheckFailed, match=r"model\.causal_leak"):
        mltd.assert_healthy(run, only=["model.causal_leak"])


def test_one_place_can_be_allowed():
    """The id alone allows all places, with the place one."""
    torch.manual_seed(0)
    with mltd.record() as run:
        read(Reader(both=True))
    assert mltd.diagnose(run, only="model.*", allow={"model.causal_leak:rnn": "both directions are wanted"}).ok
    assert mltd.diagnose(run, only="model.*", allow={"model.causal_leak": "both directions are wanted"}).ok
    assert not mltd.diagnose(run, only="model.*", allow={"model.causal_leak:out": "elsewhere"}).ok


def test_an_encoder_may_see_what_is_decoded():
    """One module reads the whole and writes it again; so may one that squeezes it to a latent."""

    class Auto(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.out = nn.Embedding(8, 8), nn.Linear(8, 8)
            self.encoder, self.decoder = (nn.GRU(8, 8, batch_first=True) for _ in range(2))

        def forward(self, ids):
            return self.out(self.decoder(self.emb(ids), self.encoder(self.emb(ids))[1])[0])

    assert why(probed(read, Auto()), "causal_leak") == "an encoder may see the whole of what is decoded"
    assert recorded.ELSE in {f.headline for f in probed(read, Auto()).not_asked}


def test_a_norm_over_all_moments_is_no_missing_mask():
    """Causal convolutions with a group norm are honest, if not strictly causal."""

    class Waves(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb, self.conv, self.out = nn.Embedding(8, 8), nn.Conv1d(8, 8, 2), nn.Linear(8, 8)
            self.norm = nn.GroupNorm(1, 8)

        def forward(self, ids):
            return self.out(self.norm(self.conv(F.pad(self.emb(ids).transpose(1, 2), (1, 0)))).transpose(1, 2))

    assert why(probed(read, Waves()), "causal_leak").startswith("a norm over all moments tells a little of later ones")


def tag(model, *, sizes=(4, 4, 4), evaluate=0, inputs=lambda n: torch.randn(n, 6, 5)):
    """Train a class for each sample, and evaluate."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for n in sizes:
        optimizer.zero_grad()
        F.cross_entropy(model(inputs(n)), torch.arange(n) % 2).backward()
        optimizer.step()
    if evaluate:
        model.eval()
        x = inputs(4)
        with torch.no_grad():
            for _ in range(evaluate):
                model(x)


class Tagger(nn.Module):
    """One class for each sequence."""

    def __init__(self, batch_first, drop=0.0, told=True):
        super().__init__()
        self.rnn, self.out = nn.GRU(5, 8, batch_first=batch_first), nn.Linear(8, 2)
        self.drop, self.told = drop, told

    def forward(self, x):
        h = self.rnn(x)[0].mean(1)
        if self.drop:
            h = F.dropout(h, self.drop, training=self.training) if self.told else F.dropout(h, self.drop)
        return self.out(h)


def test_a_batch_on_the_axis_of_time_is_found():
    """Each sample has one label, batches vary: the first axis counts the samples."""
    assert [f.id for f in probed(tag, Tagger(False)).failed] == ["model.batch_mixing"]
    assert "model.batch_mixing" in {f.id for f in probed(tag, Tagger(True)).findings}


def test_rows_that_belong_together_may_mix():
    """A set whose members see each other, by no module that wants the batch elsewhere."""

    class Members(Tagger):
        def forward(self, x):
            return super().forward(x - x.mean(0))

    assert (
        why(probed(tag, Members(True)), "batch_mixing")
        == "samples are mixed, and nothing tells that they should not be"
    )
    same = torch.randn(4, 6, 5)
    assert (
        why(probed(tag, Members(True), inputs=lambda n: same), "batch_mixing") == "the same batch was given each time"
    )


class Weighed(nn.Module):
    """Elements weighed by a softmax over an axis."""

    def __init__(self, axis):
        super().__init__()
        self.score, self.out, self.axis = nn.Linear(5, 1), nn.Linear(5, 2), axis

    def forward(self, x):
        return self.out((x * torch.softmax(self.score(x), self.axis)).sum(1))


def test_a_softmax_over_the_samples_is_found():
    """It is not what a set does whose members see each other."""
    (found,) = probed(tag, Weighed(0)).failed
    assert found.id == "model.batch_mixing"
    assert found.shows == "A softmax runs over the first axis of 4 × 6 × 1, which counts the samples."
    assert "model.batch_mixing" in {f.id for f in probed(tag, Weighed(1)).findings}


def test_a_view_where_a_transpose_is_meant_is_found():
    """The net gets the batch where it wants it, and samples that are made of pieces of others."""

    class Viewed(Tagger):
        def forward(self, x):
            return self.out(self.rnn(x.view(6, len(x), 5))[0].mean(0))

    (found,) = probed(tag, Viewed(False)).failed
    assert found.shows.startswith("4 × 6 × 5 is viewed as 6 × 4 × 5")


def regress(table, y):
    """Train a number for each row."""
    model = nn.Linear(table.shape[1], 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for rows in torch.arange(len(y)).split(32):
        optimizer.zero_grad()
        F.mse_loss(model(table[rows]).squeeze(-1), y[rows]).backward()
        optimizer.step()


def test_a_number_among_its_own_features_is_found_in_a_table_of_many_kinds():
    """Features that were drawn alike are an exercise, of which one may be asked for."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(96, 5, generator=g), torch.randn(96, generator=g)
    x[:, 1] = (x[:, 1] > 0).float()
    held = torch.cat([x, 3 * y[:, None] + 1], 1)
    assert [f.culprit for f in probed(regress, held, y).failed] == ["column 5"]
    assert "model.targets_equal_inputs" in {f.id for f in probed(regress, x, y).findings}
    drawn = torch.randn(96, 5, generator=g)
    assert why(probed(regress, drawn, 2 * drawn[:, 0]), "targets_equal_inputs").endswith("all of one kind")


def test_dropout_that_nobody_told_is_found_where_the_program_evaluates():
    """Once each batch: one that answers again and again samples on purpose."""
    assert [f.id for f in probed(tag, Tagger(True, 0.5, told=False), evaluate=1).failed] == ["model.eval_noise"]
    assert "model.eval_noise" in {f.id for f in probed(tag, Tagger(True, 0.5), evaluate=1).findings}
    untold = probed(tag, Tagger(True, 0.5, told=False))
    assert why(untold, "eval_noise") == "the program was not seen in eval mode"
    sampling = probed(tag, Tagger(True, 0.5, told=False), evaluate=5)
    assert why(sampling, "eval_noise") == "the program answers one batch several times, as one that samples does"


def test_labels_of_another_order_explain_a_loss_that_does_not_fall():
    """Asked of a training that does not learn, and of no other."""
    g = torch.Generator().manual_seed(0)
    kinds, y = torch.randn(4, 12, generator=g), torch.randint(0, 4, (400,), generator=g)
    x = kinds[y] + 0.3 * torch.randn(400, 12, generator=g)

    def train(labels):
        model = nn.Linear(12, 4)
        optimizer = torch.optim.SGD(model.parameters(), 0.02)
        for _ in range(12):
            for rows in torch.randperm(400).split(40):
                optimizer.zero_grad()
                F.cross_entropy(model(x[rows]), labels[rows]).backward()
                optimizer.step()

    torch.manual_seed(0)
    with mltd.record() as run:
        train(y[torch.randperm(400, generator=g)])
    diagnosis = mltd.diagnose(run)
    assert [f.id for f in diagnosis.roots] == ["model.unlearnable_labels"]
    assert "losses.plateau" in {f.id for f in diagnosis.symptoms_of(diagnosis.roots[0])}
    assert mltd.diagnose(run, only=["model.unlearnable_labels", "losses.plateau"]).roots[0].culprit == "labels"
    assert mltd.diagnose(run, only=["model.unlearnable_labels"]).ok
    assert why(probed(train, y), "unlearnable_labels") == "the training learns; this is asked of one that does not"


def test_what_cannot_be_probed_says_why():
    """A model that is slow, large, or cannot be copied; a defect of a probe costs nobody the other answers."""
    model = Reader()
    model.lock = __import__("threading").Lock()
    assert why(probed(read, model), "causal_leak").startswith("the model cannot be copied: TypeError")

    class Slow(Reader):
        def forward(self, ids):
            if not self.training:
                __import__("time").sleep(0.6)
            return super().forward(ids)

    assert why(probed(read, Slow()), "causal_leak").endswith("there is a second for all")


def test_a_large_model_is_not_copied(monkeypatch):
    """Its size is said."""
    monkeypatch.setattr(recorded, "_MOST_BYTES", 100)
    assert why(probed(read, Reader()), "causal_leak") == "the model holds 0 MB, too many for a copy"
