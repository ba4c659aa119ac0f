"""What every check promises. A new check is found by itself, and held to all of this without an edit here."""

import inspect
import re
import typing
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import pytest_mltd as mltd
from pytest_mltd.core.asking import check, discover, info
from pytest_mltd.core.findings import Diagnosis, Finding, Table

TESTS = Path(__file__).parent
CHECKS = {info(f).id: f for package in ("pytest_mltd.checks", "pytest_mltd.probes") for f in discover(package)}
ORIGIN = re.compile(
    r"a guess|\b(19|20)\d\d\b|benchmark|measured|by definition|convention|CS231n|llm-foundry|AutoTrainer|TheDeepChecker",
    re.IGNORECASE,
)
# A number without one of these is a number of nothing.
UNIT = re.compile(
    r"\b(steps?|epochs?|rows?|columns?|parameters?|values?|groups?|samples?|batch(es)?|units?|layers?|bytes|runs?|seeds?|"
    r"norms?|times|ratio|factor|share|fraction|percent|part|AUC|R²|correlation|standard deviations?|absolute|relative|"
    r"probability|seconds|milliseconds|events?|decimals|digits|characters|calls?|powers?|decades?|median|loss)\b"
)

pytestmark = pytest.mark.skipif(not CHECKS, reason="no check exists yet")
each = pytest.mark.parametrize("function", CHECKS.values(), ids=CHECKS)


