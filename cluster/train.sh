#!/usr/bin/env bash
# Train in a run directory, or go on with the run that is there: what was stopped, lost its node or is started again
# by Docker or Kubernetes loses nothing.
#     bash cluster/train.sh RUN_DIR [options of learner.train]
set -euo pipefail
run=$1
shift
if [ -e "$run/checkpoints" ]; then
    exec python -m learner.train --resume "$run" "$@"
fi
exec python -m learner.train --run-dir "$run" "$@"
