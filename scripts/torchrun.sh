#!/usr/bin/env bash
# Trains by torchrun, on one machine or several; a process that dies is started again and the run continues.
#
#   scripts/torchrun.sh --config configs/convnet.yaml                               # every GPU of this machine
#   NAME=big NODES=2 HEAD=10.0.0.1:29400 scripts/torchrun.sh --config C             # the same line on both machines
#
# NAME      name of the run, the same on all machines; one that is there already is continued
# NODES     number of machines, 1 by default
# HEAD      address of one of them, with a free port; needed with several
# DEVICES   processes on each machine; by default one a GPU, or one
# RESTARTS  how often all processes are started again when one has died, 3 by default
#
# The folder of the runs must be one that all machines see.
set -euo pipefail
cd_to=$(dirname "$0")/..
PYTHON=${PYTHON:-python}
NODES=${NODES:-1}
DEVICES=${DEVICES:-$(nvidia-smi --list-gpus 2>/dev/null | grep -c GPU || true)}
[ "$DEVICES" -gt 0 ] || DEVICES=1
if [ "$NODES" -gt 1 ]; then
    : "${NAME:?with several machines, give the run a NAME, the same on all of them}"
    : "${HEAD:?with several machines, give the address of one of them: HEAD=10.0.0.1:29400}"
    meet=(--nnodes "$NODES" --rdzv-backend c10d --rdzv-endpoint "$HEAD" --rdzv-id "$NAME")
else
    NAME=${NAME:-run-$(date +%Y%m%d-%H%M%S)}
    meet=(--standalone)
fi
# A shared store outlives the dead process, and those that are started again would wait in it for ever.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec "$PYTHON" -m torch.distributed.run "${meet[@]}" --nproc-per-node "$DEVICES" --max-restarts "${RESTARTS:-3}" \
    "$cd_to/train.py" fit "$@" --trainer.num_nodes "$NODES" --trainer.devices "$DEVICES" \
    --run_name "$NAME" --ckpt_path resume
