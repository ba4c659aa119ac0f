"""Every block of every document runs, and what it shows is what comes out.

A document has a folder of its own, empty at first, and its blocks are run in order:

- ``python``: run as a program. With a first line ``# name.py`` it is written to that file instead (a later block uses it);
  with ``# name.py, changed`` too, over the earlier one.
- ``console``: each line after ``$`` is run; the lines under it are its output. Numbers may differ by a twentieth, times
  by anything; what has exploded (ten thousand and more) by a power of ten.
- ``sh``: each line is run and must end with 0. Lines for `pip`, `make` and `git` are not run but read: the extra and the
  target must exist.
- ``toml``, ``ini``, ``json``: must parse; settings of pytest among them must exist.
- ``diff``: is applied to the files of the earlier blocks, and must fit.
- ``text``: a picture, not judged.

``make docs`` (this file as a program) writes the output under ``$`` again where it no longer holds.
"""

import configparser
import importlib.util
import json
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
DOCUMENTS = [
    file
    for pattern in ("*.md", "resources/*.md", "agents/*.md", "examples/*.md", "examples/*/README.md", "benchmarks/*.md")
    for file in sorted(REPO.glob(pattern))
]
LANGUAGES = {"python", "console", "sh", "toml", "ini", "json", "text", "diff"}
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")
# Differs between two runs of the same thing: how long it took, where it lay, which commit and moment it was.
MOVES = [
    (re.compile(r"\bin \d+(\.\d+)?s\b( \([\d:]+\))?"), "in 1.00s"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s)\b"), r"1 \2"),
    (re.compile(r"recorder took [\d.]+ ?%"), "recorder took 1%"),
    (re.compile(r"/\S*/(?=[\w.-]+)"), ""),
    (re.compile(r"\b[0-9a-f]{7,40}\b"), "abcdef0"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:?\d\d)?"), "2026-01-01 00:00"),
    (re.compile(r"={3,}|-{3,}|_{3,}"), "==="),
]


# A reader has this plugin; the others that are installed to develop it have lines of their own to say.
OTHERS_OFF = "-p no:cacheprovider " + " ".join(
    f"-p no:{name}" for name in ("randomly", "asyncio", "rerunfailures", "xdist", "hypothesispytest")
)


_spec = importlib.util.spec_from_file_location("demo", REPO / "examples" / "demo.py")
demo = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(demo)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and where the text stands in the document."""

    language: str
    text: str
    start: int
    line: int


@dataclass(frozen=True)
class Shown:
    """One ``$`` line of a console block, what is shown under it and what came out."""

    command: str
    shown: str
    came: str


def blocks(text):
    return [Block(m[1], m[2], m.start(2), text.count("\n", 0, m.start(2))) for m in FENCE.finditer(text)]


def run_document(text, name, folder):
    """Run all blocks of a document; return what is wrong, and the document's text with its outputs made true."""
    wrong, written, end = [], [], 0
    for block in blocks(text):
        complaints, true_text = run_block(block, folder)
        wrong += [f"{name}:{block.line}: {c}" for c in complaints]
        written += [text[end : block.start], true_text]
        end = block.start + len(block.text)
    return wrong, "".join([*written, text[end:]])


def run_block(block, folder):
    if block.language not in LANGUAGES:
        return [f"a block of {block.language or 'no language'}: none of {', '.join(sorted(LANGUAGES))}"], block.text
    if block.language == "console":
        return run_console(block, folder)
    judge = {
        "python": run_python,
        "sh": run_sh,
        "diff": run_diff,
        "toml": read_toml,
        "ini": read_ini,
        "json": read_json,
    }
    return judge.get(block.language, lambda text, folder: [])(block.text, folder), block.text


def run_python(text, folder):
    named = re.match(r"# ([\w/]+\.(?:py|toml|ini))(?:, changed)?\n", text)
    if named:
        target = folder / named[1]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return []
    done = shell([sys.executable, "-c", text], folder)
    return [f"the program fails: {done.stdout}"] if done.returncode else []


def run_sh(text, folder):
    wrong = []
    for line in filter(None, (line.partition(" #")[0].strip() for line in text.splitlines())):
        program = shlex.split(line)[0]
        if program in ("pip", "make", "git"):
            wrong += read_command(line)
        elif (done := shell(line, folder)).returncode:
            wrong.append(f"`{line}` ends with {done.returncode}: {done.stdout}")
    return wrong


