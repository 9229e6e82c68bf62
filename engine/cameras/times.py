"""Times of day in arguments and in print: local time, as 2026-01-31T08:00:00."""

from datetime import datetime

from utils.errors import UserError


def seconds_of(text: str, option: str = "--recorded") -> float:
    """Return seconds since 1970 of a date and time in ISO 8601; without an offset, local time.

    Raises:
        UserError: if it is none.
    """
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise UserError(
            f"{option} {text}: expected a time as 2026-01-31T08:00:00 or 2026-01-31"
        ) from None


def shown_time(seconds: float) -> str:
    """Return local date and time to the second."""
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")
