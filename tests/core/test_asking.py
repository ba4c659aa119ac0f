"""How a question is asked: ids, twins, allowances, the project's policy, and who is listening."""

import inspect
import pickle
import sys
import threading
import types

import pytest

from pytest_mltd.core import asking
from pytest_mltd.core.asking import Policy, ask_all, asserting, check, check_allow, discover, info, sift, umbrella
from pytest_mltd.core.extras import MissingExtra
from pytest_mltd.core.findings import CheckFailed, Finding, NotAsked, diagnose_findings, not_asked


@check("run", explains=("losses.*",), rank=20, family="gradients")
def check_explosion(run, *, max_growth: float = 50.0, warmup: int = 5, loud: bool = False, allow=None) -> Finding:
    """Ask whether the largest number exceeds ``max_growth``."""
    places, allowed = sift(allow, run)
    if not places:
        return Finding(ok=True, headline="nothing left to judge", allowed=allowed)
    worst = max(places, key=lambda p: run[p])
    headline = f"'{worst}' grew {run[worst]:g} times (max_growth={max_growth:g})"
    return Finding(
        ok=run[worst] <= max_growth, headline=headline, culprit=worst, allowed=allowed, looked_at=f"warmup {warmup!r}"
    )


@check("run", family="losses")
def check_plateau(run, *, window: int = 10) -> Finding:
    """Ask nothing much; takes no ``allow`` of its own."""
    return Finding(ok=False, headline="flat", culprit="loss")


assert_no_explosion = asserting(check_explosion)


@umbrella
def check_everything(run, *, skip=(), **limits):
    """Ask both questions."""
    return diagnose_findings("run", ask_all([check_explosion, check_plateau], run, skip=skip, **limits))


assert_everything = asserting(check_everything)
BAD, GOOD = {"head": 80.0, "body": 2.0}, {"head": 1.0}


class TestCheck:
    def test_it_stamps_what_the_decorator_knows(self):
        """The id is family and fault; rank and explanations ride on the finding."""
        finding = check_explosion(BAD)
        assert (finding.id, finding.rank, finding.explains) == ("gradients.explosion", 20, ("losses.*",))
        assert info(check_explosion).limits == {"max_growth": 50.0, "warmup": 5}

    def test_the_family_is_the_module_unless_said(self):
        """A check in `checks/runs/gradients.py` needs to say nothing."""
        module = types.ModuleType("a.b.metrics")
        exec("def check_drop(data, *, allow=None): ...", module.__dict__)
        module.check_drop.__module__ = "a.b.metrics"
        assert info(check("metrics")(module.check_drop)).id == "metrics.drop"

    def test_another_name_is_refused(self):
        """The id names the fault, so the function must."""

        def explosion(run): ...

        with pytest.raises(TypeError, match="^function: a check is named check_<fault>, not 'explosion'"):
            check("run")(explosion)

    def test_a_plain_function_has_no_info(self):
        """Asking a function that is no check says so."""
        with pytest.raises(TypeError, match="^function: 'len' is not a check"):
            info(len)


class TestAsserting:
    def test_it_passes_and_fails_with_the_finding(self):
        """Green returns None, red raises with the whole message."""
        assert assert_no_explosion(GOOD) is None
        with pytest.raises(CheckFailed, match=r"^gradients.explosion: 'head' grew 80 times \(max_growth=50\)"):
            assert_no_explosion(BAD)

    def test_the_twin_has_the_same_arguments_and_says_it_returns_nothing(self):
        """Editors and `help` see the check's own signature."""
        assert str(inspect.signature(assert_no_explosion)) == str(inspect.signature(check_explosion))
        assert assert_no_explosion.__annotations__["return"] == "None"
        assert assert_no_explosion.__name__ == "assert_no_explosion"
        assert assert_everything.__name__ == "assert_everything"
        assert asserting(check_everything, "assert_all_good").__name__ == "assert_all_good"

    def test_check_and_twin_pickle_by_name(self):
        """Both can be sent to a worker."""
        assert pickle.loads(pickle.dumps(assert_no_explosion)) is assert_no_explosion
        assert pickle.loads(pickle.dumps(check_explosion)) is check_explosion

    def test_the_twin_is_not_taken_for_a_check(self):
        """Only the function that returns a finding is one."""
        with pytest.raises(TypeError, match="is not a check"):
            info(assert_no_explosion)


