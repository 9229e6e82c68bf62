"""Alarms: one line of JSON for each tracklet that is similar to a wanted person.

A line is on the disk before it is printed. The position up to which a receiver has accepted the
file is recorded, so that the remaining lines can be sent later, also by another process.
"""

import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from urllib.parse import unquote, urlsplit, urlunsplit

from torch import Tensor

from utils.addresses import shown_address
from utils.errors import UserError, reason_of
from utils.files import read_text, write_text

ALARMS, SENT = "alarms.jsonl", "alarms.sent"
ANSWER = 10.0  # seconds to wait for a receiver
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds before a receiver is tried again
POLL = 0.5  # seconds between checks for new alarms
TRIES = 5  # attempts to send a line that the receiver refuses
LATER = (408, 425, 429)  # status codes of refusals that are not caused by the line


@dataclass(frozen=True)
class Wanted:
    """A person who is searched for in live pictures.

    Attributes:
        query_embeddings: [1, D], the mean of the embeddings of their photographs.
    """

    name: str
    query_embeddings: Tensor


class AlarmFile:
    """alarms.jsonl in an index's folder."""

    def __init__(self, folder: Path):
        self.path = folder / ALARMS
        self.refused = ""
        if self.path.exists():
            drop_half_line(self.path)

    def write(self, record: dict) -> None:
        """Append a line, then print it. If the line cannot be written to the disk, it is only
        printed."""
        text = json.dumps(record, ensure_ascii=False)  # bytes that are not UTF-8 are escaped below
        line = text.encode(errors="backslashreplace").decode() + "\n"
        try:
            if self.refused and self.path.exists():  # perhaps in the middle of a line
                drop_half_line(self.path)
            with open(self.path, "ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
            self.refused = ""
        except OSError as error:
            if not self.refused:
                print(f"{self.path}: cannot be written ({reason_of(error)})", file=sys.stderr)
            self.refused = reason_of(error)
        print(line, end="", flush=True)


def drop_half_line(path: Path) -> None:
    """Remove an incomplete last line, which a killed process or a full disk has left."""
    with open(path, "r+b") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A handler that reports a redirection as an error.

    urllib would follow it with a GET request without the alarm, and count the answer as acceptance.
    """

    def redirect_request(self, *_) -> None:
        return None


class Sender(Thread):
    """The thread that posts each line of alarms.jsonl to a URL.

    If a receiver does not answer, or redirects, sending is repeated after growing pauses. A line
    that the receiver refuses TRIES times is skipped. A new receiver gets only new lines. If
    alarms.jsonl becomes shorter, for example because it was removed, all of its lines are sent.
    """

    def __init__(self, folder: Path, url: str):
        super().__init__(name="alarms", daemon=True)
        self.url, self.alarms, self.places = url, folder / ALARMS, folder / SENT
        self.key = hashlib.sha256(url.encode()).hexdigest()[:16]
        self.opener = urllib.request.build_opener(NoRedirect)
        self.stopping = Event()
        self.unrecorded = False  # whether the disk has refused the last position
        if self.key not in read_places(self.places):
            self._record(self._size())

    def run(self) -> None:
        place, pause, tries = read_places(self.places)[self.key], FIRST_PAUSE, 0
        while True:
            place = place if place <= self._size() else 0
            line = self._line_at(place)
            if line is None and self.stopping.wait(POLL):
                return
            if line is None:
                continue
            reason, refused = self._post(line)
            tries += refused
            if reason and tries < TRIES:
                if pause == FIRST_PAUSE:
                    print(
                        f"{shown_address(self.url)}: {reason}; it will be tried again",
                        file=sys.stderr,
                    )
                if self.stopping.wait(pause):
                    return
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            if reason:
                print(f"{shown_address(self.url)}: an alarm is skipped", file=sys.stderr)
            place, pause, tries = place + len(line), FIRST_PAUSE, 0
            self._try_to_record(place)

    def stop(self) -> None:
        """Send the remaining lines as long as the receiver accepts them, and end the thread."""
        self.stopping.set()
        self.join()

    def _size(self) -> int:
        """Return the size of the file; 0 if there is none."""
        return self.alarms.stat().st_size if self.alarms.exists() else 0

    def _line_at(self, place: int) -> bytes | None:
        """Return the line at a position of the file; None if there is no complete line."""
        if not self.alarms.exists():
            return None
        with open(self.alarms, "rb") as file:
            file.seek(place)
            line = file.readline()
        return line if line.endswith(b"\n") else None

    def _post(self, line: bytes) -> tuple[str, bool]:
        """Post a line. Return the reason why it was not accepted ("" if it was), and whether the
        receiver refuses this line."""
        url, headers = _with_authorization(self.url)
        request = urllib.request.Request(url, line, headers)
        try:
            with self.opener.open(request, timeout=ANSWER):
                return "", False
        except urllib.error.HTTPError as error:
            return f"answers {error.code}", 400 <= error.code < 500 and error.code not in LATER
        except Exception as error:  # of a connection, or an answer that is not HTTP
            reason = getattr(error, "reason", error)
            return reason_of(reason if isinstance(reason, Exception) else error), False

    def _try_to_record(self, place: int) -> None:
        """Record a position. If the disk refuses it, later processes send some lines again."""
        try:
            self._record(place)
            self.unrecorded = False
        except UserError as error:
            if not self.unrecorded:
                print(error, file=sys.stderr)
            self.unrecorded = True

    def _record(self, place: int) -> None:
        write_text(json.dumps(read_places(self.places) | {self.key: place}), self.places)


def _with_authorization(url: str) -> tuple[str, dict[str, str]]:
    """Return an address without user and password, and the headers of its requests."""
    parts, headers = urlsplit(url), {"Content-Type": "application/json"}
    user, at, host = parts.netloc.rpartition("@")
    if at:
        headers["Authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
    return urlunsplit(parts._replace(netloc=host)), headers


def read_places(path: Path) -> dict[str, int]:
    if not path.exists():
        return {}
    try:
        return {str(key): int(place) for key, place in json.loads(read_text(path, "")).items()}
    except (ValueError, AttributeError, TypeError):
        raise UserError(f"{path}: expected places in {ALARMS}, found other content") from None
