#!/usr/bin/env bash
# Gradio 6.31.0: an event with a file input accepts only files that a visitor has uploaded, if the app
# was started by launch(). If it was mounted by mount_gradio_app, as the documentation recommends for
# FastAPI, the check is skipped, since nothing sets Blocks.has_launched: anyone who can send a
# request can name any file that the server's process can read.
#
# Output seen (Linux x86_64, Python 3.11), for a file outside of the upload folder:
#   launch():             accepted: False
#   mount_gradio_app():   accepted: True
#   the same, has_launched set to True before: accepted: False
# Exit code 0: as described; 1: the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m pip install --quiet --disable-pip-version-check --target packages gradio==6.31.0
mkdir uploads elsewhere
echo "of the server" > elsewhere/file.txt
export GRADIO_ANALYTICS_ENABLED=False GRADIO_TEMP_DIR="$folder/uploads"
PYTHONPATH=packages python3 - <<'PYTHON'
import json
import os
import socket
import sys
import threading
import time
import urllib.request

import fastapi
import gradio as gr
import uvicorn

FILE = os.path.abspath("elsewhere/file.txt")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def make_blocks():
    with gr.Blocks() as blocks:
        file, size = gr.File(), gr.Number()
        file.change(os.path.getsize, file, size)
    return blocks


def accepted(port):
    """Send the event as a page would, naming a file that nobody has uploaded."""
    file = {"path": FILE, "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [file], "fn_index": 0, "session_hash": "session"}).encode()
    address = f"http://127.0.0.1:{port}/gradio_api/queue/"
    kind = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(address + "join", body, kind), timeout=60).read()
    with urllib.request.urlopen(address + "data?session_hash=session", timeout=60) as answer:
        for line in answer:
            event = json.loads(line[6:]) if line.startswith(b"data:") else {}
            if event.get("msg") == "process_completed":
                return event["success"]


def mounted(launched):
    blocks, port = make_blocks(), free_port()
    if launched:
        blocks.has_launched = True
    app = gr.mount_gradio_app(fastapi.FastAPI(), blocks, "/", ssr_mode=False)
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="critical"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.1)
    return accepted(port)


os.chdir("uploads")  # the current folder is allowed
sys.stderr = open(os.devnull, "w")
port = free_port()
make_blocks().launch(
    server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True, ssr_mode=False
)
seen = [accepted(port), mounted(False), mounted(True)]
print("launch():             accepted:", seen[0])
print("mount_gradio_app():   accepted:", seen[1])
print("the same, has_launched set to True before: accepted:", seen[2], flush=True)
os._exit(seen != [False, True, False])
PYTHON
