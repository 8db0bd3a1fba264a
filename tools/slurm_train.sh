#!/bin/bash
# Train on a SLURM cluster, one process a GPU:
#
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-task=64 --time=24:00:00 tools/slurm_train.sh CONFIG [key=value …]
#
# SLURM's task is torchrun, one a node: --cpus-per-task is the cores of a node, for all its processes and loaders.
# Ninety seconds before the time is up, or when the node is wanted back, the run saves a checkpoint
# and is queued again; it goes on from there. Partition and account are sbatch's own options, or
# SBATCH_PARTITION and SBATCH_ACCOUNT; PYTHON names an interpreter other than .venv/bin/python.
#SBATCH --job-name=eqzoo
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@90
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out

set -uo pipefail
if [[ $# -eq 0 ]]; then
    echo "usage: sbatch [options] tools/slurm_train.sh CONFIG [key=value ...]" >&2
    exit 2
fi

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
host=$(head -n 1 <<<"$nodes")
gpus=${SLURM_GPUS_ON_NODE:-1}
port=$((20000 + SLURM_JOB_ID % 20000))

# torchrun kills its processes thirty seconds after it was told to stop, if nothing else is said (torch 2.6 ignores it)
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=85

# srun does not take over sbatch's --cpus-per-task by itself
srun ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" -m torch.distributed.run \
    --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="$gpus" \
    --rdzv-backend=c10d --rdzv-endpoint="$host:$port" --rdzv-id="$SLURM_JOB_ID" \
    tools/train.py "$@" resume=auto &
step=$!

# torchrun passes SIGTERM on to its processes, which save and stop; it knows no SIGUSR1
trap 'wanted=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
wanted=no
wait "$step"
status=$?
if [[ $wanted == yes ]]; then
    wait "$step"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
