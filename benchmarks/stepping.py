"""Environment steps a second, for every environment that comes with tradax, without a policy.

1,024 copies side by side under random actions drawn beforehand, in one compiled scan: as training
steps them (`JaxSource.collect`: automatic reset, observations by row, all experience stored), and
by `step` of the gymnax interface (automatic reset, flat observations, read). The portfolio holds
20 assets. Median of 5 runs; compilation is not counted.
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
from tradax.envs._baselines import Plan
from tradax.rollout import jax_source
from tradax.spaces import ActionSpec, action_spec

ENVS, STEPS, REPEATS = 1_024, 200, 5


def made():
    """Name -> environment and parameters, on as much data as each of them takes."""
    bars = synthetic.load("gbm", bars=2_520, assets=20, correlation=0.3)
    markets = Pipeline.fit(bars).transform(bars)
    span = Span(markets[0].first_row, len(bars) - 1)
    found = {}
    for name in discovery.environments():
        module = discovery.module("envs", name)
        if not discovery.functions("envs", name) & {"rivals", "over_span"}:
            found[name] = module.make(module.Config())
            continue
        data = markets if getattr(module, "HOLDS_ALL_SYMBOLS", False) else markets[0]
        found[name] = module.make(module.Config(), data, span)
    return found


def collected(env, params) -> float:
    """Steps a second of `JaxSource.collect`."""
    source = jax_source(env, params, num_envs=ENVS)
    actor = Plan(random_actions(source.spec.action, (STEPS,)))

    @eqx.filter_jit
    def run(source, carry, actor, key):
        return source.collect(carry, actor, key, STEPS)

    carry = eqx.filter_jit(source.reset)(jax.random.key(0), actor)
    return timed(lambda key: run(source, carry, actor, key))


def stepped(env, params) -> float:
    """Steps a second of gymnax's `step`."""
    actions = random_actions(action_spec(env.action_space(params)), (STEPS, ENVS))

    @eqx.filter_jit
    def run(state, actions, params, key):
        def one_step(carry, step):
            keys, action = step
            state, total = carry
            obs, state, reward, *_ = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
                keys, state, action, params
            )
            return (state, total + reward + obs.sum(axis=-1)), None  # read, so not left out

        keys = jax.random.split(key, (STEPS, ENVS))
        return jax.lax.scan(one_step, (state, jnp.zeros(ENVS)), (keys, actions))[0]

    reset = jax.jit(jax.vmap(env.reset_state, in_axes=(0, None)))
    state = reset(jax.random.split(jax.random.key(0), ENVS), params)
    return timed(lambda key: run(state, actions, params, key))


def random_actions(spec: ActionSpec, shape: tuple[int, ...]) -> jax.Array:
    key = jax.random.key(0)
    if spec.n is not None:
        return jax.random.randint(key, shape, 0, spec.n)
    low, high = jnp.array(spec.low), jnp.array(spec.high)
    return jax.random.uniform(key, (*shape, spec.size), minval=low, maxval=high)


def timed(run) -> float:
    seconds = []
    for repeat in range(REPEATS + 1):
        start = time.perf_counter()
        jax.block_until_ready(run(jax.random.key(repeat)))
        seconds.append(time.perf_counter() - start)
    return ENVS * STEPS / float(np.median(seconds[1:]))


def main() -> None:
    device = jax.devices()[0]
    print(f"{ENVS:,} environments on {device.device_kind} ({device.platform})\n")
    print("| environment | as training steps it, steps/s | gymnax step, steps/s |")
    print("|---|---|---|")
    for name, (env, params) in made().items():
        print(
            f"| {name} | {collected(env, params):,.0f} | {stepped(env, params):,.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
