"""Is a training the same twice, and if not, why? Faulty programs with their twins, and healthy ones that look like them."""

import os
import random
import subprocess
import sys
import textwrap

import pytest
import torch

from pytest_mltd.core.findings import CheckFailed, NotAsked
from pytest_mltd.probes import children, determinism
from pytest_mltd.probes.determinism import assert_reproducible, check_reproducible

FAULTY = {  # program: (class of cause, words in the message)
    "seed_from_uuid": ("seed", ["torch.manual_seed is given another value each run", "overwritten after seeding"]),
    "numpy_seed_from_clock": ("seed", ["numpy.random.seed", "seed taken from the clock", "time.time_ns at"]),
    "seed_from_process": ("seed", ["random.seed is given another value each run"]),
    "noise_from_the_system": ("entropy", ["the system's entropy at"]),
    "order_from_the_system": ("entropy", ["the system's entropy at"]),
    "own_python_generator": ("unseeded generator", ["random.Random() without a seed at"]),
    "dropout_with_own_generator": ("unseeded generator", ["unseeded random generator: numpy.random.default_rng()"]),
    "resumes_from_last_checkpoint": ("file", ["run 2 read 'last.pt', which run 1 wrote"]),
    "reads_a_cache_it_wrote": ("file", ["run 2 read 'statistics.npy', which run 1 wrote"]),
    "batches_from_racing_threads": ("input order", ["same batches come in another order"]),
    "workers_with_unseeded_generators": ("inputs", ["random states match before the batch", "worker processes"]),
    "stops_by_the_clock": ("length", ["runs agree up to step", "time.perf_counter"]),
    "evaluation_on_an_unseeded_sample": ("unseeded generator", ["numpy.random.default_rng()", "val_loss"]),
    "files_in_order_of_their_random_names": ("entropy", ["uuid.uuid4 at"]),
}
HEALTHY = (
    "prints_and_returns_times returns_a_pair_with_its_duration writes_files_of_its_own names_its_run_at_random "
    "draws_from_a_generator_made_at_import trains_a_model_made_at_import shuffles_with_workers "
    "uses_a_set_whose_order_stays_inside caches_what_does_not_change draws_everything_from_the_seeded_generators "
    "trains_no_network"
).split()


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_program_is_found_with_its_cause(programs, name):
    """Each program that differs from run to run fails, with the class of its cause and the words that name it."""
    finding = check_reproducible(getattr(programs("irreproducible"), name))
    cause, words = FAULTY[name]
    assert finding.failed
    assert finding.details["cause"] == cause, str(finding)
    for word in words:
        assert word in str(finding)


@pytest.mark.parametrize("name", FAULTY)
def test_its_repaired_twin_passes(programs, name):
    """The same program with only the fault repaired is the same twice."""
    program = getattr(programs("irreproducible"), name)
    finding = check_reproducible(lambda: program(fixed=True))
    assert finding.ok, str(finding)
    assert finding.asked


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_program_passes(programs, name):
    """Clocks, files, names, sets and caches that do not decide the result raise no alarm."""
    finding = check_reproducible(getattr(programs("healthy"), name))
    assert finding.ok, str(finding)
    assert finding.asked


def test_what_follows_the_hash_seed_is_found_between_interpreters(programs):
    """Forks share one hash seed, so a program that lets the order of a set out is asked in fresh interpreters too."""
    finding = check_reproducible(programs("hashing").class_indices_from_a_set)
    assert finding.details["cause"] == "hash seed"
    assert "it follows Python's hash seed (the order of a set, or hash() of a text)" in finding.headline


@pytest.mark.slow
def test_hash_of_text_and_the_repaired_twins(programs):
    """`hash` of a text is found; the twins pass in fresh interpreters too, and that is said."""
    hashing = programs("hashing")
    assert check_reproducible(hashing.buckets_from_hash_of_text).details["cause"] == "hash seed"
    program = hashing.class_indices_from_a_set
    finding = check_reproducible(lambda: program(fixed=True))
    assert finding.ok
    assert "also equal in fresh interpreters under two hash seeds" in finding.looked_at


