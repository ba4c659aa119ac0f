"""Names as the person who wrote the program would say them."""

import copy
import inspect

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytest_mltd.core.traces import Trace
from pytest_mltd.recording import sites
from pytest_mltd.recording.naming import Identities, Names, path_to
from pytest_mltd.recording.recorder import record

X = torch.randn(6, 3)


def trained(model, call=None, steps=1, **how):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    with record(**how) as run:
        for _ in range(steps):
            optimizer.zero_grad()
            (call(X) if call else model(X)).sum().backward()
            optimizer.step()
    assert run.trace.notes == ()
    return run.trace


def names(trace):
    return [p.name for p in trace.parameters]


def test_an_attribute_of_self_names_the_root():
    """self.model(x) in a Trainer: the root is "model"."""

    class Trainer:
        def __init__(self):
            self.model = nn.Linear(3, 1)
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

        def fit(self):
            self.model(X).sum().backward()
            self.optimizer.step()

    with record() as run:
        Trainer().fit()
    assert [m.name for m in run.trace.modules] == ["model"]
    assert names(run.trace) == ["weight", "bias"]


def test_a_loss_module_is_no_root():
    """criterion(model(x), y) has no parameters: it is no model and its inputs are no batch."""
    model, criterion = nn.Linear(3, 1), nn.MSELoss()
    trace = trained(model, lambda x: criterion(model(x), torch.zeros(6, 1)))
    assert [m.name for m in trace.modules if m.root] == ["model"]
    assert trace.of("batch").sum() == 1


def test_a_part_called_alone_first_is_taken_over_by_the_whole():
    """encoder(x) in a warm-up, then model(x) that holds it: the whole's names, without a prefix."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record() as run:
        model[0](X)
        model(X).sum().backward()
        optimizer.step()
    assert names(run.trace) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_two_roots_have_their_variables_in_front_also_for_what_was_written_before():
    """The second root appears after rows of the first were spooled: the names are corrected in the file."""
    one, two = nn.Linear(3, 1), nn.Linear(3, 1)
    first, second = torch.optim.SGD(one.parameters(), lr=0.1), torch.optim.SGD(two.parameters(), lr=0.1)
    with record() as run:
        one(X).sum().backward()
        first.step()
        assert names(run.trace) == ["weight", "bias"]
        two(X).sum().backward()
        second.step()
    assert set(names(run.trace)) == {"one.weight", "one.bias", "two.weight", "two.bias"}


def test_a_root_found_before_it_was_called_gets_its_variable_when_it_is():
    """One optimizer over two models: the second is found among the living modules at the first step."""
    one, two = nn.Linear(3, 1), nn.Linear(3, 1)
    optimizer = torch.optim.SGD([*one.parameters(), *two.parameters()], lr=0.1)
    with record() as run:
        one(X).sum().backward()
        optimizer.step()
        two(X).sum().backward()
        optimizer.step()
    assert names(run.trace) == ["one.weight", "one.bias", "two.weight", "two.bias"]
    assert sorted(m.name for m in run.trace.modules) == ["one", "two"]


def test_roots_of_one_name_are_numbered():
    """Layers called in a loop by one variable stay apart."""
    layers = [nn.Linear(3, 3) for _ in range(3)]
    optimizer = torch.optim.SGD([p for layer in layers for p in layer.parameters()], lr=0.1)
    with record() as run:
        x = X
        for layer in layers:
            x = layer(x)
        x.sum().backward()
        optimizer.step()
    assert {n.partition(".")[0] for n in names(run.trace)} == {"layer", "layer#2", "layer#3"}


def test_many_models_one_after_the_other_share_their_columns():
    """A search over fifty models does not make fifty times the columns, and holds the last eight."""

    def one():
        net = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        net(X).sum().backward()
        optimizer.step()

    with record() as run:
        for _ in range(50):
            one()
    assert run.trace.n_steps == 50
    assert len(run.roots) == 8
    assert len(run.trace.parameters) <= 2 * 10


def test_wrappers_leave_no_word_in_the_names():
    """DataParallel's "module." is not in the names."""
    model = nn.DataParallel(nn.Sequential(nn.Linear(3, 1)))
    assert names(trained(model)) == ["0.weight", "0.bias"]


