"""Everything that resuming needs, saved by orbax: arrays only, no pickle."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tradax.errors import ModelFileError
from tradax.files import write_json


def save_checkpoint(folder: Path, tree: Any) -> None:
    """Replace what `folder` holds. A crash in the middle leaves the old checkpoint readable."""
    names, values = _flatten(tree)
    step = _steps(folder)[-1] + 1 if _steps(folder) else 0
    with _checkpointer() as checkpointer:
        # Orbax writes to a temporary name and renames when all is there.
        checkpointer.save((folder / str(step)).absolute(), dict(zip(names, values, strict=True)))
    write_json(folder / "format.json", {"format": "tradax-checkpoint", "version": 1})
    for old in _steps(folder)[:-1]:
        shutil.rmtree(folder / str(old), ignore_errors=True)


def load_checkpoint(folder: Path, like: Any) -> Any:
    """The saved tree.

    Args:
        like: a tree of the same structure, shapes and types.

    Raises:
        ModelFileError: there is no checkpoint, or it belongs to other settings; the message
            names the first difference.
    """
    steps = _steps(folder)
    if not steps:
        raise ModelFileError(f"{folder}: no checkpoint to resume from")
    version = json.loads((folder / "format.json").read_text())["version"]
    if version > 1:
        raise ModelFileError(f"{folder}: format version {version} is newer than this tradax reads")
    with _checkpointer() as checkpointer:
        saved: dict = checkpointer.restore((folder / str(steps[-1])).absolute())  # type: ignore
    names, values = _flatten(like)
    leaves = []
    for name, value in zip(names, values, strict=True):
        found = saved.get(name)
        if found is None or found.shape != value.shape or found.dtype != value.dtype:
            got = "missing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise ModelFileError(
                f"{folder}: {name} is {got}, these settings need {value.dtype}{list(value.shape)}; "
                "resume with the settings and data that the run was started with"
            )
        leaves.append(np.asarray(found))
    originals, structure = jax.tree.flatten(like)
    leaves = [
        jax.random.wrap_key_data(jnp.asarray(new)) if _is_key(old) else jnp.asarray(new)
        for new, old in zip(leaves, originals, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


def _checkpointer() -> Any:
    """Of this process alone: in a job of several each holds everything, and the first one saves."""
    import orbax.checkpoint as ocp

    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"tradax-{me}"
    )
    if jax.process_count() == 1:
        alone = ocp.options.MultiprocessingOptions()
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def _flatten(tree: Any) -> tuple[list[str], list[np.ndarray]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path).lstrip(".").replace("/", "_") for path, _ in leaves]
    arrays = [jax.random.key_data(x) if _is_key(x) else x for _, x in leaves]
    return names, [np.asarray(x) for x in arrays]


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())
