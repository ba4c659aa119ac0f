"""What a module draws while it is imported, read from its text."""

import pytest

from pytest_mltd.probes.importing import drawn_at_import


def drawn(tmp_path, text):
    path = tmp_path / "module.py"
    path.write_text(text)
    return [said.removeprefix("module.py:") for said in drawn_at_import([str(path)], tmp_path)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import numpy as np\nRNG = np.random.default_rng()\n", "2: numpy.random.default_rng is made without a seed"),
        ("RNG = default_rng(None)\n", "1: numpy.random.default_rng is made without a seed"),
        ("RNG = np.random.RandomState()\n", "1: numpy.random.RandomState is made without a seed"),
        ("class Noise:\n    rng = random.Random()\n", "2: random.Random is made without a seed"),
        ("RNG = np.random.default_rng(time.time_ns())\n", "1: numpy.random.default_rng is seeded from time.time_ns"),
        ("RNG = Random(int(time() * 1000))\n", "1: random.Random is seeded from time"),
        ("S = os.getpid() % 7\nif S:\n    R = Random(S + 1)\n", "3: random.Random is seeded from os.getpid"),
        ("SEED = int(time.time())\ndef f():\n    torch.manual_seed(SEED)\n", "3: the seed 'SEED' is taken from time.time"),
        ("S = datetime.now()\ndef f():\n    split(x, random_state=S)\n", "3: the seed 'S' is taken from datetime.now"),
    ],
)  # fmt: skip
def test_what_is_drawn_at_import_is_named(tmp_path, text, said):
    """A generator without a seed, one seeded from a clock or the system, and a seed taken from there, each with its line."""
    assert drawn(tmp_path, text) == [said]


@pytest.mark.parametrize(
    "text",
    [
        "RNG = np.random.default_rng(0)\n",
        "SEED = 3\nRNG = random.Random(SEED)\n",
        "def f():\n    return np.random.default_rng()\n",
        "make = lambda: default_rng()\n",
        "if __name__ == '__main__':\n    RNG = default_rng()\n",
        "START = time.time()\nRNG = default_rng(1)\ndef f(seed):\n    print(time.time() - START)\n",
        "flip = transforms.Random()\n",
        "RNG = default_rng(\n",
    ],
)
def test_honest_modules_are_left_alone(tmp_path, text):
    """A fixed seed, a generator made when a function is called, a clock that seeds nothing, a text that does not parse."""
    assert drawn(tmp_path, text) == []


def test_only_the_users_own_modules_below_the_root_are_read(tmp_path):
    """Libraries, built-in modules and files elsewhere are not."""
    (tmp_path / "root").mkdir()
    (tmp_path / "a.py").write_text("RNG = default_rng()\n")
    assert drawn_at_import([None, str(tmp_path / "a.py"), pytest.__file__, "gone.py"], tmp_path / "root") == ()
