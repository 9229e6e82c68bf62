"""Addresses of streams and servers in printable form, without parts that may be secret."""

import re
from urllib.parse import urlsplit

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]*")
_PLACE = re.compile(r"(?:[^/?#]*@)?((?:\[[\da-fA-F:.]+\]|[^/?#@:\[\]]+)(?::\d+)?)(?:[/?#]|$)")


def is_address(text: str) -> bool:
    """Return whether a text is an address, as rtsp://camera/1."""
    return _ADDRESS.fullmatch(text) is not None


def shown_address(address: str) -> str:
    """Return scheme, host and port of an address.

    User, password, path and query may be secret: some cameras expect the password in the path. If a
    password contains "/", only the scheme is shown.
    """
    scheme, _, rest = address.partition("://")
    place, after = _PLACE.match(rest), rest.partition("/")[2]
    return f"{scheme}://{place.group(1) if place and '@' not in after else '***'}"


def without_secrets(text: str) -> str:
    """Return a text, such as a command line, in which each address is replaced by its
    `shown_address`."""
    return _ADDRESS.sub(lambda found: shown_address(found.group()), text)


def host_of(address: str) -> str:
    """Return the host of an address, "" if it has none."""
    try:
        return urlsplit(shown_address(address)).hostname or ""
    except ValueError:
        return ""
