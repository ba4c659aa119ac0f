"""`seed_everything`: one seed for all generators, and everything as it was afterwards."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pytest_mltd.recording.seeds import restore, seed_everything, snapshot


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


class Noise(Dataset):
    """Draws from all three generators in the worker, as augmentations do."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, at: int) -> torch.Tensor:
        return torch.tensor(draw())


@pytest.fixture(autouse=True)
def _as_before():
    state = snapshot()
    yield
    restore(state)


class TestSeeding:
    def test_same_seed_draws_the_same_from_all_three_generators(self):
        """Python, numpy and torch repeat under one seed, and differ under another."""
        drawn = []
        for seed in (3, 3, 4):
            with seed_everything(seed):
                drawn.append(draw())
        assert drawn[0] == drawn[1]
        assert not set(drawn[0]) & set(drawn[2])

    def test_called_as_a_function_it_holds(self):
        """Without a block, the seed stays set."""
        seed_everything(5, deterministic=None)
        first = draw()
        seed_everything(5, deterministic=None)
        assert draw() == first

    @pytest.mark.parametrize("workers", [0, 2])
    def test_workers_of_a_loader_follow(self, workers):
        """Augmentation in the workers of a DataLoader repeats under the seed."""
        drawn = []
        for _ in range(2):
            with seed_everything(11):
                drawn.append(torch.cat(list(DataLoader(Noise(), batch_size=2, num_workers=workers))))
        assert torch.equal(*drawn)
        assert len(torch.unique(drawn[0])) == 24

    def test_numpy_integers_are_seeds(self):
        """A seed from an array is a seed."""
        with seed_everything(np.int64(3)) as seeding:
            assert type(seeding.seed) is int

    @pytest.mark.parametrize(
        ("seed", "error", "message"),
        [
            (-1, ValueError, "seed: an integer from 0 to 4294967295 is needed, not -1"),
            (2**32, ValueError, "seed: an integer from 0 to 4294967295 is needed, not 4294967296"),
            (1.0, TypeError, "seed: an integer is needed, not 1.0"),
            ("3", TypeError, "seed: an integer is needed, not '3'"),
            (None, TypeError, "seed: an integer is needed, not None"),
            (True, TypeError, "seed: an integer is needed, not True"),
        ],
    )
    def test_a_wrong_seed_is_refused_and_nothing_changed(self, seed, error, message):
        """Out of range or no integer: a sentence that names the argument, and no generator was touched."""
        before = snapshot()
        with pytest.raises(error) as caught:
            seed_everything(seed)
        assert str(caught.value) == message
        assert random.getstate() == before.python

    def test_a_wrong_wish_for_determinism_is_refused(self):
        """Only the three documented values are taken."""
        with pytest.raises(ValueError, match="^deterministic: 'warn', 'strict' or None is needed, not 'loose'$"):
            seed_everything(0, deterministic="loose")


class TestRestoring:
    def test_random_states_are_as_before(self):
        """The draw after the block is the draw that would have come without it."""
        state = snapshot()
        expected = draw()
        restore(state)
        with seed_everything(1):
            draw()
        assert draw() == expected

    def test_also_after_an_exception(self):
        """An error in the block changes nothing about the way back."""
        state = snapshot()
        expected = draw()
        restore(state)
        with pytest.raises(KeyboardInterrupt), seed_everything(1):
            raise KeyboardInterrupt
        assert draw() == expected

    def test_flags_and_environment_are_as_before(self, monkeypatch):
        """Determinism, cuDNN and cuBLAS settings hold in the block only."""
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
        with seed_everything(1):
            assert torch.get_deterministic_debug_mode() == 1
            assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert torch.get_deterministic_debug_mode() == 0
        assert torch.utils.deterministic.fill_uninitialized_memory
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (False, True)
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ

    def test_the_users_own_workspace_setting_stays(self, monkeypatch):
        """An environment variable that is set is left alone, in the block and after it."""
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        with seed_everything(1):
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"

    def test_too_late_for_cublas_is_said(self, monkeypatch):
        """When CUDA has started, the workspace setting would do nothing, and the note says what does."""
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_rng_state_all", list)
        monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: None)
        with seed_everything(1) as seeding:
            assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
        assert seeding.notes == [
            "CUDA had started before the seed was set: set CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment"
        ]

    def test_determinism_is_left_alone_on_request(self, monkeypatch):
        """``deterministic=None`` sets random states and nothing else."""
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
        with seed_everything(1, deterministic=None):
            assert torch.get_deterministic_debug_mode() == 0
            assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ

    def test_blocks_nest(self):
        """The inner block gives the outer one its generators back."""
        with seed_everything(1):
            expected = [draw(), draw()]
        with seed_everything(1):
            got = [draw()]
            with seed_everything(2):
                draw()
            got.append(draw())
        assert got == expected