def run_diff(text, folder):
    try:
        demo.apply_patch(folder, text)
    except (ValueError, OSError) as error:
        return [f"it cannot be applied: {error}"]
    return []


def run_console(block, folder):
    wrong, lines = [], []
    for one in consoled(block.text, folder):
        if not same(one.shown, one.came):
            wrong.append(f"`{one.command}` now says:\n{one.came}\n-- the document shows:\n{one.shown}")
        lines.append(f"$ {one.command}\n{one.shown if same(one.shown, one.came) else one.came}")
    return wrong, "".join(lines)


def consoled(text, folder):
    _, *parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    for part in parts:
        command, _, shown = part.partition("\n")
        done = shell(command, folder)
        came = "\n".join(line.rstrip() for line in done.stdout.splitlines())
        yield Shown(command, shown, f"{came.strip()}\n" if came.strip() else "")


def read_command(line):
    """Judge a line that is not run: what it names must exist."""
    words = shlex.split(line)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (REPO / "Makefile").read_text(), re.MULTILINE)
        return [f"make has no target {w!r}" for w in words[1:] if "=" not in w and w not in targets]
    if words[0] == "pip":
        extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = [e for w in words for group in re.findall(r"pytest-mltd\[([\w,]+)\]", w) for e in group.split(",")]
        return [f"there is no extra {e!r}" for e in named if e not in extras]
    return []


def read_toml(text, folder):
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return [f"it does not parse: {error}"]
    table = settings.get("tool", {}).get("pytest", {})
    return unknown_settings({**table.get("ini_options", {}), **{k: v for k, v in table.items() if k != "ini_options"}})


def read_ini(text, folder):
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        return [f"it does not parse: {error}"]
    return unknown_settings(parser["pytest"] if parser.has_section("pytest") else {})


def read_json(text, folder):
    try:
        json.loads(text)
    except ValueError as error:
        return [f"it does not parse: {error}"]
    return []


def unknown_settings(settings):
    return [
        f"pytest has no setting {name!r}" for name in settings if name.startswith("mltd") and name not in pytest_help()
    ]


_help = {}


def pytest_help():
    if not _help:
        _help["pytest"] = shell([sys.executable, "-m", "pytest", "--help"], Path(tempfile.gettempdir())).stdout
    return _help["pytest"]


def shell(command, folder):
    """Run a command in the document's folder as a person would who has only this environment."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "MLTD_", "GITHUB_", "CI"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_ADDOPTS": OTHERS_OFF,
    }
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        shell=isinstance(command, str),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


def same(shown, came):
    """Tell whether two outputs say the same: words exactly, numbers to a twentieth, what always moves not at all."""
    one, two = (_settled(text) for text in (shown, came))
    if NUMBER.sub("#", one) != NUMBER.sub("#", two):
        return False
    return all(_near(a, b) for a, b in zip(NUMBER.findall(one), NUMBER.findall(two), strict=True))


def _settled(text):
    for pattern, stand_in in MOVES:
        text = pattern.sub(stand_in, text)
    return re.sub(r"[ \t]+", " ", text).strip()


def _near(one, two):
    a, b = (float(n.replace(",", "").rstrip(".")) for n in (one, two))
    exploded = min(abs(a), abs(b)) >= 1e4  # what has blown up differs between processors in more than its last digits
    return math.isclose(a, b, rel_tol=0.9 if exploded else 0.05) or one == two


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(REPO)))
def test_every_block_runs_and_shows_what_comes_out(file, tmp_path):
    """A document that is no longer true fails, with what it should say."""
    wrong, _ = run_document(file.read_text(), file.relative_to(REPO), tmp_path)
    assert not wrong, "\n\n".join(wrong) + "\n\nmake docs writes the outputs again"


def names_used(text):
    """Return the names of ours that a document uses in code, by kind."""
    code = "\n".join([*re.findall(r"`([^`\n]+)`", text), *(b.text for b in blocks(text))])
    return {
        "door": set(re.findall(r"\bmltd\.([a-zA-Z_]\w*)", code)) - {"toml"},
        "option": set(re.findall(r"--mltd-[\w-]+", code)),
        "setting": set(re.findall(r"\bmltd_(?:allow|limits|repro\w*|incident\w*|seed|slice|steps)\b", code)),
        "fixture": set(re.findall(r"\bmltd_(?:train|seed|slice|settings|baseline)\b", code)),
        "verb": set(
            re.findall(r"(?:^|\$ |`)mltd ([a-z]+)\b", "\n".join([code, *re.findall(r"`[^`\n]+`", text)]), re.MULTILINE)
        ),
    }


def unknown_names(text):
    """Return the names that a document uses and the code does not have."""
    import pytest_mltd as mltd

    used = names_used(text)
    missing = [f"mltd.{name}" for name in used["door"] if not hasattr(mltd, name)]
    missing += [option for option in used["option"] if not re.search(rf"{re.escape(option)}\b(?!-)", pytest_help())]
    missing += [name for name in used["setting"] | used["fixture"] if name not in pytest_help() + fixtures()]
    missing += [f"mltd {verb}" for verb in used["verb"] if f"mltd {verb}" not in mltd_help()]
    return sorted(missing)


def fixtures():
    if "fixtures" not in _help:
        command = [sys.executable, "-m", "pytest", "--fixtures", "-q", os.devnull]
        _help["fixtures"] = shell(command, Path(tempfile.gettempdir())).stdout
    return _help["fixtures"]


def mltd_help():
    if "mltd" not in _help:
        _help["mltd"] = shell([sys.executable, "-m", "pytest_mltd", "--help"], Path(tempfile.gettempdir())).stdout
    return _help["mltd"]


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(REPO)))
def test_every_name_in_a_document_exists(file):
    """Functions, options, settings, fixtures and commands that a document speaks of are in the code."""
    assert unknown_names(file.read_text()) == []


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(REPO)))
def test_every_link_leads_somewhere(file):
    """Links between documents point at files that are there."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", file.read_text()):
        assert (file.parent / target).exists(), target


