import subprocess

import pytest

from synscale_jax.training import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a module and a drawn table, from which the package seems to run."""
    module, table = tmp_path / "synscale_jax" / "module.py", tmp_path / "results" / "table.md"
    for path in (module, table):
        path.parent.mkdir()
        path.write_text("as committed\n")
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "-q"), ("add", "."), (*author, "commit", "-qm", "first")):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    monkeypatch.setattr(provenance, "__file__", str(module))
    return module, table


def commit():
    return provenance.provenance()["commit"]


def test_commit_is_that_of_the_checkout(checkout):
    assert len(commit()) == 12 and int(commit(), 16)


def test_changed_code_is_told_and_a_redrawn_table_is_not(checkout):
    module, table = checkout
    clean = commit()
    table.write_text("drawn again\n")
    assert commit() == clean
    module.write_text("changed\n")
    assert commit() == f"{clean}-dirty"


def test_a_package_that_is_not_in_the_repository_has_no_commit(checkout, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(checkout[0].with_name("installed.py")))
    assert commit() is None
