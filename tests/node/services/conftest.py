"""One running network for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.services_kit import OneNode


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    with OneNode(tmp_path_factory.mktemp("net")) as running:
        yield running
