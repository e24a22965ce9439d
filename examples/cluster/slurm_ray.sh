#!/bin/bash
# A sweep on a ray cluster that lives as long as the job: `ray symmetric-run` (ray 2.49 or newer)
# begins the head on the first host and workers on the others, runs the command on the first, and
# ends all of them. sbatch slurm_ray.sh; where it was stopped, sbatch it again.
#SBATCH --job-name=tradax-sweep
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --output=tradax-sweep-%j.log
set -euo pipefail

out="$HOME/runs/us20-sweep" # on a file system that all hosts share
source "$HOME/tradax/bin/activate"

if [[ -f "$out/sweep.yaml" ]]; then
    command=(tradax sweep --resume "$out" --ray auto)
else
    command=(tradax sweep --data us20 --seeds 16 --random 64 \
        --range ppo.learning-rate=log:1e-5:1e-2 --timesteps 100000 --out "$out" --ray auto)
fi
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
srun ray symmetric-run --address "$first:$((20000 + SLURM_JOB_ID % 20000))" \
    --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus "$SLURM_CPUS_PER_TASK" \
    --disable-usage-stats -- "${command[@]}"
