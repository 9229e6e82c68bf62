# Sourced by the job scripts: a virtual environment with $requirements (requirements.txt) installed.
# Uses the active one (venv or conda), else makes .venv; installs again only when a list changed.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
requirements=${requirements:-requirements.txt}
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

install() { # quietly: errors alone reach the screen
    python -m pip install --quiet --quiet --progress-bar off --disable-pip-version-check \
        -r "$requirements" "$@"
}

stamp="${VIRTUAL_ENV:-$CONDA_PREFIX}/.ddps-$requirements"
if ! cat requirements*.txt constraints.txt | cmp -s - "$stamp"; then
    echo "== installing $requirements (PyTorch is some gigabytes: a few minutes)"
    log=$(mktemp)
    if ! install -c constraints.txt 2> "$log"; then
        echo "== not with the versions of constraints.txt ($(grep -m 1 ERROR "$log" ||
            tail -n 1 "$log")): with the newest that fit"
        install
    fi
    cat requirements*.txt constraints.txt > "$stamp"
fi
