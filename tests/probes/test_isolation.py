"""A probe of a live recording leaves alone all that a forward may reach, whatever the forward does."""

import contextlib
import logging
import queue
import random
import signal
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pytest_mltd as mltd


class Reader(nn.Module):
    """A recurrent language model that sees the future, so that it is asked in earnest."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(8, 8)
        self.rnn = nn.GRU(8, 8, batch_first=True, bidirectional=True)
        self.out = nn.Linear(16, 8)

    def answer(self, ids):
        return self.out(self.rnn(self.emb(ids))[0])

    def forward(self, ids):
        return self.answer(ids)


def recorded(model, *args):
    """Record three steps of a model."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    ids = torch.randint(0, 8, (4, 7))
    with mltd.record() as run:
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(ids[:, :-1], *args).flatten(0, 1), ids[:, 1:].flatten()).backward()
            optimizer.step()
    return run


def leak(run):
    """Return the finding about the future: one that failed, or the reason why it was not asked."""
    diagnosis = mltd.diagnose(run, only="model.causal_leak")
    return (*(f.id for f in diagnosis.failed), *(f.looked_at for f in diagnosis.not_asked))


FOUND = ("model.causal_leak",)
CALLS = 0
SEEN = []
NESTED = {"meter": {"n": 0}}
GENERATOR = torch.Generator()
RNG = np.random.default_rng(0)
DICE = random.Random(0)
RUNNING = torch.zeros(3)
TABLE = np.zeros(3)
BACKBONE = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(6))


def helper():
    """Count in the module's own globals, one call further down."""
    NESTED["meter"]["n"] += 1
    RUNNING.add_(1)


class UsesGlobals(Reader):
    calls = 0

    def forward(self, ids):
        global CALLS
        CALLS += 1
        type(self).calls += 1
        SEEN.append(1)
        helper()
        TABLE[0] += 1
        noise = RNG.random() + DICE.random() + torch.rand((), generator=GENERATOR)
        return self.answer(ids) + 0 * noise


def test_what_its_code_keeps_in_globals_is_put_back():
    """Counters, lists, arrays, class attributes and generators are as before the question, and it was asked."""

    def state():
        numbers = CALLS, UsesGlobals.calls, len(SEEN), NESTED["meter"]["n"], RUNNING.tolist(), TABLE.tolist()
        return numbers, GENERATOR.get_state().tolist(), RNG.bit_generator.state, DICE.getstate()

    run = recorded(UsesGlobals())
    before = state()
    assert leak(run) == FOUND
    assert state() == before
    assert CALLS >= 3


def test_what_a_forward_is_given_is_copied():
    """An object of the program's own among the arguments does not hear of the probe."""

    class Meter:
        n = 0

    class Counting(Reader):
        def forward(self, ids, meter):
            meter.n += 1
            return self.answer(ids)

    meter = Meter()
    assert leak(recorded(Counting(), meter)) == FOUND
    assert meter.n == 3


@pytest.mark.parametrize("name", ["logger", "trainer"])
def test_an_object_of_the_programs_own_is_copied_whatever_its_name(name):
    """Only a training framework's own trainer is shared with the copy."""

    class Writer:
        n = 0

    class Logging(Reader):
        def forward(self, ids):
            getattr(self, name).n += 1
            return self.answer(ids)

    model = Logging()
    setattr(model, name, Writer())
    assert leak(recorded(model)) == FOUND
    assert getattr(model, name).n == 3


def test_a_forward_that_was_replaced_by_a_closure_is_not_run():
    """It would run the model itself, in train mode, with its batch norm."""
    model = Reader()
    inner, calls = model.forward, []

    def timed(*args):
        calls.append(1)
        return inner(*args)

    model.forward = timed
    (reason,) = leak(recorded(model))
    assert reason == "'forward' of the model is a function that holds a module, of which there is no copy"
    assert len(calls) == 3


def test_another_model_that_it_runs_is_not_run():
    """A backbone in a global has no copy: its batch norm counts what the program gave it, and no more."""

    class Headed(Reader):
        def answer(self, ids):
            return self.out(self.rnn(BACKBONE(self.emb(ids)))[0])

    (reason,) = leak(recorded(Headed()))
    assert "it runs a Linear that is not part of it" in reason
    assert BACKBONE[1].num_batches_tracked == 3


def test_layers_in_a_plain_list_are_part_of_it():
    """They are copied with it, though no one registered them."""

    class Listed(Reader):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(8, 8)]

        def answer(self, ids):
            return self.out(self.rnn(self.layers[0](self.emb(ids)))[0])

    assert leak(recorded(Listed())) == FOUND


@pytest.mark.parametrize("how", ["open", "append", "torch", "numpy", "mkdir"])
def test_files_stay_as_they_are(how, tmp_path):
    """A forward that writes is refused before it does, also by what would write in C++; its own handlers do not hide that."""
    path = tmp_path / "out.bin"
    writes = {
        "open": lambda: path.write_bytes(b"x"),
        "append": lambda: open(path, "a").close(),
        "torch": lambda: torch.save([1], path),
        "numpy": lambda: np.save(path.with_suffix(".npy"), np.zeros(1)),
        "mkdir": lambda: (tmp_path / "folder").mkdir(exist_ok=True),
    }

    class Writing(Reader):
        def forward(self, ids):
            try:
                writes[how]()
            except Exception:
                pass
            return self.answer(ids)

    run = recorded(Writing())
    for made in tmp_path.iterdir():
        made.rmdir() if made.is_dir() else made.unlink()
    (reason,) = leak(run)
    assert reason.startswith("the model does more than answer: ")
    assert list(tmp_path.iterdir()) == []
    writes[how]()
    assert list(tmp_path.iterdir()) != [], "the program itself writes as ever"


