"""A new database, and the connection that writes it."""

import pytest

from engine.store.connect import writer


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


@pytest.fixture
def conn(path):
    conn = writer(path)
    yield conn
    conn.close()
