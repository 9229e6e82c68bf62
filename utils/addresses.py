"""Addresses of streams and servers in printable form, without parts that may be secret."""

import re
from urllib.parse import urlsplit

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.*", re.DOTALL)
_PLACE = re.compile(r"(?:[^/?#]*@)?((?:\[[\da-fA-F:.]+\]|[^/?#@:\[\]]+)(?::\d+)?)(?:[/?#]|$)")


def is_address(text: str) -> bool:
    """Return whether a text is an address, as rtsp://camera/1."""
    return _ADDRESS.fullmatch(text) is not None


def shown_address(address: str) -> str:
    """Return scheme, host and port of an address.

    User, password, path and query may be secret: some cameras expect the password in the path. If a
    "@" follows, only the scheme is shown, since the password may contain a "/", "?" or "#".
    """
    scheme, _, rest = address.partition("://")
    place = _PLACE.match(rest)
    return f"{scheme}://{place[1] if place and '@' not in rest[place.end() :] else '***'}"


def without_secrets(argument: str) -> str:
    """Return an argument of a command line in which an address, which extends to the argument's
    end, is replaced by its `shown_address`."""
    return _ADDRESS.sub(lambda found: shown_address(found.group()), argument)


def host_of(address: str) -> str:
    """Return the host of an address, "" if it has none."""
    try:
        return urlsplit(shown_address(address)).hostname or ""
    except ValueError:
        return ""
