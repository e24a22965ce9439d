"""Environment steps a second, for every environment that comes with tradax, without a policy.

1,024 copies side by side under random actions drawn beforehand, in one compiled scan: `step_state`
alone, without reset or observation, and `step` of the gymnax interface, with
automatic reset and flat observation. Median of 5 runs; compilation is not counted.
"""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax import discovery
from tradax.data import synthetic
from tradax.data.pipeline import Pipeline
from tradax.data.splits import Span
from tradax.spaces import action_spec

ENVS, STEPS, REPEATS = 1_024, 200, 5


def made():
    """Name -> environment and parameters, on as much data as each of them takes."""
    bars = synthetic.load("gbm", bars=2_520, assets=5, correlation=0.3)
    markets = Pipeline.fit(bars).transform(bars)
    span = Span(markets[0].first_row, len(bars) - 1)
    found = {}
    for name in discovery.environments():
        module = discovery.module("envs", name)
        if name in ("market_making", "portfolio_execution"):
            found[name] = module.make(module.Config())
            continue
        data = markets if name == "portfolio" else markets[0]
        found[name] = module.make(module.Config(), data, span)
    return found


def speed(env, params, interface: bool) -> float:
    """Args: interface: by `step`, else by `step_state`."""
    spec = action_spec(env.action_space(params))
    shape = (STEPS, ENVS)

    @eqx.filter_jit
    def run(state, actions, params, key):
        def one_step(carry, step):
            keys, action = step
            state, total = carry
            if interface:
                obs, state, reward, *_ = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
                    keys, state, action, params
                )
                total = total + obs.sum(axis=-1)  # so that it is not left out
            else:
                state, reward, _, _ = jax.vmap(env.step_state, in_axes=(0, 0, 0, None))(
                    keys, state, action, params
                )
            return (state, total + reward), None

        keys = jax.random.split(key, shape)
        carry, _ = jax.lax.scan(one_step, (state, jnp.zeros(ENVS)), (keys, actions))
        return carry

    action_key, reset_key = jax.random.split(jax.random.key(0))
    if spec.n is not None:
        actions = jax.random.randint(action_key, shape, 0, spec.n)
    else:
        low, high = jnp.array(spec.low), jnp.array(spec.high)
        actions = jax.random.uniform(action_key, (*shape, spec.size), minval=low, maxval=high)
    reset = jax.jit(jax.vmap(env.reset_state, in_axes=(0, None)))
    state = reset(jax.random.split(reset_key, ENVS), params)
    seconds = []
    for repeat in range(REPEATS + 1):
        start = time.perf_counter()
        jax.block_until_ready(run(state, actions, params, jax.random.key(repeat)))
        seconds.append(time.perf_counter() - start)
    return ENVS * STEPS / float(np.median(seconds[1:]))


def main() -> None:
    device = jax.devices()[0]
    print(f"{ENVS:,} environments on {device.device_kind} ({device.platform})\n")
    print("| environment | step_state, steps/s | gymnax step, steps/s |")
    print("|---|---|---|")
    for name, (env, params) in made().items():
        alone, whole = (speed(env, params, interface) for interface in (False, True))
        print(f"| {name} | {alone:,.0f} | {whole:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
