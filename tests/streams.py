"""Servers of live streams for tests: MJPEG over HTTP in this process, and GStreamer's RTSP."""

import io
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from PIL import Image

PYTHON = "/usr/bin/python3"  # for which Debian's packages of GStreamer are
RTSP = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f"( filesrc location={sys.argv[2]} ! qtdemux ! h264parse ! "
                   "rtph264pay name=pay0 pt=96 config-interval=1 )")
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def jpeg(size: tuple[int, int], color: str = "gray") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, color).save(data, "JPEG")
    return data.getvalue()


@contextmanager
def http_server(answer: Callable[[BaseHTTPRequestHandler, bytes], None]) -> Iterator[str]:
    """Serve at a free port of this machine.

    Args:
        answer: called with the handler and the body of each request.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):  # the client has left
                answer(self, b"")

        def do_POST(self) -> None:
            answer(self, self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def begin_mjpeg(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
    handler.end_headers()


def send_frame(handler: BaseHTTPRequestHandler, data: bytes, share: float = 1.0) -> None:
    """Send a frame, or the first part of it."""
    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
    handler.wfile.write(head.encode() + data[: round(share * len(data))] + b"\r\n")
    handler.wfile.flush()


def why_no_rtsp() -> str:
    """Return why no RTSP server can run here; "" if one can."""
    if not shutil.which(PYTHON):
        return f"no {PYTHON}"
    code = RTSP.partition("Gst.init")[0].replace("import sys\n", "")
    ran = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True)
    return ran.stderr.strip().splitlines()[-1] if ran.returncode else ""


@contextmanager
def rtsp_server(video: Path, port: int) -> Iterator[str]:
    """Serve an MP4 file in H.264 at rtsp://127.0.0.1:PORT/live, from its start for each client."""
    command = [PYTHON, "-c", RTSP, str(port), str(video)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield f"rtsp://127.0.0.1:{port}/live"
    finally:
        process.kill()
        process.wait()
