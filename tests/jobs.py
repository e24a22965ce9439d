"""Programs of several devices or processes, for tests; each is started anew."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def environment(**more):
    # One thread each; a computation that two processes share must not wait for a core.
    return os.environ | {"JAX_PLATFORMS": "cpu", **more}


def on_devices(program, count, *arguments):
    """Run a file of this folder on simulated devices.

    Returns: what it says; raises with what it complained of where it fails.
    """
    flags = os.environ.get("XLA_FLAGS", "")  # how tests compile
    env = environment(XLA_FLAGS=f"{flags} --xla_force_host_platform_device_count={count}")
    command = [sys.executable, str(Path(__file__).parent / program), *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=480)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def start(*arguments, cwd):
    command = [sys.executable, "-c", "from tradax.cli import main; raise SystemExit(main())"]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def job(arguments, cwd):
    """Two processes of one job."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = ["--distributed", "--coordinator", f"127.0.0.1:{port}", "--processes", "2"]
    return [start(*arguments, *shared, "--process-id", str(i), cwd=cwd) for i in range(2)]
