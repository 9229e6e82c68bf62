"""Serve a Gradio page under this machine's own names, without any other connection.

Requests must be addressed to a name of this server and come from its own page. A web page of
another origin could otherwise use a visitor's browser to reach a server that only this machine can
reach (DNS rebinding, cross-site requests). The size of the folder of uploaded and drawn files is
limited.
"""

import logging
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from utils.errors import UserError, reason_of
from utils.optional import optional

REQUIREMENTS = "requirements-app.txt"
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
MAX_UPLOAD = 100 << 20  # bytes of one request
MAX_BYTES, MAX_FILES = 512 << 20, 2000  # of the folder, between requests
MAX_SESSIONS = 100  # visits whose state is kept, each of about a megabyte
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
HEADERS = [  # of every response: the browser loads nothing from elsewhere, others cannot embed it
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-resource-policy", b"same-origin"),
]


def address_of(host: str, port: int) -> str:
    """Return the IPv4 address of this machine that `host` names.

    Raises:
        UserError: if there is none, or the port is not free.
    """
    try:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
            return trial.getsockname()[0]
    except (OSError, OverflowError, TypeError) as error:  # a port or a name out of range
        raise UserError(
            f"--host {host} --port {port}: cannot be served at ({reason_of(error)})"
        ) from None


def names_of(host: str, address: str, further: Sequence[str] = ()) -> set[str]:
    """Return the names under which a server at this address may be reached.

    At 0.0.0.0 every interface of this machine is served; Guard checks the address of a connection.

    Args:
        further: other names, for example that of a proxy.

    Raises:
        UserError: if one of `further` is more than a name.
    """
    for name in further:
        if not name or _name(name) != name.lower():
            raise UserError(f"--host-name {name}: expected a name without scheme, port or path")
    names = {host.lower(), address, *map(str.lower, further)}
    if ip_address(address).is_loopback:
        names |= LOOPBACK
    if ip_address(address).is_unspecified:
        names |= {*LOOPBACK, socket.gethostname().lower(), socket.getfqdn().lower()}
    return names


class Guard:
    """An ASGI application around another one, which refuses requests and limits the folder.

    Args:
        app: the application.
        names: names of this server, in lower case.
        folder: of uploaded and drawn files.
    """

    def __init__(self, app: Any, names: set[str], folder: Path):
        self.app, self.names, self.folder = app, names, folder

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        status = self._refused(scope, headers)
        if status:
            await _respond(send, status)
            return
        if scope["method"] == "POST":
            trim(self.folder)

        async def respond(message: dict) -> None:
            if message["type"] == "http.response.start":
                kept = [h for h in message["headers"] if not h[0].startswith(b"access-control-")]
                message = message | {"headers": [*kept, *HEADERS]}
            await send(message)

        await self.app(scope, _limited(receive), respond)

    def _refused(self, scope: dict, headers: dict[bytes, bytes]) -> int:
        """Return the status code of a request that is refused, otherwise 0."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        connection = (scope.get("server") or ("",))[0]
        if _name(host) not in {*self.names, connection}:
            return 403
        origin = headers.get(b"origin")
        if origin is not None and _place(origin.decode("latin-1").lower()) != host:
            return 403
        length = headers.get(b"content-length", b"0")
        return 413 if not length.isdigit() or int(length) > MAX_UPLOAD else 0


def _name(host: str) -> str:
    """Return the name in a Host header; "" if it has none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _place(origin: str) -> str:
    """Return the name and port in an Origin header; "" if it has none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _limited(receive: Any) -> Any:
    """Pass a request's body on. A body of more than MAX_UPLOAD bytes ends as if the connection was
    lost."""
    received = 0

    async def limited() -> dict:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return message if received <= MAX_UPLOAD else {"type": "http.disconnect"}

    return limited


async def _respond(send: Any, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b""})


def trim(folder: Path, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> None:
    """Delete the oldest files of a folder until the others are within the limits."""
    files = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # deleted meanwhile
            about = path.stat()
            if path.is_file():
                files.append((about.st_mtime, about.st_size, path))
    files.sort()
    size = sum(one for _, one, _ in files)
    for i, (_, one, path) in enumerate(files):
        if size <= max_bytes and len(files) - i <= max_files:
            return
        with suppress(OSError):
            path.unlink()
        size -= one


@contextmanager
def no_connections(address: str) -> Iterator[None]:
    """Allow this process to connect only to itself: to the served address and to loopback
    addresses.

    Any other connection or look-up of a library raises PermissionError. The hook cannot be removed
    from the interpreter; after the block it has no effect.
    """
    active = True

    def refuse(event: str, args: tuple) -> None:
        if not active:
            return
        if event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
            host = args[1][0]
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = args[0]
        else:
            return
        if not _is_own(host, address):
            raise PermissionError(f"{event}: {host} is not this machine")

    sys.addaudithook(refuse)
    try:
        yield
    finally:
        active = False


def _is_own(host: str | bytes | None, address: str) -> bool:
    """Return True if the host is this machine's loopback, or the address that is served."""
    name = host.decode() if isinstance(host, bytes) else host or ""
    if name in {"", *LOOPBACK, address}:
        return True
    try:
        return ip_address(name).is_loopback or ip_address(name).is_unspecified
    except ValueError:
        return False


def serve(blocks: Any, css: str, host: str, port: int, names: Sequence[str], folder: Path) -> None:
    """Serve Gradio's Blocks until the process is interrupted.

    Args:
        css: style sheet of the page.
        host: a name or address of this machine.
        names: further names under which the page may be reached.
        folder: GRADIO_TEMP_DIR.
    """
    gr = optional("gradio", "tools.app", REQUIREMENTS)
    fastapi = optional("fastapi", "tools.app", REQUIREMENTS)
    uvicorn = optional("uvicorn", "tools.app", REQUIREMENTS)
    address = address_of(host, port)
    own_names = names_of(host, address, names)
    blocks.state_session_capacity = MAX_SESSIONS
    # launch() sets this, and so makes file inputs accept nothing but uploaded files. A mounted app
    # does not call it.
    blocks.has_launched = True
    app = gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        blocks,
        "/",
        server_name=address,
        server_port=port,
        allowed_paths=[],
        max_file_size=MAX_UPLOAD,
        enable_monitoring=False,
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        footer_links=[],
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=css,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            print(f"http://{address}:{port}   (Ctrl-C ends it)", flush=True)

        async def shutdown(self, sockets: Any = None) -> None:
            # Open connections are cancelled after a second, which is no error.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            await super().shutdown(sockets)

    guard = Guard(app, own_names, folder)
    options = {"log_level": "warning", "timeout_graceful_shutdown": 1, "ws": "none"}
    Server(uvicorn.Config(guard, address, port, **options)).run()