@pytest.mark.parametrize("level", ["losses", "default"])
def test_forward_called_directly_is_named_all_the_same(level):
    """model.forward(x) fires no hook of the model itself; its owner is found among the living modules."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    trace = trained(model, lambda x: model.forward(x), level=level)
    assert {n.rpartition(".")[2] for n in names(trace)} == {"weight", "bias"}
    assert all(p.registered for p in trace.parameters)


def test_bare_tensors_are_named_by_the_line_that_made_the_optimizer():
    """SGD([w, b]) names its tensors."""
    w, b = torch.zeros(3, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
    with record() as run:
        optimizer = torch.optim.SGD([w, b], lr=0.1)
        (X @ w + b).sum().backward()
        optimizer.step()
    assert names(run.trace) == ["w", "b"]
    assert [p.registered for p in run.trace.parameters] == [False, False]


def test_an_optimizer_knows_the_line_that_made_it(tmp_path):
    """Also in the file; one made before the recording has no line, since nobody saw it."""
    model = nn.Linear(3, 1)
    before = torch.optim.Adam(model.parameters(), lr=0.1)
    with record(path=tmp_path / "run.mltd") as run:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        line = inspect.currentframe().f_lineno - 1
        model(X).sum().backward()
        optimizer.step()
        before.step()
    sites_of = {o.name: o.site for o in Trace.load(tmp_path / "run.mltd").optimizers}
    assert sites_of == {"SGD": f"tests/recording/test_naming.py:{line}", "Adam": ""}
    assert run.trace.notes == ()


def test_parameters_kept_in_a_list_are_named_by_it():
    """self.ws = [Parameter(...)] is in no module's parameters(), and is named by where it stands."""

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(3, 1)
            self.ws = [nn.Parameter(torch.ones(3, 3))]

        def forward(self, x):
            return self.out(x @ self.ws[0])

    trace = trained(Hidden())
    assert [p.name for p in trace.parameters if not p.registered] == ["ws[0]"]


def test_a_tied_weight_has_one_name():
    """The first of its names, as in named_parameters()."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    assert names(trained(Tied())) == ["a.weight", "a.bias", "b.bias"]


def test_modules_made_on_the_way_do_not_pile_up():
    """nn.ReLU()(x) inside forward makes a new module each time: one name, by class and line."""

    class Careless(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x):
            return nn.ReLU()(self.layer(x))

    trace = trained(Careless(), steps=5, level="everything")
    made = [m.name for m in trace.modules if m.kind == "ReLU"]
    assert len(made) == 1
    assert made[0].startswith("ReLU at ")
    assert "test_naming.py" in made[0]


def test_an_optimizer_of_another_copy_is_told_from_the_model():
    """The classic: the optimizer has a copy's parameters; the model's own are in none."""
    model = nn.Linear(3, 1)
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    with record() as run:
        model(X).sum().backward()
        optimizer.step()
    held = {p.name: p.optimizers for p in run.trace.parameters}
    assert held.pop("model.weight", held.pop("weight", None)) == ()
    assert sum(len(o) for o in held.values()) == 2


def test_lazy_modules_get_their_shapes():
    """A lazy layer has no shape when it is first seen."""
    model = nn.Sequential(nn.LazyLinear(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record() as run:
        model(X).sum().backward()
        optimizer.step()
    assert [p.shape for p in run.trace.parameters] == [(2, 3), (2,)]


def test_local_variables_are_never_read():
    """Reading a frame's locals would change a dictionary that the program keeps: ``config = locals()``."""

    def train(lr=0.1, width=3):
        config = locals()
        before = dict(config)
        model = nn.Linear(width, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        F.mse_loss(model(X), torch.zeros(6, 1)).backward()
        optimizer.step()
        return config == before

    with record():
        assert train()


def test_identities_forget_what_died():
    """An entry goes with its object; another object at the same address is not taken for it."""
    known = Identities()
    model = nn.Linear(1, 1)
    known.put(model, 5)
    assert known.get(model) == 5
    assert known.get(nn.Linear(1, 1)) is None
    del model
    assert len(known) == 0


def test_a_path_leads_through_lists_dicts_and_modules():
    """path_to gives what a person would write after the model's name."""
    model = nn.Module()
    model.kept = {"a": [nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1))]}
    assert path_to(model, model.kept["a"][1][0]) == "kept['a'][1].0"
    assert path_to(model, nn.Linear(1, 1)) == ""
    assert Names().parameter(model.kept["a"][0].weight) is None


def test_a_place_is_shown_relative_to_the_working_folder(tmp_path, monkeypatch):
    """Inside: relative; outside: the file with its folder."""
    monkeypatch.chdir(tmp_path)
    assert sites.shown((str(tmp_path / "a" / "train.py"), 3)) == "a/train.py:3"
    assert sites.shown(("/far/away/b/train.py", 4)) == "b/train.py:4"
    assert sites.shown(None) == ""


@pytest.mark.parametrize(
    ("expression", "name"),
    [("net", "net"), ("self.model", "model"), ("self", ""), ("nets[0]", "nets[0]"), ("make()", ""), ("", "")],
)
def test_a_plain_name_of_an_expression(expression, name):
    """What stands before the call, as far as a person would use it as a name."""
    assert sites.plain(expression) == name
