"""Population-based training: eight members learn from each other, and what comes out is a schedule
of learning rates.
"""

import json

import tradax

found = tradax.sweep(
    "ppo",
    "Pendulum-v1",
    seeds=1,
    population=8,
    population_every=5_000,
    ranges={"ppo.learning_rate": ("log", 1e-4, 1e-2)},
    total_timesteps=50_000,
    settings={"ppo": {"gamma": 0.9, "num_envs": 16, "epochs": 10}},
)
best = found.table[0].best
print(f"member {best}: validation score {found.table[0].score:.0f}")
for line in (found.run_dir / "members" / f"{best:05d}" / "settings.jsonl").open():
    row = json.loads(line)
    copied = "" if row["copied"] is None else f"  from member {row['copied']}"
    print(f"{row['timesteps']:>7,} steps  learning rate {row['learning_rate']:.5f}{copied}")