def faults_of_form(function):
    """Return what is wrong with how a check is written: its signature and its docstring."""
    known, found = info(function), []
    try:
        hints = typing.get_type_hints(inspect.unwrap(function))
    except NameError:  # a name imported for type checkers only; present as text is typed enough here, mypy judges it
        hints = inspect.unwrap(function).__annotations__
    parameters = inspect.signature(function).parameters
    found += [f"{p} has no type" for p in parameters if p not in hints]
    if hints.get("return") not in (Finding, "Finding"):
        found.append("it does not return a Finding")
    kinds = {p.name: p.kind for p in parameters.values()}
    data = [name for name, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    if not data:
        found.append("its data does not come first")
    for name in data:  # a second table may be left out; a number may not stand unnamed in a call
        if parameters[name].default not in (inspect._empty, None):
            found.append(f"{name}: a default is for keyword-only arguments")
    if "allow" not in parameters or parameters["allow"].default is not None:
        found.append("it takes no allow=None")
    return found + faults_of_docstring(inspect.getdoc(inspect.unwrap(function)) or "", known.limits)


def faults_of_docstring(text, limits):
    """Return what a docstring leaves unsaid: the question, and for each limit its unit and where its number comes from."""
    found = [] if len(text.split()) >= 5 else ["its docstring does not say the question"]
    for name in limits:
        entry = _entry(text, name)
        if not entry:
            found.append(f"{name} is not in the docstring")
            continue
        if not ORIGIN.search(entry):
            found.append(f"{name}: no origin of the default (author and year, a benchmark, or the words 'a guess')")
        if not UNIT.search(entry):
            found.append(f"{name}: no unit")
    return found


def _entry(text, name):
    """Return the lines of ``Args:`` about one argument: its own and those indented under it."""
    found = re.search(rf"^( *){name}(?:, \w+)*: .*(?:\n\1 +.*)*", text, re.MULTILINE)
    return found.group() if found else ""


@each
def test_it_is_written_as_promised(function):
    """Typed, data first, limits by keyword with a default, unit and origin, and ``allow``."""
    found = faults_of_form(function)
    assert not found, f"{info(function).id}: " + "; ".join(found)


@each
def test_its_twin_exists_under_the_right_name(function):
    """`assert_no_<fault>` (or the umbrella-like name of a probe) stands beside it, and asks exactly it."""
    module = inspect.getmodule(inspect.unwrap(function))
    twins = [n for n, v in vars(module).items() if getattr(v, "asks", None) is function]
    fault = function.__name__.removeprefix("check_")
    assert twins in ([f"assert_no_{fault}"], [f"assert_{fault}"]), twins


@each
def test_both_names_are_on_the_door(function):
    """`mltd.check_x` and its twin are the very objects of the family's module."""
    module = inspect.getmodule(inspect.unwrap(function))
    assert getattr(mltd, function.__name__) is function
    for name, value in vars(module).items():
        if getattr(value, "asks", None) is function:
            assert getattr(mltd, name) is value


@each
def test_its_mirror_test_asks_it(function):
    """The test file of the same place names it. (`conftest.py` proves that the tests saw it red and saw it green.)"""
    module = inspect.unwrap(function).__module__.split(".")[1:]
    mirror = TESTS.joinpath(*module[:-1], f"test_{module[-1]}.py")
    near = [mirror, *mirror.parent.glob(f"test_{module[-1]}_*.py")]
    text = "\n".join(f.read_text() for f in near if f.exists())
    fault = function.__name__.removeprefix("check_")
    assert re.search(rf"\b(check|assert|assert_no)_{fault}\b", text), f"{mirror} does not ask {function.__name__}"


def test_ids_are_unique_and_named_after_the_fault():
    """One fault, one name: in code, message, shell and ledger."""
    functions = [f for package in ("pytest_mltd.checks", "pytest_mltd.probes") for f in discover(package)]
    assert len({f.__name__ for f in functions}) == len(functions) == len(CHECKS)
    for name, function in CHECKS.items():
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", name)
        assert name.partition(".")[2] == function.__name__.removeprefix("check_") or name == "runs.divergence"


def test_what_a_check_explains_exists():
    """A pattern that matches no other check's id would fold nothing."""
    families = {name.partition(".")[0] for name in CHECKS}
    for function in CHECKS.values():
        others = CHECKS.keys() - {info(function).id}
        for pattern in info(function).explains:
            family_exists = pattern.endswith(".*") and pattern[:-2] in families
            assert family_exists or any(fnmatchcase(other, pattern) for other in others), (info(function).id, pattern)


class TestTheGuardsCanFail:
    def test_a_check_that_is_badly_written_is_told_all_its_faults(self):
        """Untyped data, a positional default, no ``allow``, a limit without a word."""

        @check("run", family="x")
        def check_it(run, other=3, *, max_x=1.0):
            """Ask."""

        text = "; ".join(faults_of_form(check_it))
        for fault in (
            "run has no type",
            "does not return",
            "other: a default",
            "allow=None",
            "max_x is not in",
            "question",
        ):
            assert fault in text

    @pytest.mark.parametrize(
        ("entry", "fault"),
        [
            ("max_x: the highest ratio that passes.", "no origin"),
            ("max_x: the highest that passes; a guess.", "no unit"),
            ("max_y: the highest ratio; a guess.", "max_x is not in the docstring"),
        ],
    )
    def test_a_docstring_without_unit_or_origin_is_found(self, entry, fault):
        """Each thing left unsaid is named."""
        text = f"Ask whether anything is wrong here.\n\nArgs:\n    run: data, a guess, in steps.\n    {entry}"
        (found,) = faults_of_docstring(text, {"max_x": 1.0})
        assert fault in found

    def test_a_complete_docstring_passes(self):
        """Unit and origin may stand on the following line."""
        text = "Ask whether x grows too much.\n\nArgs:\n    max_x: the highest ratio\n        that passes (2015).\n    y: no."
        assert faults_of_docstring(text, {"max_x": 1.0}) == []

    GOOD = Finding(
        ok=False,
        id="gradients.explosion",
        headline="'head' grew 80 times (max_growth=50)",
        culprit="head",
        limit=("max_growth", 50.0),
        shows="It grew.",
        next_step="lower the learning rate",
    )

    def test_a_complete_message_has_no_complaints(self, complaints):
        """The example of STYLE's anatomy passes."""
        assert complaints(self.GOOD, ["max_growth", "warmup"]) == []

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"id": "explosion"}, "the id is family.fault"),
            ({"headline": "'head' grew 80 times"}, "a limit of ['max_growth'] by name"),
            ({"limit": ("max_other", 1.0)}, "the limit it was held against"),
            ({"culprit": ""}, "the culprit is named"),
            ({"culprit": "body"}, "the culprit 'body' is in the headline"),
            ({"shows": ""}, "a table or a sentence"),
            ({"next_step": ""}, "one next step"),
            ({"headline": "'head' (max_growth=50)\nx"}, "one line"),
            ({"headline": "'head' (max_growth=50)" + "x" * 300}, "short summary"),
        ],
    )
    def test_each_gap_in_a_message_is_named(self, complaints, change, complaint):
        """The guard in `conftest.py` sees each part that is missing."""
        from dataclasses import replace

        assert complaint in "\n".join(complaints(replace(self.GOOD, **change), ["max_growth"]))

    def test_a_pass_that_does_not_say_what_was_looked_at_is_named(self, complaints):
        """A pass without its ground is no information."""
        assert "looked at" in "\n".join(complaints(Finding(ok=True, id="a.b", headline="fine")))

    def test_a_check_never_seen_red_or_green_is_named(self, unproved):
        """The run fails for a check that no test could make fail."""
        assert unproved({"a.b": None, "c.d": None}, {("a.b", "red"), ("a.b", "green"), ("c.d", "green")}) == [
            "c.d: no test of its own room saw it red"
        ]

    @pytest.fixture
    def suite(self, pytester):
        """A suite of its own under this conftest, with one judged test that hears one finding."""
        folder = pytester.path / "tests" / "checks"
        folder.mkdir(parents=True)
        (pytester.path / "tests" / "conftest.py").write_text((TESTS / "conftest.py").read_text())

        def run(*arguments, **finding):
            (folder / "test_x.py").write_text(
                "from pytest_mltd.core import asking\nfrom pytest_mltd.core.findings import Finding\n"
                f"def test_it():\n    asking._tell(Finding(**{finding!r}))\n"
            )
            return pytester.runpytest_subprocess(
                "-p", "no:randomly", "-p", "no:asyncio", "--import-mode=importlib", *arguments
            )

        return run

    def test_an_incomplete_message_fails_the_test_that_produced_it(self, suite):
        """From the outside: the test errs, for that reason."""
        name = next(iter(CHECKS))
        result = suite("tests/checks", ok=False, id=name, headline="bad")
        result.stdout.fnmatch_lines([f"*{name}: the culprit is named: 'bad'*"])
        assert result.ret == 1

    @pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["here", "workers"])
    def test_a_whole_suite_without_a_red_test_of_each_check_fails(self, suite, workers):
        """From the outside, also under xdist: what was seen green is not missed as green, and the run fails for the rest."""
        name = next(iter(CHECKS))
        result = suite("tests", *workers, ok=True, id=name, headline="fine", looked_at="all")
        lines = [line for line in result.outlines if line.startswith("CONTRACT")]
        assert f"CONTRACT {name}: no test of its own room saw it red" in lines
        assert len(lines) == 2 * len(CHECKS) - 1
        assert result.ret == 1
        result.assert_outcomes(passed=1)

    def test_a_part_of_the_suite_is_not_asked_for_every_check(self, suite):
        """Somebody who runs one file is not told of the others."""
        result = suite("tests/checks", ok=True, id=next(iter(CHECKS)), headline="fine", looked_at="all")
        assert result.ret == 0


def test_a_diagnosis_and_a_table_are_plain(complaints):
    """What an umbrella returns can be printed, and holds nothing alive."""
    finding = Finding(ok=False, id="a.b", headline="x", table=Table(("a",), ((object(),),)))
    assert "object object at" in str(Diagnosis(about="run", findings=(finding,)))