def test_its_log_hears_nothing(caplog):
    """Nor is logging off afterwards."""

    class Logging(Reader):
        def forward(self, ids):
            logging.getLogger("program").warning("called")
            return self.answer(ids)

    run = recorded(Logging())
    caplog.clear()
    assert leak(run) == FOUND
    assert caplog.records == []
    logging.getLogger("program").warning("called")
    assert len(caplog.records) == 1


def test_a_recording_around_it_hears_nothing():
    """Its calls are those of the program: no eval, no forward and no seed of the probe's."""
    with mltd.record() as outer:
        run = recorded(Reader())
        before = {name: len(column) for name, column in outer.trace.calls.items()}
        assert leak(run) == FOUND
        assert {name: len(column) for name, column in outer.trace.calls.items()} == before


def test_a_forward_that_ends_the_program_does_not():
    """SystemExit of the copy is a reason, and no more."""

    class Ending(Reader):
        calls = 0

        def forward(self, ids):
            self.calls += 1
            if self.calls > 3:
                raise SystemExit("over")
            return self.answer(ids)

    assert leak(recorded(Ending())) == ("the model's copy raised SystemExit: over",)


def test_a_copy_that_is_the_model_is_not_run():
    """A model may say of itself that it is copied by being handed on."""

    class Single(Reader):
        def __deepcopy__(self, memo):
            return self

    model = Single()
    heard = []
    model.register_forward_hook(lambda *event: heard.append(1))
    assert leak(recorded(model)) == ("the model's copy is the model itself",)
    assert (len(heard), model.training, len(model._forward_hooks)) == (3, True, 1)


def test_what_cannot_be_copied_says_why():
    """A lock, say."""
    model = Reader()
    model.lock = threading.Lock()
    assert "the model cannot be copied: TypeError" in leak(recorded(model))[0]


def test_a_model_that_was_slow_in_the_run_is_not_run_again(monkeypatch):
    """Its forward took longer than all questions may."""
    run = recorded(Reader())
    assert 0 < run.forward_seconds < 1
    monkeypatch.setattr(type(run), "forward_seconds", 2.5)
    assert leak(run) == ("a forward took 2.5 s in the run, and there is a second for all",)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no alarm")
def test_a_forward_that_waits_for_ever_is_ended(monkeypatch):
    """What it waits for does not come after the training; the alarm is then as before."""
    from pytest_mltd.probes import isolation

    monkeypatch.setattr(isolation, "_MOST_SECONDS", 0.2)
    items = queue.Queue()

    class Waiting(Reader):
        def forward(self, ids):
            items.get(timeout=60)  # a failure shall be red, and not for ever
            return self.answer(ids)

    for _ in range(3):
        items.put(1)
    assert leak(recorded(Waiting())) == ("the model does more than answer: it was not through after 0.2 s",)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no alarm")
def test_a_forward_that_catches_the_alarm_once_is_ended_all_the_same(monkeypatch):
    """As a finalizer does that it happens to meet, of which Python only says that it was ignored."""
    from pytest_mltd.probes import isolation

    monkeypatch.setattr(isolation, "_MOST_SECONDS", 0.2)
    items = queue.Queue()

    class Stubborn(Reader):
        def forward(self, ids):
            with contextlib.suppress(BaseException):
                items.get(timeout=10)
            items.get(timeout=10)
            return self.answer(ids)

    for _ in range(6):
        items.put(1)
    assert leak(recorded(Stubborn())) == ("the model does more than answer: it was not through after 0.2 s",)


def test_what_takes_long_to_copy_is_given_up(monkeypatch):
    """Once, and not by each question again."""
    from pytest_mltd.probes import copies
    from pytest_mltd.probes import recorded as asked

    monkeypatch.setattr(asked, "_MOST_SECONDS", -1.0)
    monkeypatch.setattr(type(run := recorded(Reader())), "forward_seconds", -2.0)
    model = run.batch_model
    model.samples = [[i] for i in range(5000)]
    tries = []
    monkeypatch.setattr(copies, "copied", lambda *a, was=copies.copied: tries.append(1) or was(*a))
    diagnosis = mltd.diagnose(run, only="model.*")
    assert "to copy what the model holds takes too long" in {f.looked_at for f in diagnosis.not_asked}
    assert len(tries) == 1


def test_only_the_first_items_of_a_long_list_are_looked_at():
    """A dataset in an attribute has millions; to go through them all takes seconds."""
    from pytest_mltd.probes import copies

    looked = []

    class Sample(dict):
        def values(self):
            looked.append(1)
            return super().values()

    model = Reader()
    model.samples = [Sample(x=1) for _ in range(copies._MOST_ITEMS + 500)]
    copies.size(model)
    assert 0 < len(looked) < copies._MOST_ITEMS
    model.state = torch.ones(2, requires_grad=True) * 2
    looked.clear()
    copies.copied(model)
    assert 0 < len(looked) < copies._MOST_ITEMS


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's own compiler
def test_a_compiled_part_is_not_compiled_again():
    """To compile it anew for each copy takes seconds."""
    torch._dynamo.reset()
    model = Reader()
    model.out = torch.compile(model.out, backend="eager")
    run = recorded(model)
    frames = torch._dynamo.utils.counters["frames"]["total"]
    assert leak(run) == FOUND
    assert torch._dynamo.utils.counters["frames"]["total"] == frames
    torch._dynamo.reset()
