import jax
import job
import pytest

from synscale_jax.training.loop import train


@pytest.fixture(scope="session")
def program():
    """SynScaW on digits; compiled once for all tests that only run it."""
    return job.make_program()


@pytest.fixture(scope="session")
def straight(program, tmp_path_factory):
    """The folder and result of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    # As strict as the tests, or each of them would compile again.
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        return folder, train(program, 0, folder, show_progress=False)
