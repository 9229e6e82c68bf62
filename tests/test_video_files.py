"""Video files that cannot be opened."""

from pathlib import Path

import pytest

from tests.videos import VIDEOS, write_numbered
from utils.errors import UserError
from utils.video_files import open_video


def test_a_video_of_an_unknown_codec(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    write_numbered(path, 3, **VIDEOS["plain.mp4"])
    content = path.read_bytes()
    assert b"avc1" in content
    path.write_bytes(content.replace(b"avc1", b"xxxx"))
    with pytest.raises(UserError, match="codec"), open_video(path):
        pass