class TestMessage:
    def test_the_whole_text(self, monkeypatch, tmp_path):
        """The message is complete: what, where, both values, what it shows, what to do."""
        (tmp_path / "train.py").write_text(
            textwrap.dedent(
                """
                import time, torch
                def train():
                    torch.manual_seed(time.time_ns() % 2**31)
                    w = torch.nn.Linear(2, 1)
                    o = torch.optim.SGD(w.parameters(), lr=0.1)
                    w(torch.randn(4, 2)).pow(2).mean().backward()
                    o.step()
                """
            )
        )
        monkeypatch.syspath_prepend(tmp_path)
        import train

        text = str(check_reproducible(train.train, seed=3))
        head, *rest = text.splitlines()
        assert head.startswith(
            "runs.divergence: not reproducible: torch.manual_seed is given another value each run at train.py:4, seed taken "
            "from the clock (time.time_ns at the same line); "
        )
        assert "    next: seed from an argument or a constant, not from the clock, the process or the system" in rest
        assert any("torch.manual_seed was given" in line and "in run 1" in line for line in rest)

    def test_the_assertion_raises_it(self, programs):
        """`assert_reproducible` raises what the check says, and returns nothing where it holds."""
        faulty = programs("irreproducible")
        with pytest.raises(CheckFailed, match="unseeded random generator") as error:
            assert_reproducible(faulty.dropout_with_own_generator, seed=5)
        assert error.value.findings[0].details["seed"] == 5
        assert assert_reproducible(lambda: faulty.dropout_with_own_generator(fixed=True)) is None


class TestTheUsersProcess:
    def test_it_is_left_as_it_was(self, programs):
        """Random states, modules and files of the calling process are untouched; the runs' files are gone."""
        healthy, before = programs("healthy"), (random.getstate(), torch.get_rng_state())
        weights = healthy.MODEL.weight.clone()
        temporary = set(os.listdir("/tmp")) if os.path.isdir("/tmp") else set()
        check_reproducible(healthy.trains_a_model_made_at_import)
        assert random.getstate() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])
        assert torch.equal(healthy.MODEL.weight, weights)
        assert not [name for name in set(os.listdir("/tmp")) - temporary if name.startswith("mltd-runs-")]

    def test_a_file_that_was_there_is_not_changed(self, tmp_path):
        """A run that is about to overwrite an older file is stopped, and the question is not answered with a pass."""
        kept = tmp_path / "best.txt"
        kept.write_text("precious")
        os.utime(kept)
        import time

        time.sleep(0.1)
        finding = check_reproducible(lambda: kept.write_text("other"))
        assert not finding.asked
        assert "a run was stopped before it changed 'best.txt'" in finding.headline
        assert kept.read_text() == "precious"
        with pytest.raises(NotAsked):
            assert_reproducible(lambda: kept.write_text("other"))

    def test_a_process_that_ran_torch_on_several_threads(self):
        """Its forks would hang; they are made to run on one thread, and that is said."""
        program = """
            import torch
            torch.set_num_threads(2)
            torch.zeros(1 << 20).add_(1).sum()
            torch.mm(torch.zeros(400, 400), torch.zeros(400, 400))
            from pytest_mltd.probes.determinism import check_reproducible
            finding = check_reproducible(lambda: torch.randn(1 << 18).sum())
            print(finding.ok, finding.looked_at, torch.get_num_threads())
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120, check=True
        )
        assert done.stdout.startswith("True")
        assert "on one thread: torch has run on several in this process" in done.stdout
        assert done.stdout.rstrip().endswith("2")


class TestInOneProcess:
    def test_what_is_carried_over_is_found_on_request(self, programs):
        """A module's cache that grows is no difference between processes; within one it is, and it is named."""
        program = programs("irreproducible").remembers_in_a_module
        assert check_reproducible(program).ok
        finding = check_reproducible(program, in_process=True)
        assert finding.details["cause"] == "carried over"
        assert "state is carried over in the process: mltd_programs_irreproducible.CACHE changed" in finding.headline
        assert check_reproducible(lambda: program(fixed=True), in_process=True).ok

    def test_without_forks_the_runs_are_made_here(self, programs, monkeypatch):
        """Where nothing else is possible both runs are made in this process, and what that cannot tell is said."""
        monkeypatch.setattr(children, "forbids_fork", lambda: "a fork is not safe on this system")
        own = [random.Random(1)]  # exists only here, so no fresh interpreter can have it
        finding = check_reproducible(lambda: {"loss": own[0].random() + random.random()})
        assert finding.ok
        assert "a fork is not safe on this system, so both ran in this process" in finding.looked_at
        count = [object()]
        carried = check_reproducible(lambda: count.append(1) or {"loss": float(len(count))})
        assert carried.failed
        assert "cannot be told from a training that differs" in carried.shows

    @pytest.mark.slow
    def test_without_forks_fresh_interpreters_are_used_where_possible(self, programs, monkeypatch):
        """A function that can be found again is run in new interpreters with one hash seed."""
        monkeypatch.setattr(children, "forbids_fork", lambda: "a fork is not safe on this system")
        finding = check_reproducible(programs("hashing").class_indices_from_a_set)
        assert finding.ok
        assert "so each run had a fresh interpreter" in finding.looked_at


