import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny networks lose more by handing work between cores than they gain."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FERTOOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def fertool(capsys):
    """Run one command line; returns (exit code, stdout, stderr)."""
    from fertool.cli.app import run

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
