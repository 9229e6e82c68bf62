# Sourced by the job scripts. Activates a virtual environment in which $requirements (by default
# requirements.txt) is installed: the active one (venv or conda), or else .venv, which is created.
# Packages are installed again only if a requirements file has changed.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
requirements=${requirements:-requirements.txt}
if [ -z "${VIRTUAL_ENV:-}" ] && [ -z "${CONDA_PREFIX:-}" ]; then
    if [ ! -x .venv/bin/python ]; then
        python=$(command -v python3 || command -v python) ||
            { echo "error: expected Python >= 3.11, found no python3 on PATH" >&2; exit 2; }
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
            { echo "error: expected Python >= 3.11, found $("$python" --version)" >&2; exit 2; }
        echo "== creating .venv"
        "$python" -m venv .venv || { rm -rf .venv; exit 2; }
    fi
    source .venv/bin/activate
fi

install() { # prints errors only
    python -m pip install --quiet --quiet --progress-bar off --disable-pip-version-check \
        -r "$requirements" "$@"
}

stamp="${VIRTUAL_ENV:-$CONDA_PREFIX}/.ddps-$requirements"
if ! cat requirements*.txt constraints.txt | cmp -s - "$stamp"; then
    echo "== installing $requirements (PyTorch has several gigabytes; this takes a few minutes)"
    log=$(mktemp)
    if ! install -c constraints.txt 2> "$log"; then
        echo "== the versions in constraints.txt cannot be installed ($(grep -m 1 ERROR "$log" ||
            tail -n 1 "$log")); installing the newest compatible versions"
        install
    fi
    rm "$log"
    cat requirements*.txt constraints.txt > "$stamp"
fi
