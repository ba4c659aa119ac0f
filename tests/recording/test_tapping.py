"""What a program gives to its own logger is in the trace, and the logger is none the wiser."""

import sys

import numpy as np
import pytest
import torch

import pytest_mltd as mltd

WRITER = """
class SummaryWriter:
    def __init__(self):
        self.written = []

    def add_scalar(self, tag, scalar_value, global_step=None, walltime=None):
        if tag == "bad":
            raise ValueError("the logger's own error")
        self.written.append((tag, scalar_value, global_step))

    def add_scalars(self, main_tag, tag_scalar_dict, global_step=None):
        for name, value in tag_scalar_dict.items():
            self.add_scalar(main_tag + "/" + name, value, global_step)
"""
TRAINER = """
import tensorboardX.writer


class Trainer:
    def __init__(self):
        self.writer = tensorboardX.writer.SummaryWriter()

    def log(self, logs, start_time=None):
        for name, value in logs.items():
            if isinstance(value, float):
                self.writer.add_scalar("train/" + name, value)
        return "logged"
"""


@pytest.fixture
def loggers(tmp_path, monkeypatch):
    """Packages of the loggers' names, not yet imported."""
    for package, module, text in (("tensorboardX", "writer", WRITER), ("transformers", "trainer", TRAINER)):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
        (tmp_path / package / f"{module}.py").write_text(text)
        for name in (package, f"{package}.{module}"):
            monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("tensorboardX", "tensorboardX.writer", "transformers", "transformers.trainer"):
        sys.modules.pop(name, None)


def _writer():
    from tensorboardX.writer import SummaryWriter

    return SummaryWriter


def _step():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()


@pytest.mark.parametrize("imported_before", [True, False])
def test_a_scalar_is_kept_under_its_name_at_the_steps_that_were_done(loggers, imported_before):
    """Whether the program had imported its logger before the recording, or imports it inside."""
    if imported_before:
        _writer()
    with mltd.record() as run:
        writer = _writer()()
        _step()
        writer.add_scalar("val/loss", torch.tensor(0.5, requires_grad=True), 700)
        _step()
        writer.add_scalar(scalar_value=np.float32(0.25), tag="val/loss", global_step=800)
    steps, values = run.trace.scalars("val/loss")
    assert (steps.tolist(), values.tolist()) == ([1, 2], [0.5, 0.25])
    assert [(tag, at) for tag, _, at in writer.written] == [("val/loss", 700), ("val/loss", 800)]


def test_several_scalars_at_once_are_told_once(loggers):
    """A logger that calls another one, as frameworks do, states each number once, under the outermost name."""
    with mltd.record() as run:
        from transformers.trainer import Trainer

        assert Trainer().log({"loss": 0.5, "note": "text", "many": [1, 2]}) == "logged"
        _writer()().add_scalars("acc", {"train": 1, "val": 0.5})
    assert sorted(run.trace.names) == sorted({"acc/train", "acc/val", "loss", *run.trace.names} - {"train/loss"})
    assert run.trace.scalars("loss")[1].tolist() == [0.5]
    assert run.trace.scalars("acc/val")[1].tolist() == [0.5]
    assert run.trace.scalars("acc/train")[1].tolist() == [1.0]


def test_the_loggers_own_errors_stay_its_own(loggers):
    """What it raises passes through, nothing is kept of it, and the next number is heard again."""
    with mltd.record() as run:
        writer = _writer()()
        with pytest.raises(ValueError, match="the logger's own error"):
            writer.add_scalar("bad", 1.0)
        with pytest.raises(TypeError):
            writer.add_scalar()
        writer.add_scalar("good", 1.0)
    assert run.trace.scalars("good")[1].tolist() == [1.0]
    assert not run.trace.scalars("bad")[1].size


def test_what_is_no_number_is_left_to_the_logger(loggers):
    """Vectors, texts and flags are written by the logger and not kept."""
    with mltd.record() as run:
        writer = _writer()()
        for value in (torch.ones(2), "0.5", True, None, np.ones(3), object()):
            writer.add_scalar("odd", value)
        writer.add_scalar("odd", np.float64(2.0))
        writer.add_scalar("odd", torch.ones(1, 1))
    assert run.trace.scalars("odd")[1].tolist() == [2.0, 1.0]
    assert len(writer.written) == 8


@pytest.mark.parametrize("imported_before", [True, False])
def test_nothing_is_left_behind(loggers, imported_before):
    """After the block, also after an exception in it, the class and the finders of modules are as they were."""
    original = _writer().add_scalar if imported_before else None
    finders = list(sys.meta_path)
    with pytest.raises(RuntimeError), mltd.record():
        _writer()
        raise RuntimeError
    assert sys.meta_path == finders
    found = _writer().add_scalar
    assert not hasattr(found, "__wrapped__")
    assert original in (None, found)
