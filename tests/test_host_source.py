import copy

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import tradax
from tradax import checkpoint, training
from tradax.algorithms import genetic, ppo, sac
from tradax.envs import from_gymnasium
from tradax.envs.probes import Mortal
from tradax.errors import ConfigError, TradaxError
from tradax.protocols import Actor
from tradax.rollout import jax_source
from tradax.sources import source_of
from tradax.spaces import ActionSpec


class Counting(gymnasium.Env):
    """Observes [episode, step]; an action of 1 terminates, four steps truncate; earns the step."""

    observation_space = spaces.Box(-1.0, 1e6, (2,), np.float64)
    action_space = spaces.Discrete(2)
    episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return self._obs(), {}

    def step(self, action):
        self.time += 1
        return self._obs(), self.time, bool(action == 1), self.time == 4, {}

    def _obs(self):
        return np.array([self.episode, self.time], np.float64)


class Timed(gymnasium.Env):
    """`tradax.envs.probes.Mortal` as Gymnasium writes it: 1 a step, over after five."""

    observation_space = spaces.Box(0.0, 10.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.float32([0, 0]), {}

    def step(self, action):
        self.time += 1
        return np.float32([0, self.time]), 1.0, self.time == 5, False, {}


class Scripted(Actor):
    """Ends the episode (1) after its third step where `ends`; remembers the episode's steps."""

    ends: jax.Array

    def initial_memory(self, batch):
        return jnp.zeros(batch, jnp.int32)

    def __call__(self, obs, memory, key):
        action = ((memory == 2) & self.ends).astype(jnp.int32)
        return action, memory + 1, {"memory": memory}


class Still(Actor):
    """Zeros for ever."""

    spec: ActionSpec = eqx.field(static=True)

    def __call__(self, obs, memory, key):
        if self.spec.discrete:
            return jnp.zeros(obs.shape[0], jnp.int32), memory, ()
        return jnp.full((obs.shape[0], self.spec.size), 9.0), memory, ()


class VecEnv:
    """Three `Counting` as Stable-Baselines3 steps them: what it promises, without its class."""

    num_envs = 3
    observation_space, action_space = Counting.observation_space, Counting.action_space

    def __init__(self):
        self.envs = [Counting() for _ in range(3)]

    def reset(self):
        return np.stack([env.reset()[0] for env in self.envs])

    def step_async(self, actions):
        self.actions = actions

    def step_wait(self):
        rows = []
        for env, action in zip(self.envs, self.actions, strict=True):
            obs, reward, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                info = {
                    "terminal_observation": obs,
                    "TimeLimit.truncated": truncated and not terminated,
                }
                obs = env.reset()[0]
            rows.append((obs, reward, terminated or truncated, info))
        obs, reward, done, infos = zip(*rows, strict=True)
        return np.stack(obs), np.array(reward), np.array(done), list(infos)


ENDS = Scripted(jnp.array([True, False, True]))
CONFIG = ppo.Config(num_envs=4, n_steps=8, minibatches=2, hidden_sizes=(8,))


def train(source, config=CONFIG, algorithm=ppo, updates=3, **arguments):
    made = algorithm.make(config, source.spec, jnp.float32(1))
    key = jax.random.key(arguments.pop("seed", 0))
    steps = updates * made.steps_per_update
    return training.train(made, source, key, total_timesteps=steps, **arguments)


def untimed(rows):
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "steps_per_second")} for row in rows
    ]


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


