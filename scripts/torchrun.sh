#!/usr/bin/env bash
# Train with torchrun, on one machine or several; if a process dies, all are restarted and resume the run.
#
#   scripts/torchrun.sh --config configs/convnet.yaml                               # all GPUs of this machine
#   NAME=big NODES=2 HEAD=10.0.0.1:29400 scripts/torchrun.sh --config C             # the same command on both machines
#
# NAME      name of the run, the same on all machines; an existing run of this name is resumed
# NODES     number of machines, 1 by default
# HEAD      address of one of the machines with a free port; required with several machines
# DEVICES   processes per machine; by default one per GPU, or one
# RESTARTS  maximum number of restarts, 3 by default
#
# All machines need access to the folder of the runs.
set -euo pipefail
cd_to=$(dirname "$0")/..
PYTHON=${PYTHON:-python}
NODES=${NODES:-1}
DEVICES=${DEVICES:-$(nvidia-smi --list-gpus 2>/dev/null | grep -c GPU || true)}
[ "$DEVICES" -gt 0 ] || DEVICES=1
if [ "$NODES" -gt 1 ]; then
    : "${NAME:?NAME is required with several machines: use the same on all of them}"
    : "${HEAD:?HEAD is required with several machines: the address of one of them, e.g. 10.0.0.1:29400}"
    meet=(--nnodes "$NODES" --rdzv-backend c10d --rdzv-endpoint "$HEAD" --rdzv-id "$NAME")
else
    NAME=${NAME:-run-$(date +%Y%m%d-%H%M%S)}
    meet=(--standalone)
fi
# Restarted processes would wait forever in a store that is shared with the dead ones.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec "$PYTHON" -m torch.distributed.run "${meet[@]}" --nproc-per-node "$DEVICES" --max-restarts "${RESTARTS:-3}" \
    "$cd_to/train.py" fit "$@" --trainer.num_nodes "$NODES" --trainer.devices "$DEVICES" \
    --run_name "$NAME" --ckpt_path resume
