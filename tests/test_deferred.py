"""What gymnax and tensorboardX seldom use is loaded when it is used, and nobody else notices."""

import importlib
import subprocess
import sys

import pytest

from tradax.deferred import deferred, left_out

HEAVY = "matplotlib", "seaborn", "pandas", "scipy", "sklearn", "torch", "polars", "orbax", "arch"

PROGRAM = f"""
import sys
from pathlib import Path
import tradax.experiment
from tradax.hooks import TensorBoard

TensorBoard([Path(sys.argv[1])])
assert not (found := [name for name in {HEAVY} if name in sys.modules]), found

from gymnax.environments.misc import pong  # as it was imported without them
assert pong.plt.__name__ == "matplotlib.pyplot"
assert "matplotlib" not in sys.modules
pong.colors.ListedColormap(pong.sns.color_palette("cubehelix", 4))
import matplotlib.colors, matplotlib.pyplot, seaborn
assert pong.colors.ListedColormap is matplotlib.colors.ListedColormap
assert pong.plt.subplots is matplotlib.pyplot.subplots
assert pong.sns is not seaborn and pong.sns.color_palette is seaborn.color_palette
"""


def test_training_starts_without_the_libraries_that_draw_and_gymnax_draws_all_the_same(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def package(tmp_path, monkeypatch):
    """heavy, with parts a and b, and light, which imports from all of them."""
    (tmp_path / "heavy").mkdir()
    for name in ("__init__", "a", "b"):
        (tmp_path / "heavy" / f"{name}.py").write_text(f"class Thing: where = {name!r}")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()

    def light(source):
        (tmp_path / "light.py").write_text(source)
        return importlib.import_module("light")

    yield light
    for name in ("light", "heavy", "heavy.a", "heavy.b"):
        sys.modules.pop(name, None)


def test_a_stand_in_gives_the_very_objects_of_its_module(package):
    with deferred("heavy", "heavy.a"):
        light = package("import heavy.a as a\nfrom heavy import a as again\nimport heavy")
    assert not [name for name in sys.modules if name.startswith("heavy")]
    assert light.a is light.again is light.heavy.a
    thing = light.a.Thing
    import heavy.a

    assert heavy.a is not light.a
    assert heavy.a.Thing is thing
    assert light.heavy.Thing is heavy.Thing


def test_parts_that_were_not_named_load_their_package(package):
    with deferred("heavy", "heavy.a"):
        light = package("from heavy import a\nimport heavy.b as b\nfrom heavy.b import Thing")
    assert (light.b.Thing.where, light.Thing.where, light.a.Thing.where) == ("b", "b", "a")


def test_what_is_loaded_stays_and_what_is_missing_is_missing(package):
    import heavy

    with deferred("heavy", "heavy.a", "no_such_package"), left_out("heavy"):
        light = package("import heavy\nimport heavy.a as a")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("no_such_package")
    assert light.heavy is heavy
    assert light.a is sys.modules["heavy.a"]


def test_a_package_that_is_left_out_can_be_imported_afterwards(package):
    with left_out("heavy"):
        light = package("try:\n    import heavy\nexcept ImportError:\n    heavy = None")
    assert light.heavy is None
    assert importlib.import_module("heavy").Thing.where == "__init__"
