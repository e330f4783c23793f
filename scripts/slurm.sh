#!/usr/bin/env bash
# Train as a SLURM job with one task per GPU; when preempted or out of time, it is requeued and resumes its run.
#
#   sbatch scripts/slurm.sh --config configs/convnet.yaml          # from the root of the repository
#   sbatch --nodes 4 --time 24:00:00 scripts/slurm.sh --config C   # options of sbatch override those below
#
#SBATCH --job-name=train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
#SBATCH --signal=B:USR1@120
set -uo pipefail

# Two minutes before the time limit SLURM signals this script, which stops the processes and requeues the job. It does not
# use SIGTERM, which scancel sends as well. SLURM itself requeues a preempted job (--requeue).
stopped=
stop() {
    stopped=1
    kill -TERM "$step"
}
trap stop USR1

srun "${PYTHON:-python}" train.py fit "$@" \
    --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE" \
    --run_name "$SLURM_JOB_NAME-$SLURM_JOB_ID" --ckpt_path resume &
step=$!
wait "$step"
code=$?
if [ -n "$stopped" ]; then
    wait "$step" # the first wait ended with the signal, this one ends with the processes
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
