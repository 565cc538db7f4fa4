import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from synscale_jax.training.devices import data_mesh

SCRIPT = pathlib.Path(__file__).parent / "many_devices.py"


def report(*names, onednn="1"):
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *names],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "SYNSCALE_ONEDNN": onednn},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_equal_to_one_device(found):
    assert found["moved"] > 0.01  # there was something to agree on
    assert max(found["differences"].values()) < 1e-5, found
    assert found.get("compiled", 1) == 1


def test_eight_devices_agree_with_one():
    """20 steps of SynScaW: BatchNorm over an uneven split, two examples a device, and pmap."""
    found = report("resnet, batch 100", "mlp, batch 12", "pmap")
    for one in found.values():
        assert_equal_to_one_device(one)
    assert found["pmap"]["differences"]["replicas"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("onednn", ["0", "1"])
def test_eight_devices_agree_with_one_on_both_convolution_paths(onednn):
    found = report("resnet, batch 100", "resnet, batch 12", onednn=onednn)
    for one in found.values():
        assert_equal_to_one_device(one)


def test_mesh_is_over_all_local_devices():
    assert data_mesh().devices.tolist() == jax.local_devices()
    assert data_mesh().axis_names == ("data",)
