"""A ray cluster to train on: joined, or started on this machine; what its nodes can take.

Nodes must share a file system with this process: workers train into the sweep's folder.
"""

import contextlib
import importlib
import logging
import os
import secrets
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tradax import device, replay, run_directory
from tradax.errors import ConfigError, TradaxError
from tradax.files import write_atomic

_ANSWER_SECONDS = 180.0
"""For a node's first worker to start and to import JAX."""
_REACH_SECONDS = 20.0
_OBJECT_STORE_BYTES = 2**27
"""Of a cluster of this machine alone; only results travel."""
_SAME = ("tradax", "jax", "jaxlib", "numpy")


class Node(NamedTuple):
    """A machine that can train."""

    id: str
    name: str
    slots: int
    """Waves that it trains at once."""


class Cluster(NamedTuple):
    """Where waves are trained."""

    nodes: list[Node]
    resources: dict[str, float]
    """What ray is asked for, a wave."""
    device: Literal["auto", "cpu"]
    devices: int
    """That share a wave."""

    @property
    def slots(self) -> int:
        """Waves that are trained at once."""
        return sum(node.slots for node in self.nodes)


def check_installed() -> None:
    """Raises ConfigError where ray is not there."""
    try:
        importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError(
            f"ray is not installed ({error}); pip install 'tradax[ray]', or leave out --ray"
        ) from None


@contextlib.contextmanager
def joined(address: str, devices: int) -> Iterator[Cluster]:
    """Join a cluster, and part from it at the end.

    Args:
        address: "auto" for that of this machine, "local" to start one, HOST:PORT or
            ray://HOST:PORT. A program that has joined one already stays in it.
        devices: CPU cores or GPUs that a wave takes.

    Raises:
        ConfigError: no such cluster, or none of its nodes has so many devices.
    """
    check_installed()
    import ray

    ours = not ray.is_initialized()
    if ours:
        _join(address)
    try:
        yield _described(devices)
    finally:
        if ours:
            ray.shutdown()


def _join(address: str) -> None:
    import ray

    more: dict[str, Any] = {}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        more = {"num_cpus": device.cores(), "object_store_memory": _OBJECT_STORE_BYTES}
        more |= {"include_dashboard": False}
    if not address.startswith("ray://"):
        more |= {"log_to_driver": False}
    try:
        _reach(os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address)
        with warnings.catch_warnings():
            # Of forks beside JAX's threads; ray's become other programs at once.
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
            ray.init(address=address, logging_level=logging.ERROR, **more)
    except (ConnectionError, ValueError, RuntimeError, ImportError, OSError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"no ray cluster at {address} ({said[0][:200]}); begin one with `ray start --head`, "
            "give its HOST:PORT on a machine that belongs to it, or use --ray local"
        ) from None


def _reach(address: str) -> None:
    """Raises OSError or ValueError where nobody answers; ray itself tries for many minutes."""
    if address in ("auto", "local"):
        return
    host, found, port = address.removeprefix("ray://").rpartition(":")
    if not found:
        raise ValueError("it must be auto, local, HOST:PORT or ray://HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS).close()


def _described(devices: int) -> Cluster:
    import jax

    alive = alive_nodes()
    has_gpus = any(node["Resources"].get("GPU") for node in alive)
    on_gpu = has_gpus and getattr(jax.config, "jax_platforms", None) != "cpu"
    kind, name = ("GPU", "num_gpus") if on_gpu else ("CPU", "num_cpus")
    nodes = [
        Node(node["NodeID"], node["NodeManagerAddress"], slots)
        for node in alive
        if (slots := int(node["Resources"].get(kind, 0)) // devices)
    ]
    if not nodes:
        most = max((int(node["Resources"].get(kind, 0)) for node in alive), default=0)
        raise ConfigError(
            f"a wave is to take {devices} {kind}s, and no node of the ray cluster has more than "
            f"{most}; lower --devices"
        )
    return Cluster(nodes, {name: devices}, "auto" if on_gpu else "cpu", devices)


def alive_nodes() -> list[dict[str, Any]]:
    """What ray says of each."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def memory(cluster: Cluster) -> int | None:
    """Bytes that a wave has, at least, on each node; None where nothing tells.

    Raises:
        TradaxError: a node has no tradax, or other versions than this process.
    """
    ours = run_directory.versions()
    found = []
    for node, (versions, free) in zip(
        cluster.nodes, _ask(cluster, _versions_and_memory, cluster.device), strict=True
    ):
        for name in _SAME:
            if versions[name] != ours[name]:
                raise TradaxError(
                    f"ray's node {node.name} has {name} {versions[name]}, and this process "
                    f"{ours[name]}; install the same everywhere"
                )
        if free is not None:
            # A GPU is a wave's own; of the machine's memory each has a part.
            found.append(free if cluster.device == "auto" else free // node.slots)
    return min(found, default=None)


def check_folder(cluster: Cluster, folder: Path) -> None:
    """Raises TradaxError where a node does not see the folder, or cannot write there."""
    token = secrets.token_hex(8)
    path = folder.resolve() / f"seen-{token}"
    write_atomic(path, token)
    try:
        answers = _ask(cluster, _sees, str(path), token)
    finally:
        path.unlink(missing_ok=True)
    for node, answer in zip(cluster.nodes, answers, strict=True):
        if answer is not None:
            with contextlib.suppress(OSError):
                folder.rmdir()  # a new one, with nothing in it yet
            raise TradaxError(
                f"ray's node {node.name} {answer} {folder.resolve()}; give an --out on a file "
                "system that all nodes share under the same name"
            )


def _ask(cluster: Cluster, question: Callable, *args: Any) -> list[Any]:
    """Each node's answer."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # CPU nodes answer beside what they compute.
    needs = cluster.resources if cluster.device == "auto" else {"num_cpus": 0}
    asked = [
        ray.remote(question)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False), **needs)
        .remote(*args)
        for node in cluster.nodes
    ]
    answered, _ = ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_SECONDS)
    answers = []
    for node, reference in zip(cluster.nodes, asked, strict=True):
        if reference not in answered:
            raise TradaxError(
                f"ray's node {node.name} did not answer within {_ANSWER_SECONDS:.0f} s; it is "
                "busy, or has gone"
            )
        try:
            answers.append(ray.get(reference))
        except RayError as error:
            raise TradaxError(
                f"ray's node {node.name} cannot run tradax ({first_line(error)}); install the "
                "same there"
            ) from None
    return answers


def first_line(error: BaseException) -> str:
    """What an error of ray's says first, without advice and the traceback that it carries."""
    cause = getattr(error, "cause", None) or error
    lines: Sequence[str] = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[0].split('. ')[0][:200]}"


def _versions_and_memory(platform: Literal["auto", "cpu"]) -> tuple[dict[str, str], int | None]:
    device.use(platform)
    return run_directory.versions(), replay.free_memory()


def _sees(path: str, token: str) -> str | None:
    """What is wrong with the folder, if anything."""
    file = Path(path)
    if not file.is_file() or file.read_text() != token:
        return "does not see"
    return None if os.access(file.parent, os.W_OK) else "cannot write into"
