"""Addresses of streams and servers in a form that can be printed: without what may be secret."""

import re
from urllib.parse import urlsplit

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]*")


def is_address(text: str) -> bool:
    """Return whether a text is an address, as rtsp://camera/1."""
    return _ADDRESS.fullmatch(text) is not None


def shown_address(address: str) -> str:
    """Return scheme, host and port. User, password, path and query may be secret: some cameras
    have the password in the path."""
    scheme, _, rest = address.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if "@" in rest and "@" not in re.split(r"[/?#]", rest, maxsplit=1)[0]:
        host = re.split(r"[/?#]", rest.rpartition("@")[2], maxsplit=1)[0]  # a "/" in the password
    return f"{scheme}://{host}"


def without_secrets(text: str) -> str:
    """Return a text, as a command line, in which each address is a `shown_address`."""
    return _ADDRESS.sub(lambda found: shown_address(found.group()), text)


def host_of(address: str) -> str:
    """Return the host of an address, "" if it has none."""
    try:
        return urlsplit(shown_address(address)).hostname or ""
    except ValueError:
        return ""
