"""What the classes with Stable-Baselines3's interface share: learn, predict, save, load."""

import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax import discovery
from tradax.config import plain
from tradax.errors import ConfigError, ModelFileError
from tradax.evaluation.scoring import play
from tradax.hooks import Display
from tradax.policies import NetworkPolicy
from tradax.protocols import Algorithm, Source
from tradax.replay import check_memory
from tradax.sb3 import _learners as learners
from tradax.sb3 import _spaces, _weights, _zip
from tradax.sb3._arguments import Arguments, check, config_of, device_of, schedules
from tradax.sb3._attributes import Attributes
from tradax.sb3._callbacks import Callback, as_callback
from tradax.sb3._environments import Environment, Seen, environment, same_spaces
from tradax.sb3._hyperparameters import ARGUMENTS
from tradax.sb3._learning import Learning
from tradax.sb3._logger import Logger
from tradax.spaces import Spec

_LONGEST = 1_000_000  # steps of an episode that is evaluated


class Model(Attributes):
    """A policy and how it learns, behind Stable-Baselines3's calls.

    Where no callback is given, updates run many at a time inside one compiled program. With one,
    the steps of an update are collected together, then the callback is called once a step, then
    the update is made; where the callback returns False learning stops before it.
    """

    name: ClassVar[str]
    """Of the algorithm."""
    log_interval: ClassVar[int] = 1
    """Rows of the log come after so many updates, or episodes."""
    counts_episodes: ClassVar[bool] = False

    def __init__(self, policy: Any, env: Any, arguments: Arguments):
        # Plain numbers, as a file keeps them.
        arguments = {name: plain(value) for name, value in arguments.items()}
        check(self.name, policy, arguments)
        self.arguments = arguments
        self.verbose = int(arguments["verbose"])
        self.seed = arguments["seed"]
        self.tensorboard_log = arguments["tensorboard_log"]
        self.device = device_of(arguments["device"])
        self.num_timesteps = 0
        self.ep_info_buffer: deque = deque(maxlen=arguments.get("stats_window_size", 100))
        self._n_updates = 0
        self._logger: Logger | None = None
        self._environment: Environment | None = None
        self._vec_env: Any = None
        self._learning: Learning | None = None
        seed = int.from_bytes(os.urandom(4), "little") if self.seed is None else self.seed
        self._key = jax.random.key(seed)
        if env is not None:
            found = environment(env)
            _spaces.check_writable(found.observation_space, found.action_space)
            self._build(found.source.spec, found.source.num_envs, found)
            self._environment = found

    def _build(self, spec: Spec, num_envs: int, spaces: Any) -> None:
        self.n_envs = num_envs
        self.observation_space = spaces.observation_space
        self.action_space = spaces.action_space
        self._seen = Seen.of(self.observation_space, self.action_space)
        config = config_of(self.name, self.arguments, num_envs)
        self._schedules = schedules(self.name, self.arguments)
        make = discovery.module("algorithms", self.name).make
        algorithm = make(config, spec, jnp.float32(1))
        self.algorithm: Algorithm = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), algorithm)
        check_memory(self.algorithm.memory())
        self._key, learner_key = jax.random.split(self._key)
        self.learner: Any = learners.init(self.algorithm, learner_key)

    # What is deployed.

    @property
    def policy(self) -> NetworkPolicy:
        """What is learned, as tradax deploys it: `model.policy.act(obs)`."""
        return learners.policy(self.algorithm, self.learner)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """Actions for one observation, or for several as one array.

        Returns: action, and `state` as it was given, for these policies have none.

        Raises:
            ValueError: the observation has another shape.
        """
        if isinstance(observation, tuple):
            raise ValueError(
                "the observation is a tuple; env.reset() of Gymnasium returns (observation, info): "
                "give its first entry"
            )
        raw = np.asarray(observation)
        shape = self._seen.shape
        single = raw.shape == shape
        if not single and raw.shape[1:] != shape:
            raise ValueError(
                f"the observation has shape {raw.shape}; the model takes {shape} or {('n', *shape)}"
            )
        obs = self._seen.see(raw, 1 if single else len(raw))
        key = None
        if not deterministic:
            self._key, key = learners.split(self._key)
        action = self._seen.act(np.asarray(learners.act(self.algorithm, self.learner, obs, key)))
        return (action[0] if single else action), state

    def episodes(self, source: Source, count: int, deterministic: bool) -> tuple[list, list]:
        """Returns and lengths of `count` episodes, as many at a time as the source has."""
        actor, returns, lengths = self.policy.actor(sample=not deterministic), [], []
        while len(returns) < count:
            self._key, key = learners.split(self._key)
            played = play(source, actor, key, _LONGEST)
            returns += np.asarray(played[0], float).tolist()
            lengths += np.asarray(played[1], int).tolist()
        return returns[:count], lengths[:count]

    # How it learns.

    def learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        log_interval: int | None = None,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Take at least `total_timesteps` steps, in whole updates, and learn from them.

        Args:
            callback: a callback of Stable-Baselines3, several, or a function of
                (locals, globals); see the class.
            log_interval: updates, off-policy episodes, between rows of the log.
            tb_log_name: folder below `tensorboard_log`.
            reset_num_timesteps: False counts on from where an earlier call ended.

        Raises:
            ConfigError: the model has no environment.
            TrainingError: a number became NaN or infinite.
        """
        if self._environment is None:
            raise ConfigError("the model has no environment; call set_env(env) before learn")
        told = as_callback(callback)
        if reset_num_timesteps or self._learning is None:
            self._key, key = jax.random.split(self._key)
            source = self._environment.source
            self._learning = Learning(self.algorithm, source, self.learner, key)
        if reset_num_timesteps:
            self.num_timesteps = 0
        self._total_timesteps = int(total_timesteps) + self.num_timesteps
        self._begun_at = self.num_timesteps
        interval = self.log_interval if log_interval is None else log_interval
        self._logger = Logger(
            self.verbose,
            self.tensorboard_log,
            tb_log_name or self.name.upper(),
            go_on=not reset_num_timesteps,
        )
        display = Display(self._total_timesteps) if progress_bar else None
        self._started, self._logged_at = time.perf_counter(), 0
        try:
            if told is not None:
                self._learn_told(told, interval, display)
            else:
                self._learn_alone(interval, display)
        finally:
            # Also after Ctrl-C: updates overwrite the learner that they began from.
            self.learner = self._learning.learner
            if display is not None:
                display.close()
            self._logger.close()
        return self

    def _learn_alone(self, interval: int, display: Display | None) -> None:
        """Many updates at a time, as long as nobody listens and no schedule moves."""
        learning, n = self._now(), 1
        while self.num_timesteps < self._total_timesteps:
            left = self._updates_left()
            n = min(n, left)
            if self._heard and not self.counts_episodes:
                n = min(n, interval - learning.updates_since_log)
            if self._schedules:
                self._follow_schedules(self.num_timesteps + self.algorithm.steps_per_update)
                n = 1
            began = time.perf_counter()
            learning.run(self.algorithm, n)
            seconds = time.perf_counter() - began
            self._counted(learning, n)
            n = max(1, min(4 * n, round(0.25 * n / max(seconds, 1e-6))))
            self._log(learning, interval)
            self._show(display)

    def _learn_told(self, callback: Callback, interval: int, display: Display | None) -> None:
        learning = self._now()
        callback.init_callback(self)
        callback.on_training_start(
            {"self": self, "total_timesteps": self._total_timesteps, "callback": callback},
            sys.modules["__main__"].__dict__,
        )
        while self.num_timesteps < self._total_timesteps:
            callback.on_rollout_start()
            learning.collect(self.algorithm)
            if not self._report(callback, learning):
                break
            callback.on_rollout_end()
            self._follow_schedules(self.num_timesteps)
            learning.learn(self.algorithm)
            self._counted(learning, 1, steps=0)
            self._log(learning, interval)
            self._show(display)
        callback.on_training_end()

    def _report(self, callback: Callback, learning: Learning) -> bool:
        """Call the callback for every step. Returns: whether to go on."""
        for t, step in enumerate(learning.steps(self._seen)):
            self.num_timesteps += self.n_envs
            for info in step["infos"]:
                if "episode" in info:
                    self.ep_info_buffer.append(info["episode"])
            callback.update_locals({"self": self, "n_steps": t, "callback": callback, **step})
            if not callback.on_step():
                return False
        return True

    def _now(self) -> Learning:
        assert self._learning is not None
        return self._learning

    def _updates_left(self) -> int:
        left = self._total_timesteps - self.num_timesteps
        return -(-left // self.algorithm.steps_per_update)

    def _follow_schedules(self, steps: int) -> None:
        """As after so many steps: those that the next update learns from are among them."""
        remaining = max(0.0, 1.0 - steps / self._total_timesteps)
        for option, schedule in self._schedules.items():
            value = jnp.float32(schedule(remaining))
            self.algorithm = eqx.tree_at(
                lambda a, option=option: getattr(a.config, option), self.algorithm, value
            )

    def _counted(self, learning: Learning, updates: int, steps: int | None = None) -> None:
        self.learner = learning.learner
        self._n_updates += updates
        self.num_timesteps += updates * self.algorithm.steps_per_update if steps is None else steps

    @property
    def _heard(self) -> bool:
        return bool(self.verbose) or self.tensorboard_log is not None

    def _log(self, learning: Learning, interval: int) -> None:
        if not self._heard:
            return
        since = learning.episodes_since_log if self.counts_episodes else learning.updates_since_log
        if since < interval:
            return
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        self._logged_at += 1
        self.logger.record_update(
            learning.metrics() | {"n_updates": self._n_updates},
            learning.mean_episode(),
            {
                "iterations": self._logged_at,
                "fps": int((self.num_timesteps - self._begun_at) / elapsed),
                "time_elapsed": int(elapsed),
                "total_timesteps": self.num_timesteps,
            },
        )
        self.logger.dump(self.num_timesteps)
        learning.forget_metrics()

    def _show(self, display: Display | None) -> None:
        if display is not None:
            elapsed = max(time.perf_counter() - self._started, 1e-9)
            speed = (self.num_timesteps - self._begun_at) / elapsed
            display.on_tick(min(self.num_timesteps, self._total_timesteps), speed)

    @property
    def logger(self) -> Logger:
        if self._logger is None:
            self._logger = Logger(self.verbose, None, "", go_on=False)
        return self._logger

    # Environments.

    @property
    def env(self) -> Any:
        return self.get_env()

    def get_env(self) -> Any:
        """The environment as a VecEnv of Stable-Baselines3, which must be installed; or None."""
        if self._environment is None:
            return None
        if self._vec_env is None:
            self._vec_env = self._environment.vec_env()
        return self._vec_env

    def get_vec_normalize_env(self) -> Any:
        """The VecNormalize around the environment, or None."""
        return None if self._environment is None else self._environment.vec_normalize

    def set_env(self, env: Any, force_reset: bool = True) -> None:
        """Learn in another environment from now on; it begins with new episodes.

        Raises:
            ConfigError: it has other spaces, or another number of environments.
        """
        self._enter(environment(env))

    def _enter(self, found: Environment) -> None:
        for kind in ("observation_space", "action_space"):
            old, new = getattr(self, kind), getattr(found, kind)
            if not same_spaces(old, new):
                raise ConfigError(f"the model's {kind} is {old}; that of the environment is {new}")
        if found.source.num_envs != self.n_envs:
            raise ConfigError(
                f"the model was built for {self.n_envs} environments, and these are "
                f"{found.source.num_envs}; open it with {type(self).__name__}.load(path, env)"
            )
        if found.source.spec != self.algorithm.spec:
            states = self.get_parameters()
            self._build(found.source.spec, self.n_envs, found)
            self.set_parameters(states)
        self._environment, self._vec_env, self._learning = found, None, None

    # Files and parameters.

    def save(self, path: Path | str | BinaryIO, exclude: Any = None, include: Any = None) -> None:
        """Write a zip that Stable-Baselines3 opens, and `load`; see docs/sb3.md."""
        if exclude or include:
            raise ConfigError("exclude and include are not supported; a file holds the same always")
        kept = {
            name: value
            for name, value in self.arguments.items()
            if name in ARGUMENTS[self.name] and isinstance(value, int | float | str | None)
        }
        if kept.get("target_entropy") == "auto":
            del kept["target_entropy"]  # Stable-Baselines3 reads a number
        if self.arguments.get("action_noise") is not None:
            print("action_noise is not kept in the file: give it to load again", file=sys.stderr)
        _zip.save_model(
            path,
            self.algorithm,
            self.learner,
            arguments=kept,
            data={
                "num_timesteps": self.num_timesteps,
                "_n_updates": self._n_updates,
                "n_envs": self.n_envs,
                "seed": self.seed,
            },
            observation_space=self.observation_space,
            action_space=self.action_space,
        )

    @classmethod
    def load(
        cls,
        path: Path | str | BinaryIO,
        env: Any = None,
        device: str = "auto",
        custom_objects: Any = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Open a zip that `save` or Stable-Baselines3 wrote. Executes no code of it.

        Args:
            env: where to go on learning; without one the model predicts.
            custom_objects, kwargs: constructor arguments in place of those in the file, such as
                schedules, which a file does not keep. `lr_schedule` follows from the learning
                rate and is passed over.

        Raises:
            ModelFileError: not such a file, or a model of another algorithm.
        """
        file = _zip.open_model(path, plain=True)
        if file.algorithm != cls.name:
            raise ModelFileError(f"{path}: a model of {file.algorithm}, not of {cls.name}")
        for note in file.left_out:
            print(f"{path}: {note}", file=sys.stderr)
        networks = {"net_arch": list(file.hidden_sizes), "activation_fn": file.activation}
        if file.critics > 1:
            networks["n_critics"] = file.critics
        arguments = {**file.arguments, **(custom_objects or {}), **kwargs}
        arguments.pop("lr_schedule", None)
        arguments.setdefault("policy_kwargs", networks)
        made: Any = cls  # whose arguments are an algorithm's own
        model = made("MlpPolicy", None, device=device, **arguments)
        found = None if env is None else environment(env)
        num_envs = found.source.num_envs if found else int(file.data.get("n_envs", 1))
        model._build(file.spec, num_envs, file)
        model.learner = file.restore(model.algorithm, model.learner)
        model.num_timesteps = int(file.data.get("num_timesteps", 0))
        model._n_updates = int(file.data.get("_n_updates", 0))
        if found is not None:
            model._enter(found)
        return model

    def get_parameters(self) -> dict[str, Any]:
        """Stable-Baselines3's state dictionaries, of NumPy arrays."""
        return _weights.to_state(self.algorithm, self.learner)

    def set_parameters(
        self, load_path_or_dict: Any, exact_match: bool = True, device: str = "auto"
    ) -> None:
        """Take parameters from a file, or from what `get_parameters` returned.

        Raises:
            ModelFileError: they belong to other networks.
        """
        if not exact_match:
            raise ConfigError("exact_match=False is not supported; give all parameters")
        if isinstance(load_path_or_dict, dict):
            states = _weights.given(self.algorithm, self.learner, load_path_or_dict)
            self.learner = _weights.from_state(
                self.algorithm, self.learner, states, source="parameters"
            )
        else:
            file = _zip.open_model(load_path_or_dict, plain=True)
            self.learner = file.restore(self.algorithm, self.learner)
        self._learning = None

    def set_random_seed(self, seed: int | None = None) -> None:
        """What is drawn from now on follows from `seed`."""
        if seed is not None:
            self._key = jax.random.key(seed)