@pytest.mark.parametrize(
    "envs",
    [
        lambda: from_gymnasium(Counting, num_envs=3),
        lambda: from_gymnasium(Counting(), num_envs=3),
        lambda: from_gymnasium(VecEnv()),
        lambda: from_gymnasium(SyncVectorEnv([Counting] * 3)),  # made anew in the right mode
    ],
)
def test_terminal_observations_are_true_and_truncation_is_no_termination(envs):
    source = envs()
    carry = source.reset(jax.random.key(0), ENDS)
    carry, first, finished = source.collect(carry, ENDS, jax.random.key(1), 6)
    assert first.obs.dtype == first.reward.dtype == np.float32
    assert first.obs[:, 0].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert first.next_obs[:, 0].tolist() == [[0, 1], [0, 2], [0, 3], [1, 1], [1, 2], [1, 3]]
    assert first.reward[:, 1].tolist() == [1, 2, 3, 4, 1, 2]
    assert first.terminated.astype(int).T.tolist() == [
        [0, 0, 1, 0, 0, 1],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 1],
    ]
    assert np.flatnonzero(first.truncated).tolist() == [3 * 3 + 1]
    # What the actor remembers is forgotten with the episode.
    assert first.extras["memory"][:, 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert [float(x) for x in finished[:3]] == [5, 4 * 6 + 10, 4 * 3 + 4]
    _, second, _ = source.collect(carry, ENDS, jax.random.key(2), 2)
    np.testing.assert_array_equal(second.obs[0], [[2, 0], [1, 2], [2, 0]])
    assert second.extras["memory"][0].tolist() == [0, 2, 0]


def test_episodes_count_only_until_each_first_end_or_the_limit():
    source = from_gymnasium(Counting, num_envs=3)
    returns, lengths = source.episodes(ENDS, jax.random.key(0), 100)
    assert (returns.tolist(), lengths.tolist()) == ([6, 10, 6], [3, 4, 3])
    assert source.episodes(ENDS, jax.random.key(0), 2)[0].tolist() == [3, 3, 3]


def test_copies_begin_alike_and_keys_decide():
    source = from_gymnasium("CartPole-v1", num_envs=4)
    actor = Still(source.spec.action)
    a, b = source.episodes(actor, jax.random.key(3), 100, copies=2)
    assert a[:2].tolist() == a[2:].tolist()
    assert len(set(b.tolist())) > 1
    first, again = (source.reset(jax.random.key(0), actor).obs for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, source.reset(jax.random.key(1), actor).obs)


@pytest.mark.parametrize(
    ("algorithm", "config", "env"),
    [
        (ppo, CONFIG, "CartPole-v1"),
        (sac, sac.Config(learning_starts=4, batch_size=4, hidden_sizes=(4,)), "Pendulum-v1"),
        (
            genetic,
            genetic.Config(population_size=10, episodes=2, episode_limit=9, hidden_sizes=(4,)),
            "CartPole-v1",
        ),
    ],
)
def test_equal_seeds_give_equal_runs(algorithm, config, env):
    updates = 8 if algorithm is sac else 3
    source = from_gymnasium(env, num_envs=config.num_envs)
    first, second, other = (
        train(source, config, algorithm, updates, seed=seed, log_rows=2) for seed in (0, 0, 1)
    )
    assert untimed(first.rows[0]) == untimed(second.rows[0])
    assert same(first.policy, second.policy)
    assert not same(first.policy, other.policy)


def test_experience_from_the_host_equals_that_from_the_device():
    """What is learned from it is one function for both."""
    found = []
    for source in (from_gymnasium(Timed, num_envs=3), jax_source(Mortal(), num_envs=3)):
        reset, collect = source.reset, source.collect
        if source.jittable:
            reset, collect = eqx.filter_jit(reset), eqx.filter_jit(collect)
        carry = reset(jax.random.key(0), ENDS)
        found.append(collect(carry, ENDS, jax.random.key(1), 12)[1:])
    here, there = found
    jax.tree.map(np.testing.assert_array_equal, here, there)
    assert int(here[1].episodes) == 6


def test_resuming_begins_new_episodes_and_says_so(tmp_path):
    source = from_gymnasium("CartPole-v1", num_envs=4)
    stopped = train(source, updates=2)
    checkpoint.save_checkpoint(tmp_path, stopped.progress)
    algorithm = ppo.make(CONFIG, source.spec, jnp.float32(1))
    like = training.blank(algorithm, source, jax.random.key(0), 96, None)
    saved = checkpoint.load_checkpoint(tmp_path, like)
    assert same(saved.state.learner, stopped.progress.state.learner)
    with pytest.warns(match="from update 2 with new episodes.* differs from that of an uninterr"):
        resumed = train(source, updates=3, resume=saved)
    assert int(resumed.progress.state.update) == 3


def test_discrete_observations_are_one_hot_and_offsets_of_actions_are_kept():
    class Shifted(gymnasium.Env):
        observation_space = spaces.Discrete(3, start=5)
        action_space = spaces.Discrete(2, start=1)

        def reset(self, *, seed=None, options=None):
            return 5, {}

        def step(self, action):
            assert action == 1
            return 7, 0.0, False, False, {}

    source = from_gymnasium(Shifted, num_envs=2)
    assert source.spec.size == 3
    actor = Still(source.spec.action)
    carry = source.reset(jax.random.key(0), actor)
    _, experience, _ = source.collect(carry, actor, jax.random.key(1), 1)
    assert experience.obs[0].tolist() == [[1, 0, 0]] * 2
    assert experience.next_obs[0].tolist() == [[0, 0, 1]] * 2


def test_actions_beyond_the_bounds_are_clipped_for_the_environment_only():
    seen = []

    class Bounded(Counting):
        action_space = spaces.Box(-1.0, 2.0, (), np.float64)

        def step(self, action):
            seen.append(action)
            return super().step(0)

    source = from_gymnasium(Bounded)
    actor = Still(source.spec.action)
    carry = source.reset(jax.random.key(0), actor)
    _, experience, _ = source.collect(carry, actor, jax.random.key(1), 1)
    assert experience.action.tolist() == [[[9.0]]]
    assert (np.shape(seen[0]), float(seen[0])) == ((), 2.0)


def with_spaces(observation=Counting.observation_space, action=Counting.action_space):
    env = Counting()
    env.observation_space, env.action_space = observation, action
    return env


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: with_spaces(spaces.Dict(a=spaces.Discrete(2))), "observation space Dict is not"),
        (lambda: with_spaces(action=spaces.MultiBinary(2)), "action space MultiBinary is not"),
        (lambda: with_spaces(action=spaces.Box(0, 9, (1,), np.int32)), "Box of int32"),
        (lambda: with_spaces(action=spaces.Box(-np.inf, np.inf, (1,))), "unbounded action"),
        (lambda: "NoSuch-v0", "NoSuch-v0 is no environment of Gymnasium"),
        (lambda: 7, "int is no environment of Gymnasium"),
        (
            lambda: gymnasium.wrappers.vector.RecordEpisodeStatistics(SyncVectorEnv([Counting])),
            "resets in mode NEXT_STEP",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_refused_by_name(make, message):
    with pytest.raises(TradaxError, match=message):
        from_gymnasium(make())


def test_an_environment_that_can_be_neither_copied_nor_made_again_is_refused():
    class Single(Counting):
        def __deepcopy__(self, memo):
            raise TypeError("one only")

    with pytest.raises(TradaxError, match="give a function that makes one"):
        from_gymnasium(Single())
    single = SyncVectorEnv([Single], autoreset_mode=AutoresetMode.SAME_STEP)
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(single)
    with pytest.raises(TradaxError, match=r"20 environments .* cannot be made again"):
        tradax.train(env=wrapped, total_timesteps=10)


def test_members_and_devices_are_refused():
    source = from_gymnasium(Counting, num_envs=4)
    with pytest.raises(ConfigError, match="one policy at a time"):
        train(source, members=2)


def test_the_users_own_environment_is_never_stepped():
    env = Counting()
    before = copy.deepcopy(vars(env))
    source = from_gymnasium(env, num_envs=3)
    source.collect(source.reset(jax.random.key(0), ENDS), ENDS, jax.random.key(1), 5)
    assert vars(env) == before


def test_a_run_on_gymnasium_leaves_a_policy_that_acts_on_its_observations(tmp_path):
    settings = {"ppo": {"n_steps": 8, "minibatches": 2, "hidden_sizes": [8]}}
    result = tradax.train(
        env=from_gymnasium("CartPole-v1", num_envs=4),
        settings=settings,
        total_timesteps=128,
        evaluations=1,
        out=tmp_path / "run",
    )
    assert result.summary["episodes"] == 100
    assert result.metrics["gymnasium:CartPole-v1"][-1]["timesteps"] == 128
    with pytest.warns(match="going on from update 4 with new episodes"):
        again = tradax.train(resume=tmp_path / "run", total_timesteps=192)
    assert again.metrics["gymnasium:CartPole-v1"][-1]["timesteps"] == 192
    policy = tradax.load_policy(tmp_path / "run")
    env = gymnasium.make("CartPole-v1")
    obs, _ = env.reset(seed=0)
    assert env.action_space.contains(np.asarray(policy.act(obs)))
    sampled = {int(policy.act(obs, key)) for key in jax.random.split(jax.random.key(0), 12)}
    assert sampled == {0, 1}
    score = tradax.evaluate(policy, "gymnasium:CartPole-v1", episodes=3, max_steps=5)
    assert score.lengths.tolist() == [5, 5, 5]


def test_names_of_gymnasium_take_options_of_make():
    source = source_of("gymnasium:Pendulum-v1", num_envs=2, make_kwargs={"g": 1.0})
    assert source.num_envs == 2
    with pytest.raises(TradaxError, match="g given, which only an id takes"):
        from_gymnasium(Counting, g=1.0)