class TestDiscover:
    @pytest.fixture
    def package(self, tmp_path, monkeypatch):
        folder = tmp_path / "somechecks"
        (folder / "deep").mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "deep" / "__init__.py").write_text("")
        head = "from pytest_mltd.core.asking import check, asserting\nfrom pytest_mltd.core.findings import Finding\n"
        body = (
            "@check({subject!r}, rank={rank})\ndef check_{name}(data, *, allow=None):\n    '''x'''\n"
            "    return Finding(ok=True, headline='x')\n\n\nassert_no_{name} = asserting(check_{name})\n"
        )
        (folder / "b.py").write_text(head + body.format(subject="run", rank=50, name="two"))
        (folder / "a.py").write_text(
            head + "from somechecks.b import check_two\n" + body.format(subject="run", rank=50, name="one")
        )
        (folder / "deep" / "c.py").write_text(head + body.format(subject="table", rank=1, name="three"))
        monkeypatch.syspath_prepend(tmp_path)
        yield "somechecks"
        for name in [m for m in sys.modules if m.partition(".")[0] == "somechecks"]:
            del sys.modules[name]

    def test_checks_are_found_in_their_files_causes_first(self, package):
        """Each once, where it is defined, not its twin, sub-packages included; by rank, then by id."""
        found = discover(package)
        assert [info(f).id for f in found] == ["c.three", "a.one", "b.two"]
        assert all(f.__name__.startswith("check_") and f({}).ok for f in found)

    def test_they_can_be_asked_for_by_subject(self, package):
        """An umbrella takes what is about its own kind of data."""
        assert [info(f).id for f in discover(package, "run")] == ["a.one", "b.two"]


class TestAllow:
    @pytest.mark.parametrize(
        "key", ["head", "he*", "gradients.explosion", "gradients.explosion:head", "gradients.*:h*", "*", "*:head"]
    )
    def test_a_place_can_be_allowed_in_each_form(self, key):
        """By place, by id, by id and place, each with globs."""
        finding = check_explosion(BAD, allow={key: "on purpose"})
        assert finding.ok
        assert ("head", "on purpose") in finding.allowed

    @pytest.mark.parametrize("key", ["tail", "gradients.explosion:tail", "losses.plateau", "losses.plateau:head"])
    def test_another_place_or_id_allows_nothing_here(self, key):
        """An allowance does not reach beyond what it names."""
        assert check_explosion(BAD, allow={key: "on purpose"}).failed

    def test_one_allowed_place_does_not_hide_another(self):
        """The check goes on with the places that are left."""
        finding = check_explosion({"head": 80.0, "body": 70.0}, allow={"head": "on purpose"})
        assert (finding.failed, finding.culprit) == (True, "body")

    @pytest.mark.parametrize("place", ["model.head.weight", "training.loss", "a:b", "a[0]", "weird*name"])
    def test_a_place_may_be_called_anything(self, place):
        """Names that look like an id, a pattern, or hold a colon are names all the same."""
        assert check_explosion({place: 80.0}, allow={place: "on purpose"}).ok

    def test_a_check_without_places_is_allowed_by_its_culprit(self):
        """The finding keeps its headline and carries the reason."""
        finding = check_plateau(BAD, allow={"losses.plateau": "short run"})
        assert (finding.ok, finding.allowed) == (True, (("loss", "short run"),))

    def test_the_policy_allows_too_and_the_call_wins(self):
        """The project's allowance holds everywhere; for the same key the call's reason is told."""
        with asking.policy(Policy(allow={"gradients.explosion:head": "project"})):
            assert check_explosion(BAD).allowed == (("head", "project"),)
            assert check_explosion(BAD, allow={"gradients.explosion:head": "call"}).allowed == (("head", "call"),)
        assert check_explosion(BAD).failed

    @pytest.mark.parametrize(
        ("allow", "error", "match"),
        [
            ("head", TypeError, "^allow: a mapping of place to reason is needed"),
            (["head"], TypeError, "^allow: a mapping"),
            ({"head": ""}, ValueError, "^allow: 'head' needs a reason in words, not ''"),
            ({"head": True}, ValueError, "^allow: 'head' needs a reason in words, not True"),
        ],
    )
    def test_a_reason_is_required(self, allow, error, match):
        """An allowance without words is refused, whichever check is asked."""
        for ask in (check_explosion, check_plateau):
            with pytest.raises(error, match=match):
                ask(BAD, allow=allow)

    def test_keys_become_text(self):
        """A column may be called 3."""
        assert check_allow({3: "why"}) == {"3": "why"}

    def test_sifting_keeps_the_order(self):
        """Places to judge and places allowed, each in the order given."""
        assert sift({"b*": "why"}, ["a", "b1", "c", "b2"]) == (["a", "c"], (("b1", "why"), ("b2", "why")))
        assert sift(None, ["a"]) == (["a"], ())