MADE = re.compile(r"(<!-- (\w+): written by make docs -->\n).*?(<!-- end -->)", re.DOTALL)


def every_check():
    from pytest_mltd.core.asking import discover, info

    return {info(f).id: f for room in ("checks", "probes") for f in discover(f"pytest_mltd.{room}")}


def faults_table():
    """Return the catalogue as a table, from the checks themselves."""
    from pytest_mltd.core.asking import info

    lines = ["| id | asked of | question | limits |", "|---|---|---|---|"]
    for name, function in sorted(every_check().items()):
        question = " ".join((function.__doc__ or "").strip().partition("\n\n")[0].split())
        limits = ", ".join(f"`{k}={v:g}`" for k, v in info(function).limits.items())
        lines.append(f"| `{name}` | {info(function).subject} | {question} | {limits} |")
    return "\n".join(lines) + "\n"


def options_table():
    """Return pytest's options and ini keys, from the settings that declare them."""
    import dataclasses

    from pytest_mltd.plugin.options import Settings

    lines = ["| flag | ini key | |", "|---|---|---|"]
    for field in dataclasses.fields(Settings):
        key, value = f"mltd_{field.name}", field.metadata["value"]
        flag = f"`--{key.replace('_', '-')}{f' {value}' if value else ''}`" if field.metadata["flag"] else ""
        lines.append(f"| {flag} | `{key}` | {field.metadata['help']} |")
    return "\n".join(lines) + "\n"


def json_schema():
    """Return the description of the shell's JSON, from the module that writes it."""
    import inspect

    from pytest_mltd.cli import output

    _, _, described = (inspect.getdoc(output) or "").partition("::\n")
    return f"```text\n{inspect.cleandoc(described)}\n```\n"


MAKERS = {"faults": faults_table, "options": options_table, "json": json_schema}


def made_again(text):
    """Return a document's text with its made sections as the code has them now."""
    return MADE.sub(lambda m: m[1] + MAKERS[m[2]]() + m[3], text)


@pytest.mark.parametrize(("name", "sections"), [("faults.md", {"faults"}), ("reference.md", {"options", "json"})])
def test_what_is_made_from_the_code_is_the_code(name, sections):
    """Catalogue, options and schema say what the code says now."""
    text = (REPO / "resources" / name).read_text()
    assert {m[2] for m in MADE.finditer(text)} == sections
    assert text == made_again(text), "make docs writes it again"
    assert made_again(MADE.sub(r"\1\3", text)) == text


def test_every_fault_is_in_the_table_of_what_a_person_sees():
    """The README leads from a symptom to each id."""
    text = (REPO / "README.md").read_text()
    assert [name for name in every_check() if f"`{name}`" not in text] == []


