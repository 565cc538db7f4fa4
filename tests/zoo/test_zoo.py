"""Networks written, read back, checked; and what is shipped is what its card says."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synscale_jax import zoo
from synscale_jax.data import DataNotAvailable, load_images
from synscale_jax.zoo import pretrained


@pytest.fixture
def folder(tmp_path):
    model = pretrained.ENTRIES["mnist_fcn"].model
    params = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    pretrained.export("mnist_fcn", params, {"data": "mnist", "test_accuracy": 0.1}, tmp_path)
    return tmp_path, params


def test_round_trip(folder):
    path, params = folder
    loaded = zoo.load("mnist_fcn", folder=path)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables["params"], params)
    assert loaded.card["data"] == "mnist"
    assert loaded.card["sha256"] in (path / "mnist_fcn.md").read_text()


def test_bytes_and_numbers_in_the_unit_interval_are_seen_alike(folder):
    loaded = zoo.load("mnist_fcn", folder=folder[0])
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    logits = loaded(images)
    by_hand = loaded.model.apply(loaded.variables, jnp.asarray(images / 127.5 - 1, jnp.float32))
    np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loaded(np.float32(images / 255)), logits, rtol=1e-4, atol=1e-5)


def test_a_network_is_shown_by_its_card_and_not_by_its_weights(folder):
    shown = repr(zoo.load("mnist_fcn", folder=folder[0]))
    assert shown.startswith("ZooModel(name='mnist_fcn'") and "sha256" in shown
    assert len(shown) < 1000


def test_wrong_name_hash_and_shape_are_one_sentence(folder):
    path, _ = folder
    with pytest.raises(ValueError, match=r"there is no network 'mnist_mlp'.*mnist_fcn"):
        zoo.load("mnist_mlp", folder=path)
    with pytest.raises(ValueError, match=r"\(batch, 28, 28, 1\), got \(2, 784\)"):
        zoo.load("mnist_fcn", folder=path)(np.zeros((2, 784)))
    file = path / "mnist_fcn.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(zoo.ZooError, match="hash"):
        zoo.load("mnist_fcn", folder=path)
    file.unlink()
    with pytest.raises(zoo.ZooError, match="cannot be read"):
        zoo.load("mnist_fcn", folder=path)


def test_a_folder_may_be_a_string(folder):
    path, params = folder
    loaded = zoo.load("mnist_fcn", folder=str(path))
    jax.tree.map(np.testing.assert_array_equal, loaded.variables["params"], params)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is no zoo, it has no index.json"),
        ("{", "index.json is damaged"),
        ("[]", "index.json is damaged"),
        ('{"mnist_fcn": {}}', "has no hash of mnist_fcn"),
    ],
)
def test_folders_without_a_sound_index_are_one_sentence(tmp_path, text, message):
    if text is not None:
        (tmp_path / "index.json").write_text(text)
    with pytest.raises(zoo.ZooError, match=message):
        zoo.load("mnist_fcn", folder=tmp_path)
    with pytest.raises(zoo.ZooError, match="is no zoo"):
        zoo.load("mnist_fcn", folder=tmp_path / "absent")


def test_parameters_of_another_network_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not those of mnist_cnn"):
        pretrained.export("mnist_cnn", {"head": {"kernel": np.zeros((3, 2))}}, {}, tmp_path)
    with pytest.raises(ValueError, match="no place for 'resnet'"):
        pretrained.export("resnet", {}, {}, tmp_path)


def test_competing_units_are_power_units_and_a_readout():
    model = pretrained.CompetingUnits(5, 3, power=2.0)
    x = jnp.ones((2, 2, 2, 1))
    variables = model.init(jax.random.key(0), x)
    drive = x.reshape(2, 4) @ variables["params"]["units"]["kernel"]
    by_hand = jax.nn.relu(drive) ** 2 @ variables["params"]["head"]["kernel"]
    np.testing.assert_allclose(model.apply(variables, x), by_hand, rtol=1e-5)


@pytest.mark.parametrize("name", zoo.available())
def test_shipped_network_has_the_accuracy_of_its_card(name):
    loaded = zoo.load(name)
    assert loaded.card["bytes"] < (8e6 if "units" in name else 1e6)
    try:
        test = load_images(loaded.card["data"], download=False).test
    except DataNotAvailable:
        pytest.skip(f"{loaded.card['data']} is not on this machine")
    images, labels = test.images[:1000], test.labels[:1000]
    accuracy = float((loaded(images).argmax(-1) == labels).mean())
    claimed = loaded.card["test_accuracy"]
    assert accuracy == pytest.approx(claimed, abs=4 * (claimed * (1 - claimed) / 1000) ** 0.5)


def test_every_shipped_file_is_in_the_index():
    place = pretrained._shipped()
    index = json.loads((place / "index.json").read_text()) if zoo.available() else {}
    files = [f.name for f in place.iterdir()] if place.is_dir() else []
    assert {f.removesuffix(".safetensors") for f in files if f.endswith(".safetensors")} == set(
        index
    )