class TestPolicy:
    def test_a_project_sets_a_limit_and_the_message_says_so(self):
        """The ini's number is used, and named as the ini's, in a pass and in a failure."""
        with asking.policy(Policy(limits={"gradients.explosion.max_growth": 100.0}, origin="pyproject.toml")):
            assert "max_growth=100 from pyproject.toml" in str(check_explosion(BAD))
        with asking.policy(Policy(limits={"gradients.explosion.max_growth": 10.0}, origin="pyproject.toml")):
            assert "max_growth=10 from pyproject.toml" in str(check_explosion(BAD))

    def test_an_argument_in_the_call_wins(self):
        """What the test says is what holds."""
        with asking.policy(Policy(limits={"gradients.explosion.max_growth": 100.0})):
            assert check_explosion(BAD, max_growth=60.0).failed

    def test_a_count_stays_a_whole_number(self):
        """An ini gives floats; a count of steps arrives as an int, and a fraction is refused."""
        with asking.policy(Policy(limits={"gradients.explosion.warmup": 7.0})):
            assert "warmup 7;" in str(check_explosion(GOOD))
        with asking.policy(Policy(limits={"gradients.explosion.warmup": 7.5})):
            with pytest.raises(ValueError, match=r"^mltd_limits: gradients.explosion.warmup is a count, not 7.5"):
                check_explosion(GOOD)

    def test_a_misspelt_limit_is_refused(self):
        """A limit that does nothing would be believed to hold."""
        with asking.policy(Policy(limits={"gradients.explosion.max_grwth": 7.0})):
            with pytest.raises(ValueError, match="has no limit 'max_grwth'; it has max_growth, warmup"):
                check_explosion(GOOD)

    def test_the_policy_ends_with_its_block_also_after_an_error(self):
        """The next test starts without it."""
        with pytest.raises(RuntimeError):
            with asking.policy(Policy(origin="x")):
                assert asking.current_policy().origin == "x"
                raise RuntimeError
        assert asking.current_policy() == Policy()


