import io
import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tradax
from tradax.errors import ModelFileError
from tradax.model_file import load_policy, read_policy_file, save_policy
from tradax.networks import RunningMoments, mlp
from tradax.policies import ActorCritic
from tradax.spaces import ActionSpec, Spec

CONTINUOUS = Spec(5, 3, ActionSpec(low=(-1.0, -2.0), high=(1.0, 2.0)))
DISCRETE = Spec(0, 4, ActionSpec(n=3))


def policy(spec, hidden=(8, 6), normalizer=False):
    actor = mlp(jax.random.key(0), spec, hidden, spec.action.size, "relu")
    log_std = None if spec.action.discrete else jnp.full(spec.action.size, -0.5)
    moments = RunningMoments.create((spec.account,)).update(jnp.ones((3, spec.account)))
    network = ActorCritic(actor, actor, log_std)
    return network.policy(spec, moments if normalizer else None)


@pytest.mark.parametrize("original", [policy(CONTINUOUS), policy(DISCRETE, (8,), True)])
def test_parameters_as_one_vector_and_back(original):
    flat = tradax.flatten_policy(original)
    assert flat.shape == (
        sum(x.size for x in jax.tree.leaves((original.network, original.log_std))),
    )
    other = tradax.unflatten_policy(original, np.asarray(flat) * 2.0)
    np.testing.assert_array_equal(tradax.flatten_policy(other), 2.0 * flat)
    obs = jax.random.normal(jax.random.key(1), (5, original.spec.size))
    same = tradax.unflatten_policy(other, flat)
    np.testing.assert_array_equal(same.act(obs), original.act(obs))
    assert (same.normalizer is None) == (original.normalizer is None)
    with pytest.raises(ValueError, match=r"have shape \(3,\); this policy takes"):
        tradax.unflatten_policy(original, flat[:3])


@pytest.mark.parametrize(
    "original",
    [policy(CONTINUOUS), policy(DISCRETE, (), True), policy(DISCRETE, (8,), True)],
    ids=["market", "linear", "normalised"],
)
def test_a_saved_policy_acts_the_same(tmp_path, original):
    save_policy(original, tmp_path / "policy.zip", {"env": "x"})
    loaded = load_policy(tmp_path)
    obs = jax.random.normal(jax.random.key(1), (20, original.spec.size))
    np.testing.assert_array_equal(original.act(obs), loaded.act(obs))
    key = jax.random.key(2)
    np.testing.assert_array_equal(original.act(obs, key), loaded.act(obs, key))
    assert read_policy_file(tmp_path / "policy.zip").metadata == {"env": "x"}


def test_equal_policies_give_equal_bytes(tmp_path):
    for name in "ab":
        save_policy(policy(CONTINUOUS), tmp_path / f"{name}.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def rewritten(path, name, change):
    """The zip at `path` with one entry changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.namelist():
            content = old.read(entry)
            if entry == name:
                content = change(content)
            if content is not None:
                new.writestr(entry, content)
    path.write_bytes(buffer.getvalue())


def changed_json(**changes):
    return lambda content: json.dumps({**json.loads(content), **changes}).encode()


DAMAGE = {
    "not a zip": (None, lambda _: b"hello", "is no zip archive"),
    "no json": ("policy.json", lambda _: None, "has no policy.json"),
    "no tensors": ("policy.safetensors", lambda _: None, "has no policy.safetensors"),
    "json is a list": ("policy.json", lambda _: b"[]", "not a policy"),
    "json is broken": ("policy.json", lambda c: c[:-3], r"policy\.json: is no JSON, or damaged"),
    "newer version": ("policy.json", changed_json(version=99), "version 99 is newer"),
    "foreign format": ("policy.json", changed_json(format="other"), "not a policy"),
    "huge network": ("policy.json", changed_json(hidden_sizes=[2**24, 2**24]), "more than"),
    "negative width": ("policy.json", changed_json(hidden_sizes=[-1]), "not a size"),
    "other width": ("policy.json", changed_json(hidden_sizes=[8, 7]), r"expected float32"),
    "truncated tensors": (
        "policy.safetensors",
        lambda c: c[:-5],
        r"policy\.safetensors: is damaged",
    ),
    "larger than announced": (
        "policy.safetensors",
        lambda c: c + bytes(10**6),
        "larger than what it may announce",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_and_foreign_files_give_one_clear_error(tmp_path, damage):
    entry, change, message = DAMAGE[damage]
    path = tmp_path / "policy.zip"
    save_policy(policy(CONTINUOUS), path)
    if entry is None:
        path.write_bytes(change(b""))
    else:
        rewritten(path, entry, change)
    with pytest.raises(ModelFileError, match=message):
        load_policy(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"policy.zip: no such file"):
        load_policy(tmp_path)


def test_observations_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"the policy takes \[..., 8\]"):
        policy(CONTINUOUS).act(np.zeros(7))
