"""Who walks the test span of a run, and the walk."""

from collections.abc import Mapping

from tradax import discovery
from tradax.evaluation.backtest import Backtest, backtest
from tradax.evaluation.succession import Succession
from tradax.hooks import read_rows
from tradax.model_file import load_policy
from tradax.policies import NetworkPolicy
from tradax.preparation import Request, Task, policy_names
from tradax.protocols import Policy
from tradax.rollout import JaxSource
from tradax.rows import Row


def saved_policies(request: Request, task: Task) -> dict[str, NetworkPolicy]:
    """All policies of a run, by name."""
    names = policy_names(request, task)
    return {n: load_policy(f / "policy.zip") for n, f in zip(names, task.folders, strict=True)}


def tested_policies(task: Task, policies: Mapping[str, Policy]) -> list[Policy]:
    """What walks the test of each market: its policy, the one for all, or the folds' in turn."""
    found: list[Policy] = list(policies.values())
    if task.folds:
        each, first = len(task.deployed), task.folds[0].test.first
        begins = [fold.test.first - first for fold in task.folds]
        found = [Succession.of(found[place::each], begins) for place in range(each)]
    return found if len(found) == len(task.markets) else found * len(task.markets)


def learned_rows(task: Task, index: int) -> list[Row]:
    """Rows of metrics.jsonl of the newest policy for a market."""
    return read_rows(task.deployed[index % len(task.deployed)] / "metrics.jsonl")


def market_source(task: Task, index: int) -> JaxSource:
    """The environment in which a market is tested."""
    source = task.single_sources[index]
    assert isinstance(source, JaxSource)
    return source


def walked(request: Request, task: Task, policy: Policy, index: int = 0) -> Backtest:
    """The policy on the held-out span of the symbol or portfolio of that index; writes nothing."""
    source = market_source(task, index)
    module, markets = discovery.module("envs", request.env), task.markets[index]
    return backtest(policy, module, source.env, source.params, markets, task.tested, request.seed)
