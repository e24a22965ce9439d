"""Which device computes, and where compiled programs are kept between runs."""

import os
import stat
from pathlib import Path
from typing import Literal

from tradax.errors import ConfigError


def use(device: Literal["auto", "cpu", "gpu"], *, simulated: int | None = None) -> None:
    """Choose the device for everything that follows; call it before anything is computed.

    Args:
        simulated: devices that the CPU pretends to be, where it is what computes.

    Raises:
        ConfigError: a GPU was asked for and JAX sees none.
    """
    import jax

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
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        if hasattr(os, "getuid"):
            if status.st_uid != os.getuid():
                return None
            if stat.S_IMODE(status.st_mode) != 0o700:
                folder.chmod(0o700)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX keeps programs that took a second; on a laptop most of the start is in shorter ones.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return folder
