"""Times of day in arguments and results: local time, as 2026-01-31T08:00:00."""

from datetime import datetime

from utils.errors import UserError


def local_time(seconds: float) -> str:
    """Convert seconds since 1970 to ISO 8601, in local time."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat("T", "milliseconds")


def seconds_of(text: str, option: str = "--recorded") -> float:
    """Convert a date and time in ISO 8601 to seconds since 1970; without an offset it is local
    time.

    Raises:
        UserError: if the text has another form.
    """
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        raise UserError(
            f"{option} {text}: expected a time as 2026-01-31T08:00:00 or 2026-01-31"
        ) from None
