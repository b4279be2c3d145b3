"""What may pass by itself, and what somebody must change."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from node.errors import PassingError, SetupError, may_pass
from node.files import read_text


def test_no_descriptor_may_pass_and_a_file_that_is_missing_does_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("here")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The next free number is the first that the limit forbids.
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        with pytest.raises(SetupError, match="Too many open files") as none:
            read_text(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert may_pass(none.value)
    with pytest.raises(SetupError) as missing:
        read_text(tmp_path / "nothing")
    assert not may_pass(missing.value)
    assert may_pass(PassingError("a port is taken"))
    assert not may_pass(SetupError("a key is another's"))
