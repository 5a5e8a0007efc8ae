"""`nvml`: a stand-in driver with nothing in it yet, `driver`: the same for all that is started from now on.

`old_nvml` and `nvml_535` behave as drivers of those years did.
"""

import pytest

from tests.engine.fake_nvml.library import FakeNvml, build, compiler


def _built(factory, name: str, *flags: str):
    if compiler() is None:
        pytest.skip("no C compiler (gcc or cc) to build the stand-in libnvidia-ml.so.1")
    return build(factory.mktemp(name), *flags)


@pytest.fixture(scope="session")
def _library(tmp_path_factory):
    return _built(tmp_path_factory, "nvml")


@pytest.fixture
def nvml(_library, tmp_path) -> FakeNvml:
    return FakeNvml(_library, tmp_path / "nvml.state")


@pytest.fixture
def driver(nvml, monkeypatch) -> FakeNvml:
    """`nvml` for every process that is started from now on, whatever cards our own environment names."""
    for name, value in nvml.environ().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return nvml


@pytest.fixture
def old_nvml(tmp_path_factory, tmp_path) -> FakeNvml:
    return FakeNvml(_built(tmp_path_factory, "old", "-DOLD_DRIVER"), tmp_path / "nvml.state")


@pytest.fixture
def nvml_535(tmp_path_factory, tmp_path) -> FakeNvml:
    return FakeNvml(_built(tmp_path_factory, "v535", "-DDRIVER_535"), tmp_path / "nvml.state")


@pytest.fixture
def no_driver(tmp_path) -> FakeNvml:
    """A library that cannot be loaded, so that the test means the same on a machine with a real driver."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "libnvidia-ml.so.1").write_bytes(b"")
    return FakeNvml(folder, tmp_path / "nvml.state")
