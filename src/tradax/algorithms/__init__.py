"""One file per algorithm. Each has a `Config` and `make(config, spec, horizon)`.

An algorithm is found by its module's name: `tradax.algorithms.ppo` is `--algorithm ppo`.
"""
