import typing

import jax
import numpy as np
import pytest

from tradax.algorithms import ppo
from tradax.config import config, describe, from_dict, setting, to_dict
from tradax.errors import ConfigError


@config
class Config:
    """Options of a test."""

    rate: float = setting(default=0.1, above=0, most=1)
    """A rate."""
    limit: float | None = setting(default=None, above=0)
    """A limit."""
    steps: int = setting(default=4, least=1)
    """Steps."""
    sizes: tuple[int, ...] = setting(default=(64, 64), least=1)
    """Sizes."""
    kind: typing.Literal["a", "b"] = "a"
    """A kind."""
    flag: bool = False
    """A flag."""

    def validate(self):
        if self.flag and self.steps < 2:
            raise ConfigError("flag needs two steps")


def test_floats_are_leaves_and_everything_else_is_static():
    assert jax.tree.leaves(Config()) == [0.1]
    assert jax.tree.leaves(Config(limit=2.0)) == [0.1, 2.0]


def test_changing_a_float_does_not_retrace_and_changing_an_int_does():
    traces = []

    @jax.jit
    def f(c):
        traces.append(c.steps)
        return c.rate * c.steps

    assert float(f(Config(rate=0.5))) == 2.0
    assert float(f(Config(rate=0.25))) == 1.0
    assert float(f(Config(rate=0.5, steps=2))) == 1.0
    assert traces == [4, 2]


def test_vmap_over_a_float_setting():
    rates = jax.numpy.array([0.1, 0.2])
    stacked = jax.tree.map(lambda _: rates, Config())
    assert jax.vmap(lambda c: c.rate * 2)(stacked).tolist() == pytest.approx([0.2, 0.4])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 0.0}, "rate is 0.0; it must be above 0"),
        ({"rate": 1.5}, "rate is 1.5; it must be at most 1"),
        ({"rate": float("nan")}, "rate is nan; it must be a finite number"),
        ({"rate": "fast"}, "rate is 'fast'; it must be a finite number"),
        ({"limit": -1.0}, "limit is -1.0; it must be above 0"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"steps": 1.5}, "steps is 1.5; it must be a whole number"),
        ({"steps": True}, "steps is True; it must be a whole number"),
        ({"sizes": (64, 0)}, "sizes is (64, 0); it must be at least 1"),
        ({"kind": "c"}, "kind is 'c'; it must be one of a, b"),
        ({"flag": 1}, "flag is 1; it must be true or false"),
        ({"flag": True, "steps": 1}, "flag needs two steps"),
        ({"ratee": 0.1}, "has no option ratee; did you mean rate?"),
    ],
)
def test_bad_values_are_refused_when_the_config_is_built(values, message):
    with pytest.raises(ConfigError) as error:
        from_dict(Config, values)
    assert message in str(error.value)


def test_plain_values_round_trip_and_yaml_spellings_are_understood():
    c = Config(rate=0.3, sizes=(8,), limit=5.0)
    assert from_dict(Config, to_dict(c)) == c
    # yaml.safe_load("1e-3") is a string.
    assert from_dict(Config, {"rate": "1e-3"}).rate == 0.001


def test_source_text_tells_what_the_import_would(tmp_path):
    path = tmp_path / "thing.py"
    path.write_text(
        "class Config:\n"
        '    """A thing.\n\n    It is."""\n'
        "    rate: float | None = setting(default=None, above=0)\n"
        '    """How\n    fast."""\n'
        "    sizes: tuple[int, ...] = setting(default=(1, 2), least=1)\n"
        '    kind: Literal["a", "b"] = "a"\n'
    )
    doc, fields = describe(path)
    assert doc == "A thing. It is."
    assert [(f.name, f.default, f.doc) for f in fields] == [
        ("rate", None, "How fast."),
        ("sizes", (1, 2), ""),
        ("kind", "a", ""),
    ]
    assert fields[0].kind == float | None
    assert fields[2].kind == typing.Literal["a", "b"]


@pytest.mark.parametrize("name", ["ppo"])
def test_algorithm_options_read_from_source_equal_the_imported_ones(name):
    import dataclasses
    import importlib

    from tradax import discovery

    module = importlib.import_module(f"tradax.algorithms.{name}")
    read = {f.name: f.default for f in discovery.options("algorithms", name)}
    assert read == {f.name: f.default for f in dataclasses.fields(module.Config)}
    assert all(f.doc for f in discovery.options("algorithms", name))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"learning_rate": np.float32(-1e-3)}, "learning_rate is -0.001"),
        ({"learning_rate": [1e-3]}, "it must be a finite number"),
        ({"activation": ["tanh"]}, "it must be one of"),
        ({"minibatches": np.int64(7), "learning_rate": np.float32(1e-3)}, "do not divide into 7"),
        ({"shared_network": [0]}, "it must be true or false"),
        ({"objective": {}}, "it must be one of"),
    ],
)
def test_values_of_other_kinds_are_checked_too(option, message):
    with pytest.raises(ConfigError, match=message):
        ppo.Config(**option)


def test_numpy_numbers_become_plain_ones():
    made = ppo.Config(num_envs=np.int64(16), gamma=np.float64(0.5), hidden_sizes=[np.int32(8)])
    assert made == ppo.Config(num_envs=16, gamma=0.5, hidden_sizes=(8,))