def test_the_picture_of_the_house_has_every_room():
    """Rooms, the vocabulary's files and the families of questions are in CONTRIBUTING.md, and nothing else is."""
    import pytest_mltd as mltd

    picture = (REPO / "CONTRIBUTING.md").read_text().partition("## The rooms")[2].partition("## Who may")[0]
    package = REPO / "pytest_mltd"
    rooms = [p.name for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    families = [n for n in dir(mltd) if getattr(getattr(mltd, n), "__name__", "").startswith("pytest_mltd.checks.")]
    words = set(re.findall(r"[\w.]+", picture))
    vocabulary = [p.stem for p in (package / "core").glob("[a-z]*.py")]
    assert [w for w in (*rooms, *vocabulary, *families) if w not in words and w != "__main__.py"] == []
    for folder in re.findall(r"^  ([\w/]+)/ ", picture, re.MULTILINE):
        assert (package / folder).is_dir(), folder


def test_the_templates_are_good():
    """The story's template has every entry and no other; the test's template names what exists."""
    import dataclasses

    from pytest_mltd.core.incidents import Story
    from pytest_mltd.ledger.incidents import story_from

    data = tomllib.loads((REPO / "resources" / "incident.toml").read_text())
    story, complaints = story_from(data)
    assert complaints == ()
    assert [f.name for f in dataclasses.fields(Story) if not getattr(story, f.name)] == []
    source = (REPO / "resources" / "test_hypothesis.py").read_text()
    compile(source, "test_hypothesis.py", "exec")
    assert unknown_names(f"```python\n{source}\n```") == []


class TestTheGuardsCanFail:
    @pytest.mark.parametrize(
        ("block", "complaint"),
        [
            ("```python\nassert 1 == 2\n```", "the program fails"),
            ("```sh\nfalse\n```", "`false` ends with 1"),
            ("```sh\nmake coffee\n```", "make has no target 'coffee'"),
            ("```sh\npip install 'pytest-mltd[torhc]'\n```", "there is no extra 'torhc'"),
            ("```console\n$ echo hello\ngoodbye\n```", "`echo hello` now says"),
            ("```toml\n[tool.pytest.ini_options]\nmltd_alow = []\n```", "pytest has no setting 'mltd_alow'"),
            ("```json\n{1}\n```", "it does not parse"),
            ("```diff\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a\n+b\n```", "it cannot be applied"),
            ("```\nsomething\n```", "a block of no language"),
        ],
    )
    def test_a_block_that_is_not_true_is_found(self, block, complaint, tmp_path):
        """Each kind of block has a way to fail."""
        wrong, _ = run_document(block, "x.md", tmp_path)
        assert len(wrong) == 1
        assert complaint in wrong[0]

    def test_the_output_is_written_again(self, tmp_path):
        """`make docs` keeps all but what came out otherwise."""
        text = "# A\n\n```console\n$ echo hello\nbye\n$ echo 3.14\n3.15\n```\n\nEnd.\n"
        _, true_text = run_document(text, "x.md", tmp_path)
        assert true_text == text.replace("bye", "hello")

    def test_what_moves_may_move(self):
        """Times, places and commits differ, words and amounts do not."""
        assert same("1 passed in 0.10s", "1 passed in 2.00s")
        assert same("at /a/b/c.py: 0.998", "at /x/c.py: 0.99")
        assert not same("1 passed in 0.10s", "2 passed in 0.10s")
        assert not same("AUC 0.998", "AUC 0.8")
        assert same("loss 9,036,832", "loss 1,336,832")
        assert not same("loss 9,036,832", "loss 1,336")

    def test_a_name_that_does_not_exist_is_found(self):
        """In a span or in a block."""
        text = "`mltd.assert_helthy(run)` and `--mltd-repo`\n\n```python\nmltd.recrod()\n```\n\n`mltd brew x`"
        assert unknown_names(text) == ["--mltd-repo", "mltd brew", "mltd.assert_helthy", "mltd.recrod"]


def main():
    for file in DOCUMENTS:
        with tempfile.TemporaryDirectory() as folder:
            wrong, text = run_document(made_again(file.read_text()), file.relative_to(REPO), Path(folder))
        print("\n".join(complaint for complaint in wrong if "now says:" not in complaint), end="")
        if text != file.read_text():
            print(f"written: {file.relative_to(REPO)}")
            file.write_text(text)


if __name__ == "__main__":
    main()
