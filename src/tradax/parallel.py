"""Several devices and several machines: one program on all of them.

One run: every device runs the same update from the same state; an algorithm that splits its work
(`Algorithm.splits_over_devices`) does its part and gathers what the others found. So the state
is equal on all devices at all times, and any of them can save it.

Several members (seeds, symbols, settings): each device trains its part of them, and none waits for
another before the end of a chunk.

Several machines are one `jax.distributed` job: the same command on each, with the address of the
first. Their processes agree before every chunk of updates on its length and on stopping.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tradax.errors import ConfigError, LostProcessError, TradaxError

AXIS = "devices"
MEMBERS = PartitionSpec(AXIS)
"""Each device has a part of the leading axis."""
SAME = PartitionSpec()
"""All devices have all of it."""
_HEARTBEAT_SECONDS = 30
_STARTUP_SECONDS = 120
_SHUTDOWN_SECONDS = 20


def device_mesh(count: int | None = None) -> Mesh:
    """A mesh of one axis over all devices of all processes, or over the first `count`.

    Raises:
        ConfigError: there are fewer devices; the message says how to simulate more.
    """
    devices = jax.devices()
    if count is None:
        count = len(devices)
    if not 1 <= count <= len(devices):
        raise ConfigError(
            f"{count} devices were asked for, and there are {len(devices)} "
            f"({devices[0].platform}); CPU devices can be simulated: "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={max(count, 1)}"
        )
    if count < len(devices) and jax.process_count() > 1:
        raise ConfigError(
            f"{count} devices were asked for; with several processes all {len(devices)} are used"
        )
    return Mesh(np.array(devices[:count]), (AXIS,))


def join(
    coordinator: str | None = None, process_id: int | None = None, processes: int | None = None
) -> None:
    """Become one of the processes of a job; before JAX computes anything.

    Without arguments they are read from the environment: SLURM, Open MPI, Cloud TPU, or on
    Kubernetes a JobSet's or indexed Job's `JOB_COMPLETION_INDEX` with TRADAX_COORDINATOR and
    TRADAX_PROCESSES.

    Args:
        coordinator: HOST:PORT of the first process.

    Raises:
        ConfigError: some are missing, or do not fit each other.
        TradaxError: the others were not found in time.
    """
    env = os.environ
    coordinator = coordinator or env.get("TRADAX_COORDINATOR")
    if process_id is None and "JOB_COMPLETION_INDEX" in env:
        process_id = int(env["JOB_COMPLETION_INDEX"])
    if processes is None and "TRADAX_PROCESSES" in env:
        processes = int(env["TRADAX_PROCESSES"])
    given = {"coordinator": coordinator, "process-id": process_id, "processes": processes}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    scheduled = any(name in env for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri"))
    if missing and not (scheduled and len(missing) == 3):
        raise ConfigError(
            f"a job of several processes needs {', '.join(missing)} (or SLURM, or "
            "TRADAX_COORDINATOR, TRADAX_PROCESSES and JOB_COMPLETION_INDEX in the environment)"
        )
    if processes is not None and process_id is not None and not 0 <= process_id < processes:
        raise ConfigError(f"process-id is {process_id}; it must be 0 to {processes - 1}")
    if coordinator is not None and ":" not in coordinator:
        raise ConfigError(f"coordinator is {coordinator}; it must be HOST:PORT")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator,
            num_processes=processes,
            process_id=process_id,
            initialization_timeout=_STARTUP_SECONDS,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        if "before any JAX calls" in str(error):
            raise ConfigError(
                "a process joins its job before anything is computed; call tradax.parallel.join "
                "first, and import other modules of tradax after it"
            ) from error
        raise TradaxError(
            f"the other processes were not reached at {coordinator or 'the address of the job'} "
            f"within {_STARTUP_SECONDS} s ({str(error).splitlines()[0]}); start the same command "
            "on every machine"
        ) from error


def leave() -> None:
    """Part from the other processes; what follows is each one's own."""
    if jax.process_count() > 1:
        jax.distributed.shutdown()


def everywhere(
    function: Callable, mesh: Mesh, in_specs: Any = SAME, out_specs: Any = SAME
) -> Callable:
    """Run on every device.

    Args:
        in_specs, out_specs: of arguments and results: SAME where all devices take or give the
            same, MEMBERS where each has its part of the leading axis.
    """
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def of_all(fold: Callable, x: jax.Array) -> jax.Array:
    """`fold` (such as `jnp.min`) of what all devices found."""
    return fold(jax.lax.all_gather(x, AXIS))


def spread(tree: Any, mesh: Mesh) -> Any:
    """A copy of every array on every device of the mesh; all processes hold the same."""
    sharding = NamedSharding(mesh, SAME)

    def one(x):
        if _is_key(x):
            data = one(jax.random.key_data(x))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, tree)


def here(tree: Any) -> Any:
    """What `spread` arrays hold, as arrays of this process's first device."""

    def one(x):
        if _is_key(x):
            return jax.random.wrap_key_data(
                one(jax.random.key_data(x)), impl=jax.random.key_impl(x)
            )
        return x.addressable_data(0)

    return jax.tree.map(one, tree)


def share_out(tree: Any, mesh: Mesh) -> Any:
    """Every array with its leading axis, that of the members, in equal parts on the devices."""
    sharding = NamedSharding(mesh, MEMBERS)

    def one(x):
        if _is_key(x):
            return jax.random.wrap_key_data(
                one(jax.random.key_data(x)), impl=jax.random.key_impl(x)
            )
        if isinstance(x, jax.Array) and x.sharding.is_equivalent_to(sharding, x.ndim):
            return x
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, tree)


def together(tree: Any) -> Any:
    """What `share_out` arrays hold, as far as this process cannot read all of it, on its device."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    def one(x):
        if _is_key(x):
            return jax.random.wrap_key_data(
                one(jax.random.key_data(x)), impl=jax.random.key_impl(x)
            )
        if x.is_fully_addressable or x.is_fully_replicated:
            return jnp.asarray(x.addressable_data(0))
        return jnp.asarray(multihost_utils.process_allgather(x, tiled=True))

    return jax.tree.map(one, tree)


def agree(length: int, stop: int) -> tuple[int, int]:
    """The first process's length of a chunk; the signal to stop that any process got, or 0."""
    if jax.process_count() == 1:
        return length, stop
    from jax.experimental import multihost_utils

    with losses():
        told = np.asarray(multihost_utils.process_allgather(np.array([length, stop], np.int32)))
    return int(told[0, 0]), int(told[:, 1].max())


def least(value: int | None) -> int | None:
    """The least that any process has; None where one has none."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    known = np.array([-1 if value is None else value], np.int64)
    # As two halves, for JAX makes 32 bits of 64.
    halves = np.stack([known >> 31, known & 0x7FFFFFFF]).astype(np.int32)
    with losses():
        told = np.asarray(multihost_utils.process_allgather(halves)).astype(np.int64)
    all_ = (told[:, 0, 0] << 31) | told[:, 1, 0]
    return None if (all_ < 0).any() else int(all_.min())


@contextlib.contextmanager
def losses() -> Iterator[None]:
    """Raises LostProcessError where a computation failed because another process has gone."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # where it fails decides which
        if jax.process_count() == 1:
            raise
        raise LostProcessError(
            "another process of the job has gone, or the network to it "
            f"({str(error).splitlines()[0][:200]}). The last checkpoint is kept; start all "
            "processes again with --resume"
        ) from error


def is_first() -> bool:
    """Whether this process writes the files."""
    return jax.process_index() == 0


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