class TestOperationsThatDoNotRepeat:
    def put(self) -> None:
        torch.zeros(4).put_(torch.tensor([0, 1]), torch.tensor([1.0, 2.0]))

    def test_they_are_noted_and_run(self):
        """Under -W error too, an operation without a deterministic form runs; it is noted once and shown once."""
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("error")
            with seed_everything(0) as seeding:
                self.put()
                self.put()
        assert seeding.operations == ("put_",)
        assert len(shown) == 1

    def test_other_warnings_are_what_they_were(self):
        """A warning about anything else stays an error where the project made it one."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with seed_everything(0) as seeding, pytest.raises(UserWarning, match="another matter"):
                warnings.warn("another matter", UserWarning, stacklevel=1)
        assert seeding.operations == ()

    def test_strict_raises(self):
        """``deterministic="strict"`` stops at the operation."""
        with seed_everything(0, deterministic="strict"), pytest.raises(RuntimeError, match="put_ does not have a det"):
            self.put()

    def test_memory_is_not_filled(self):
        """Fresh memory keeps what it holds: a program must see the numbers it has without us."""
        with seed_everything(0):
            assert not torch.utils.deterministic.fill_uninitialized_memory


class TestLateImports:
    def run(self, code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
        )
        return done.stdout

    def test_nothing_heavy_is_imported_for_a_seed(self):
        """Seeding alone imports neither torch nor numpy."""
        out = self.run(
            """
            import sys
            from pytest_mltd.recording.seeds import seed_everything, snapshot
            with seed_everything(1):
                snapshot()
            print(sorted({"torch", "numpy"} & set(sys.modules)))
            """
        )
        assert out == "[]\n"

    def test_what_is_imported_later_is_seeded_then_and_given_back(self):
        """A program that imports numpy and torch inside the block draws as if they had been there before."""
        out = self.run(
            """
            import sys
            from pytest_mltd.recording.seeds import seed_everything
            before = list(sys.meta_path)
            with seed_everything(3):
                import importlib.util
                assert importlib.util.find_spec("torch")  # looking is not importing
                import numpy, torch
                late = float(numpy.random.rand()), float(torch.rand(())), torch.get_deterministic_debug_mode()
            assert sys.meta_path == before, sys.meta_path
            assert torch.get_deterministic_debug_mode() == 0
            after = torch.initial_seed()
            with seed_everything(3):
                early = float(numpy.random.rand()), float(torch.rand(())), torch.get_deterministic_debug_mode()
            assert early == late, (early, late)
            print(after)
            """
        )
        assert out.strip() != "3"  # torch began with a seed of its own, and has it again

    def test_a_seed_that_nothing_followed_leaves_no_trace(self):
        """The import hook goes with the block."""
        before = list(sys.meta_path)
        hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name == "torch"}
        try:
            with seed_everything(3):
                assert len(sys.meta_path) == len(before) + 1
        finally:
            sys.modules.update(hidden)
        assert sys.meta_path == before


def test_a_thousand_seeds_do_not_pile_up():
    """A program that seeds in its loop is shown a warning as before, at no depth."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        for _ in range(1500):
            seed_everything(1)
        warnings.warn("seen", UserWarning, stacklevel=1)
    assert [str(w.message) for w in shown] == ["seen"]
    torch.set_deterministic_debug_mode("default")
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.backends.cudnn.deterministic = False
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