class TestAsking:
    def test_the_seed_reaches_a_parameter_of_that_name(self):
        """A function with a parameter `seed` is given it; all generators are seeded for the others."""
        seen = check_reproducible(lambda seed: {"loss": float(seed) + torch.rand(()).item()}, seed=9)
        assert seen.ok
        assert seen.details["seed"] == 9

    def test_steps_cut_each_run(self, programs):
        """With `steps` each run ends after so many optimizer steps."""
        healthy = programs("healthy")
        finding = check_reproducible(lambda: healthy.fit(torch.nn.Linear(5, 3), healthy.batches(1000)), steps=3)
        assert finding.ok
        assert "3 steps of both" in finding.looked_at

    def test_nothing_to_compare_is_not_asked(self):
        """A function that neither trains nor returns a number is no pass."""
        finding = check_reproducible(lambda: None)
        assert not finding.asked
        assert "nothing to compare" in finding.headline

    def test_an_allowed_difference_passes(self, programs):
        """A difference that a person allowed at its place passes, with the reason."""
        program = programs("irreproducible").noise_from_the_system
        assert check_reproducible(program, allow={"runs.divergence": "noise wanted"}).ok

    def test_a_second_run_that_raises_is_a_difference(self):
        """A program that gets through once only is named for it."""

        def train():
            os.mkdir("out")
            return 1.0

        finding = check_reproducible(train)
        assert finding.failed
        assert "run 1 came to its end, run 2 raised FileExistsError" in finding.headline

    def test_a_training_that_raises(self):
        """An error of the training is told with its traceback, naming the argument."""

        def train():
            raise RuntimeError("no data")

        with pytest.raises(ValueError, match=r"(?s)^train: it raised.*RuntimeError: no data"):
            check_reproducible(train)

    def test_a_training_that_dies(self):
        """A process that is killed is told as such."""
        with pytest.raises(
            ValueError, match="^train: its process did not come to its end: the process died of SIGKILL"
        ):
            check_reproducible(lambda: os.kill(os.getpid(), 9))

    @pytest.mark.parametrize(
        ("train", "keywords", "message"),
        [
            (3, {}, "train: a function is needed"),
            (dict, {}, "train: a function is needed"),
            (lambda x: x, {}, r"train: it needs x; wrap the call: lambda: train\(x\)"),
            ((i for i in ()).__iter__, {"seed": -1}, "seed: a whole number from 0"),
            (lambda: 1, {"seed": 0.5}, "seed: a whole number from 0"),
            (lambda: 1, {"steps": 0}, "steps: at least 1"),
            (lambda: 1, {"interpreter": "moon"}, "interpreter: 'fork', 'fresh', 'here' or None"),
        ],
    )
    def test_bad_arguments(self, train, keywords, message):
        """Each refusal begins with the argument's name and says what is needed."""
        with pytest.raises((TypeError, ValueError), match=f"^{message}"):
            check_reproducible(train, **keywords)

    def test_coroutines_and_generators_are_refused(self):
        """A function that does nothing when called would be equal to itself."""

        async def one():
            pass

        def two():
            yield

        for function in (one, two):
            with pytest.raises(TypeError, match="^train: a plain function is needed"):
                check_reproducible(function)

    def test_listeners_hear_one_finding(self, programs):
        """Whoever listens hears the answer once, and not the comparison within."""
        from pytest_mltd.core.asking import listening

        heard = []
        with listening(heard):
            check_reproducible(programs("irreproducible").noise_from_the_system)
        assert [f.details["cause"] for f in heard] == ["entropy"]
        assert determinism.ID == heard[0].id == "runs.divergence"


@pytest.mark.parametrize("in_process", [False, True])
def test_an_error_of_the_training_shows_the_users_frames_only(in_process):
    """What `train` raised stands there from its own first line; how it was called is nobody's business."""

    def broken():
        model = torch.nn.Linear(2, 1)
        model(torch.ones(1, 3))

    with pytest.raises(ValueError, match="^train: it raised") as caught:
        assert_reproducible(broken, in_process=in_process)
    said = str(caught.value)
    assert "in broken" in said
    assert "shapes cannot be multiplied" in said
    assert os.path.join("pytest_mltd", "") not in said
    shown = [entry.path.name for entry in caught.traceback.filter(caught)]
    assert shown == ["test_determinism.py"]
