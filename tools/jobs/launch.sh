# Sourced by job_train_*.sh, which set $program and a default $config.
# Arguments: [CONFIG] [--resume] [KEY VALUE ...]
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
if [[ "${1:-}" == *.yaml ]]; then config=$1; shift; fi
launch=(python)
if [ -n "${NPROC:-}" ]; then
    [[ $NPROC =~ ^[1-9][0-9]*$ ]] ||
        { echo "error: NPROC: expected a number of processes, found $NPROC" >&2; exit 2; }
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=120 # seconds that a stopped rank has to save a checkpoint
    # With one image per GPU, a BatchNorm needs the images of all GPUs. Of several values of a key, the
    # last one is used, so that an argument can override this one.
    if [ "$NPROC" -gt 1 ] && python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' &&
        [[ " $* " != *" DEVICE cpu "* ]]; then
        set -- SOLVER.SYNC_BN True "$@"
    fi
    launch=(python -m tools.ranks --standalone --nproc_per_node="$NPROC")
fi
exec "${launch[@]}" "$program" --cfg "$config" "$@"
