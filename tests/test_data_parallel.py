"""Environments and gradients of one run, shared between devices and processes."""

import jax.numpy as jnp
import numpy as np
import pytest

from jobs import job
from tradax.algorithms import npg, ppo
from tradax.cli import main
from tradax.errors import ConfigError
from tradax.model_file import read_policy_file
from tradax.policies import flatten_policy
from tradax.rollout import jax_source


def test_two_processes_learn_what_one_learns(tmp_path):
    arguments = ["train", "--env", "CartPole-v1", "--timesteps", "512", "--evaluations", "1"]
    small = {"num-envs": 8, "n-steps": 16, "minibatches": 2, "hidden-sizes": 8}
    for option, value in small.items():
        arguments += [f"--ppo.{option}", str(value)]
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    processes = job([*arguments, "--out", "two"], tmp_path)
    said = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    files = [read_policy_file(tmp_path / run / "policy.zip") for run in ("one", "two")]
    flat = [flatten_policy(file.policy) for file in files]
    np.testing.assert_allclose(*flat, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (ppo, {"num_envs": 10}, "ppo.num_envs is 10, which does not divide by 4 .*; use 8 or 12"),
        (ppo, {"num_envs": 2}, "ppo.num_envs is 2, .*; use 4$"),
        (
            ppo,
            {"num_envs": 4, "n_steps": 6, "minibatches": 4},
            "24 steps .* into 4 minibatches that divide by 4 devices; use one of 1, 2, 3, 6$",
        ),
        (
            npg,
            {"num_envs": 4, "n_steps": 8, "fisher_samples": 3},
            "npg.fisher_samples is 3, which does not divide the 8 steps of each of 4 devices",
        ),
    ],
)
def test_work_that_does_not_divide_is_refused(module, options, message):
    config = module.Config(**options)
    source = jax_source("CartPole-v1", num_envs=config.num_envs)
    with pytest.raises(ConfigError, match=message):
        module.make(config, source.spec, jnp.float32(1)).check_devices(4)
