"""Three seeds of one setting on one page: is the best of them better, or was it lucky?

Writes compare.html in the current folder, and the runs into runs/. About half a minute.
"""

import tradax
from tradax.comparing import compare

runs = [
    tradax.train(
        "ppo", "trading", "AAPL", seed=seed, total_timesteps=100_000, skip_posterior=True
    ).run_dir
    for seed in range(3)
]
print(compare(runs))
print("watch more of them with: tradax serve runs")
