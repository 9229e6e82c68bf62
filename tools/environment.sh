# Sourced by the job scripts: a virtual environment with requirements.txt installed. Uses the
# active one (venv or conda), else makes .venv; installs again only when requirements.txt changed.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${VIRTUAL_ENV:-}" ] && [ -z "${CONDA_PREFIX:-}" ]; then
    if [ ! -x .venv/bin/python ]; then
        python=$(command -v python3 || command -v python) ||
            { echo "error: no python3 on PATH; Python >= 3.10 is needed" >&2; exit 2; }
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
            { echo "error: $("$python" --version) found; Python >= 3.10 is needed" >&2; exit 2; }
        echo "== making .venv"
        "$python" -m venv .venv || { rm -rf .venv; exit 2; }
    fi
    source .venv/bin/activate
fi
stamp="${VIRTUAL_ENV:-$CONDA_PREFIX}/.ddps-requirements.txt"
if ! cmp -s requirements.txt "$stamp"; then
    echo "== installing requirements.txt (PyTorch is some gigabytes: a few minutes)"
    python -m pip install --progress-bar off -r requirements.txt
    cp requirements.txt "$stamp"
fi