class TestListening:
    def test_what_is_asked_is_heard(self):
        """Each finding once, whether through the check or its twin."""
        heard = []
        with asking.listening(heard):
            check_explosion(GOOD)
            with pytest.raises(CheckFailed):
                assert_no_explosion(BAD)
        check_explosion(GOOD)
        assert [f.ok for f in heard] == [True, False]

    def test_an_umbrella_is_heard_once(self):
        """Its diagnosis, and none of the findings on the way."""
        heard = []
        with asking.listening(heard):
            diagnosis = check_everything(BAD)
        assert heard == [diagnosis]

    def test_nested_listeners_hear_their_own_blocks(self):
        """Two equal lists are still two listeners, removed each by itself."""
        outer, inner = [], []
        with asking.listening(outer):
            with asking.listening(inner):
                check_explosion(GOOD)
            check_explosion(GOOD)
        assert (len(outer), len(inner)) == (2, 1)

    def test_a_question_on_another_thread_is_heard_while_an_umbrella_asks(self):
        """The umbrella on one thread does not make the other thread's question its own."""
        heard = []

        @umbrella
        def check_slowly(run):
            other = threading.Thread(target=check_explosion, args=(GOOD,))
            other.start()
            other.join()
            return diagnose_findings("run", [check_explosion(run)])

        with asking.listening(heard):
            check_slowly(GOOD)
        assert [type(h).__name__ for h in heard] == ["Finding", "Diagnosis"]

    def test_a_check_that_raises_leaves_the_ear_open(self):
        """After a refused argument the next question is still heard."""
        heard = []
        with asking.listening(heard):
            with pytest.raises(TypeError):
                check_explosion(BAD, allow=3)
            check_explosion(GOOD)
        assert len(heard) == 1


class TestAskAll:
    def test_each_check_gets_what_it_takes(self):
        """A limit of one is not handed to the other."""
        findings = ask_all([check_explosion, check_plateau], BAD, max_growth=100.0, window=3)
        assert [f.ok for f in findings] == [True, False]

    def test_a_limit_that_nobody_takes_is_refused_with_the_near_one(self):
        """A typo would silently leave the default in force."""
        with pytest.raises(TypeError, match="^max_grwth: no question takes it; the nearest is 'max_growth'"):
            check_everything(BAD, max_grwth=3)

    def test_questions_can_be_skipped_by_pattern(self):
        """By id or glob."""
        assert [f.id for f in ask_all([check_explosion, check_plateau], BAD, skip=["losses.*"])] == [
            "gradients.explosion"
        ]

    def test_the_callers_mistake_is_raised(self):
        """A refusal that names an argument is the caller's to mend."""

        @check("run", family="x")
        def check_it(run, *, allow=None):
            raise ValueError("label: no column 'tagret'; the nearest is 'target'")

        with pytest.raises(ValueError, match="tagret"):
            ask_all([check_it], {})

    @pytest.mark.parametrize("error", [RuntimeError("boom"), TypeError("unsupported operand"), KeyError("x")])
    def test_a_defect_of_one_check_does_not_cost_the_others_answers(self, error):
        """It becomes a question not asked, with the error's name."""

        @check("run", family="x")
        def check_it(run, *, allow=None):
            raise error

        broken, fine = ask_all([check_it, check_explosion], GOOD)
        assert (broken.id, broken.asked, fine.ok) == ("x.it", False, True)
        assert f"the check itself failed: {type(error).__name__}" in str(broken)

    def test_a_missing_extra_is_a_question_not_asked(self):
        """The sentence with the install line is the reason."""

        @check("run", family="x")
        def check_it(run, *, allow=None):
            raise MissingExtra("this needs torch", name="torch")

        assert str(ask_all([check_it], {})[0]) == "x.it: not asked: this needs torch"

    def test_a_single_question_without_an_answer_is_no_pass(self):
        """The twin of a check that could not be asked raises."""

        @check("run", family="x")
        def check_it(run, *, allow=None):
            return not_asked("no step was seen")

        with pytest.raises(NotAsked, match="x.it: not asked: no step was seen"):
            asserting(check_it)({})


def test_what_is_asked_now_is_known_inside_of_a_question_only():
    """The subjects of the questions under way, the outermost first, on this thread; nothing outside, also after an error."""
    seen = []

    @check("model", family="gradients")
    def check_inner(data) -> Finding:
        """Ask nothing."""
        seen.append(asking.asked_now())
        raise KeyError(data)

    @check("run", family="gradients")
    def check_outer(data) -> Finding:
        """Ask another question on the way."""
        seen.append(asking.asked_now())
        check_inner(data)
        return not_asked("never")

    with pytest.raises(KeyError):
        check_outer([])
    assert seen == [("run",), ("run", "model")]
    assert asking.asked_now() == ()
