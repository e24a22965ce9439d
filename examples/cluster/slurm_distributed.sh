#!/bin/bash
# One search on many hosts: every process is one of a `jax.distributed` job, and finds the others by
# what SLURM tells it. sbatch slurm_distributed.sh; where it was stopped, sbatch it again.
#SBATCH --job-name=tradax
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=tradax-%j.log
set -euo pipefail

out="$HOME/runs/genetic-execution" # on a file system that all hosts share
source "$HOME/tradax/bin/activate"

if [[ -f "$out/config.yaml" ]]; then
    srun tradax train --resume "$out" --distributed
else
    srun tradax train --algorithm genetic --env execution --timesteps 100000000 \
        --genetic.population-size 4096 --out "$out" --distributed
fi
