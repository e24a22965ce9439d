"""Imports point up the list in docs/design.md, never down."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "tradax"

ORDER = [
    "errors",
    "config",
    "files",
    "reading",
    "ledger",
    "discovery",
    "device",
    "almgren_chriss",
    "spaces",
    "sharing",
    "deferred",
    "gymnax_parts",
    "draws",
    "packing",
    "compiling",
    "protocols",
    "networks",
    "distributions",
    "policies",
    "returns",
    "optimise",
    "replay",
    "data.table",
    "data.series",
    "data.bars",
    "data.features",
    "data.normalize",
    "data.scaling",
    "data.splits",
    "data.surrogates",
    "data.pipeline",
    "data.synthetic",
    "data.samples",
    "data",
    "envs._market",
    "envs._span",
    "envs._rewards",
    "envs._orders",
    "envs._rolling",
    "envs._allocation",
    "envs._windows",
    "envs._baselines",
    "envs._registration",
    "envs._made",
    "envs._gymnasium",
    "envs._gymnasium_vector",
    "envs",
    "rollout",
    "host_envs",
    "host_source",
    "sources",
    "logged",
    "recording",
    "log_file",
    "model_file",
    "onnx_features",
    "onnx_file",
    "algorithms",
    "checkpoint",
    "evaluation.metrics",
    "evaluation.scoring",
    "evaluation.off_policy",
    "evaluation.paths",
    "evaluation.succession",
    "evaluation.backtest",
    "evaluation.joint_returns",
    "evaluation.posterior",
    "evaluation.sharpe",
    "evaluation.bootstrap",
    "evaluation.overfitting",
    "evaluation.superiority",
    "evaluation.comparison",
    "evaluation.seeds",
    "evaluation.evidence",
    "evaluation.verdict",
    "evaluation.regimes",
    "evaluation.robustness",
    "kept_returns",
    "parallel",
    "rows",
    "host_updates",
    "updates",
    "signals",
    "training",
    "hooks",
    "usage",
    "evaluation",
    "run_directory",
    "listing",
    "reporting",
    "preparation",
    "resuming",
    "walks",
    "controls",
    "held_out",
    "comparing",
    "dashboard",
    "serving",
    "offline",
    "experiment",
    "sb3",
    "exporting",
    "trials",
    "adding_posterior",
    "doctor",
    "options",
    "sweeps.grid",
    "sweeps.members",
    "sweeps.population",
    "sweeps.wave",
    "sweeps.results",
    "sweeps.table",
    "sweeps.extract",
    "sweeps.optuna_search",
    "sweeps.ray_cluster",
    "sweeps.ray_tasks",
    "sweeps.asking",
    "sweeps.experiment",
    "sweeps.command",
    "sweeps",
    "cli",
]


def place(module: str) -> int:
    """The position of a module's own entry, or of its package's."""
    for name in (module, module.split(".")[0]):
        if name in ORDER:
            return ORDER.index(name)
    raise AssertionError(f"tradax.{module} has no place in the layout; give it one in ORDER")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "tradax":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tradax."):
            module = node.module.removeprefix("tradax.")
            for alias in node.names:
                inner = SOURCE / module.replace(".", "/") / f"{alias.name}.py"
                found.add(f"{module}.{alias.name}" if inner.exists() else module)
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("tradax.") for a in node.names if "tradax." in a.name}
    return found - {"__version__"}


def test_no_import_points_down_the_layout():
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.name == "__init__.py":
            continue
        module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        wrong += [
            f"tradax.{module} imports tradax.{imported}"
            for imported in imports(path)
            if place(imported) > place(module)
        ]
    assert not wrong, "\n".join(wrong)
