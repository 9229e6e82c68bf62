# Sourced by job_train_*.sh, with $program and its usual $config: [CONFIG] [--resume] [KEY VALUE ...]
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
if [[ "${1:-}" == *.yaml ]]; then config=$1; shift; fi
launch=(python)
if [ -n "${NPROC:-}" ]; then
    [[ $NPROC =~ ^[1-9][0-9]*$ ]] ||
        { echo "error: NPROC: expected a number of processes, found $NPROC" >&2; exit 2; }
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=120 # seconds that a stopped run has for its checkpoint
    launch=(python -m tools.ranks --standalone --nproc_per_node="$NPROC")
fi
exec "${launch[@]}" "$program" --cfg "$config" "$@"
