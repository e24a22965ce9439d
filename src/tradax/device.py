"""Which device computes, and where compiled programs are kept between runs."""

import os
import stat
from pathlib import Path
from typing import Literal

from tradax.errors import ConfigError


def use(
    device: Literal["auto", "cpu", "gpu"],
    *,
    simulated: int | None = None,
    memory_fraction: float | None = None,
    preallocate: bool = True,
    threads: int | None = None,
) -> None:
    """Choose the device for everything that follows; call it before anything is computed.

    Args:
        simulated: devices that the CPU pretends to be, where it is what computes.
        memory_fraction: share of a GPU's memory that this process may take; JAX takes 0.75 by
            default. Of no effect on a CPU.
        preallocate: False takes a GPU's memory as it is needed, not all of the share at once.
        threads: of the CPU; None takes one a core. One is faster where every product is small.

    Raises:
        ConfigError: a GPU was asked for and JAX sees none; a share that is none; less than one
            thread, or more than cores; or JAX has begun, so that memory and threads are settled.
    """
    import jax

    _limit_memory(memory_fraction, preallocate)
    _limit_threads(threads)
    if simulated is not None and simulated > 1:
        jax.config.update("jax_num_cpu_devices", simulated)
    if device == "auto":
        return
    jax.config.update("jax_platforms", "cpu" if device == "cpu" else "cuda,rocm,cpu")
    try:
        found = jax.default_backend()
    except RuntimeError:
        found = "none"
    if device == "gpu" and found != "gpu":
        raise ConfigError(
            f"--device gpu: JAX sees no GPU (its backend is {found}); install tradax[cuda], check "
            "nvidia-smi, or use --device cpu"
        )


def _limit_memory(fraction: float | None, preallocate: bool) -> None:
    """Set the environment that JAX reads when it opens a GPU."""
    if fraction is not None and not 0.0 < fraction <= 1.0:
        raise ConfigError(
            f"gpu_memory_fraction is {fraction}; it must be over 0 and at most 1 (the whole GPU)"
        )
    if fraction is None and preallocate:
        return
    _check_not_begun(
        "the share of a GPU's memory is",
        "XLA_CLIENT_MEM_FRACTION and XLA_PYTHON_CLIENT_PREALLOCATE",
    )
    if fraction is not None:
        os.environ["XLA_CLIENT_MEM_FRACTION"] = str(fraction)
        os.environ.pop("XLA_PYTHON_CLIENT_MEM_FRACTION", None)  # its old name; both are refused
    if not preallocate:
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"


def _limit_threads(threads: int | None) -> None:
    """Set the environment that XLA reads when it opens the CPU."""
    if threads is None:
        return
    if not 1 <= threads <= cores():
        raise ConfigError(f"cpu_threads is {threads}; it must be 1 to {cores()}, a thread a core")
    _check_not_begun("the number of CPU threads is", "NPROC")
    os.environ["NPROC"] = str(threads)


def _check_not_begun(what: str, variables: str) -> None:
    from jax._src import xla_bridge  # nothing public tells

    if xla_bridge.backends_are_initialized():
        raise ConfigError(
            f"JAX has begun to compute in this process, so {what} settled; call tradax.device.use "
            f"before anything is computed, or set {variables} before Python starts"
        )


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_compiled_programs() -> Path | None:
    """Keep compiled programs in a folder of the user's, so that the next start is fast.

    The cache holds executable code, so it is used only if nobody else can write to it.

    Returns: the folder, or None where there is no safe one.
    """
    import jax

    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(base).expanduser() / "tradax" / "compiled"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        if not (_is_ours(folder.parent) and _is_ours(folder)):
            return None
        if hasattr(os, "getuid"):
            if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None  # others may have written to it already
            for path in (folder.parent, folder):  # who can write to the first can replace the other
                if stat.S_IMODE(path.stat().st_mode) != 0o700:
                    path.chmod(0o700)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX keeps programs that took a second; on a laptop most of the start is in shorter ones.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return folder


def _is_ours(folder: Path) -> bool:
    """Whether it is this user's folder, and no link to another."""
    status = folder.lstat()
    owned = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return stat.S_ISDIR(status.st_mode) and owned
