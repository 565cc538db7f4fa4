import pickle
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from synscale_jax.models import MLP, ResNet, cifar_resnet, from_pytorch, resnet34, resnet50

GOLDEN = Path(__file__).parent / "golden" / "torch_resnet8.npz"


def golden():
    """A ResNet8 of width 4 that PyTorch ran: its state dict, images and logits.

    Written by running this file (`write_golden`). The images' sides are even, where PyTorch's
    padding of strided convolutions differs from SAME.
    """
    with np.load(GOLDEN, allow_pickle=False) as archive:
        arrays = dict(archive)
    x, logits = arrays.pop("x"), arrays.pop("logits")
    return arrays, jnp.asarray(x.transpose(0, 2, 3, 1)), logits


def mlp_state_dict(widths=(12, 5, 4, 3), names=("0", "2", "4"), seed=0):
    rng = np.random.default_rng(seed)
    entries = {}
    for name, inputs, outputs in zip(names, widths, widths[1:], strict=False):
        entries[f"{name}.weight"] = rng.normal(size=(outputs, inputs)).astype(np.float32)
        entries[f"{name}.bias"] = rng.normal(size=outputs).astype(np.float32)
    return entries


def mlp_logits(entries, x):
    """What PyTorch computes, from the definition."""
    layers = [name.removesuffix(".weight") for name in entries if name.endswith(".weight")]
    for layer in layers:
        x = x @ entries[f"{layer}.weight"].T + entries[f"{layer}.bias"][None]
        x = np.maximum(x, 0) if layer != layers[-1] else x
    return x


def apply(model, variables, x):
    return jax.jit(lambda variables, x: model.apply(variables, x, train=False))(variables, x)


def test_resnet_gives_the_logits_of_pytorch():
    entries, x, logits = golden()
    model = cifar_resnet(8, 10, width=4)
    variables = from_pytorch(entries, model)
    np.testing.assert_allclose(apply(model, variables, x), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"module.{name}",
        lambda name: name.replace("linear", "fc").replace("shortcut", "downsample"),
    ],
    ids=["DataParallel", "torchvision"],
)
def test_resnet_entries_go_by_any_of_the_usual_names(rename):
    entries, _, _ = golden()
    entries["bn1.num_batches_tracked"] = np.array(7)
    model = cifar_resnet(8, 10, width=4)
    renamed = {rename(name): value for name, value in reversed(entries.items())}
    jax.tree.map(
        np.testing.assert_array_equal,
        from_pytorch(renamed, model),
        from_pytorch({"state_dict": entries}, model),
    )


@pytest.mark.parametrize("names", [("0", "2", "4"), ("fc1", "fc2", "out"), ("10", "9", "2")])
def test_mlp_layers_go_by_order_whatever_their_names(names):
    entries = mlp_state_dict(names=names)
    model = MLP((5, 4), 3)
    x = np.random.default_rng(1).normal(size=(6, 12)).astype(np.float32)
    variables = from_pytorch(entries, model)
    assert set(variables) == {"params"}
    np.testing.assert_allclose(
        apply(model, variables, x), mlp_logits(entries, x), rtol=1e-5, atol=1e-5
    )


def test_image_shape_permutes_the_first_kernel_from_channels_first():
    entries = mlp_state_dict()
    model = MLP((5, 4), 3)
    x = np.random.default_rng(1).normal(size=(6, 3, 2, 2)).astype(np.float32)  # NCHW
    want = mlp_logits(entries, x.reshape(6, -1))
    variables = from_pytorch(entries, model, image_shape=(2, 2, 3))
    got = apply(model, variables, x.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_parameters_take_param_dtype_and_statistics_stay_float32():
    entries, _, _ = golden()
    model = cifar_resnet(8, 10, width=4, param_dtype=jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):  # flax's BatchNorm relies on it
        variables = from_pytorch(entries, model)
    dtypes = jax.tree.map(lambda leaf: leaf.dtype, variables)
    assert set(jax.tree.leaves(dtypes["params"])) == {jnp.dtype(jnp.bfloat16)}
    assert set(jax.tree.leaves(dtypes["batch_stats"])) == {jnp.dtype(jnp.float32)}


def test_npz_and_safetensors_files_keep_the_layers_order(tmp_path):
    names = [str(2 * i) for i in range(7)]  # "10" sorts before "2" as text
    entries = mlp_state_dict((12, *[5] * 6, 3), names)
    model = MLP([5] * 6, 3)
    want = from_pytorch(entries, model)

    np.savez(tmp_path / "weights.npz", **entries)
    got = from_pytorch(tmp_path / "weights.npz", model)
    jax.tree.map(np.testing.assert_array_equal, got, want)

    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file(entries, tmp_path / "weights.safetensors")
    got = from_pytorch(str(tmp_path / "weights.safetensors"), model)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "weights.npz", **{"0.weight": np.array([object()])})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        from_pytorch(tmp_path / "weights.npz", MLP((), 3))


def test_unknown_suffix_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"\.npz, \.safetensors, \.pt or \.pth, got .*weights\.h5"):
        from_pytorch(tmp_path / "weights.h5", MLP((), 3))


@pytest.mark.parametrize(
    ("file", "module"), [("w.pt", "torch"), ("w.safetensors", "safetensors.numpy")]
)
def test_missing_reader_is_named_with_a_way_out(monkeypatch, file, module):
    monkeypatch.setitem(sys.modules, module, None)
    package = module.split(".")[0]
    with pytest.raises(ImportError, match=rf"needs {package}: pip install {package}, or .*\.npz"):
        from_pytorch(file, MLP((), 3))


def test_misfits_are_listed_in_one_sentence():
    entries, _, _ = golden()
    del entries["bn1.running_mean"]
    del entries["layer1.0.conv1.weight"]
    entries["aux.weight"] = np.zeros((2, 2))
    entries["layer4.0.conv1.weight"] = np.zeros((4, 4, 3, 3))
    with pytest.raises(ValueError) as error:
        from_pytorch(entries, cifar_resnet(8, 100, width=4))
    message = str(error.value)
    assert "\n" not in message
    assert "missing: " in message
    for name in ("norm_stem/mean", "stage1_block0/conv1/kernel"):
        assert name in message
    assert "unexpected: aux.weight, layer4.0.conv1.weight" in message
    assert "linear.weight for head/kernel (shape (16, 10) in flax's layout" in message
    assert "needs (16, 100)" in message


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ((5,), r"unexpected: 4\.weight, 4\.bias; misshapen: 2\.weight for head/kernel"),
        ((5, 4, 4), r"missing: head/bias, head/kernel; misshapen: 4\.weight for dense2/kernel"),
        ((5, 6), r"misshapen: 2\.weight for dense1/kernel"),
    ],
)
def test_mlp_misfits(features, message):
    with pytest.raises(ValueError, match=message):
        from_pytorch(mlp_state_dict(), MLP(features, 3))


def test_batch_norm_in_an_mlp_is_unexpected():
    entries = mlp_state_dict() | {"1.weight": np.ones(5), "1.running_mean": np.ones(5)}
    with pytest.raises(ValueError, match=r"unexpected: 1\.weight, 1\.running_mean"):
        from_pytorch(entries, MLP((5, 4), 3))


def test_image_shape_that_does_not_fit():
    with pytest.raises(ValueError, match=r"28, 28, 1.* has 784 values, .* takes 12"):
        from_pytorch(mlp_state_dict(), MLP((5, 4), 3), image_shape=(28, 28, 1))
    entries, _, _ = golden()
    with pytest.raises(ValueError, match="image_shape is for an MLP"):
        from_pytorch(entries, cifar_resnet(8, 10, width=4), image_shape=(8, 8, 3))


# What follows runs where PyTorch is installed.


def torch_resnet(model, channels=3):
    """The torchvision network of a ResNet, with random weights and statistics."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def conv(i, o, k, s=1):
        return nn.Conv2d(i, o, k, s, padding=(k - 1) // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, inputs, features, stride):
            super().__init__()
            out = 4 * features if model.bottleneck else features
            if model.bottleneck:
                sizes = [(inputs, features, 1), (features, features, 3, stride), (features, out, 1)]
            else:
                sizes = [(inputs, features, 3, stride), (features, features, 3)]
            for i, size in enumerate(sizes, start=1):
                setattr(self, f"conv{i}", conv(*size))
                setattr(self, f"bn{i}", nn.BatchNorm2d(size[1]))
            self.count, self.stride, self.extra = len(sizes), stride, out - inputs
            if (stride != 1 or self.extra) and model.shortcut == "projection":
                self.downsample = nn.Sequential(conv(inputs, out, 1, stride), nn.BatchNorm2d(out))

        def forward(self, x):
            y = x
            for i in range(1, self.count + 1):
                y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
                y = torch.relu(y) if i < self.count else y
            if hasattr(self, "downsample"):
                x = self.downsample(x)
            elif self.extra:
                pad = self.extra // 2
                x = x[:, :, :: self.stride, :: self.stride]
                x = nn.functional.pad(x, (0, 0, 0, 0, pad, pad))
            return torch.relu(y + x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            stem = (7, 2) if model.stem == "imagenet" else (3, 1)
            self.conv1, self.bn1 = conv(channels, model.width, *stem), nn.BatchNorm2d(model.width)
            inputs = model.width
            for i, size in enumerate(model.stage_sizes):
                blocks = []
                for j in range(size):
                    features = model.width * 2**i
                    blocks.append(Block(inputs, features, 2 if i and not j else 1))
                    inputs = features * (4 if model.bottleneck else 1)
                setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
            self.fc = nn.Linear(inputs, model.num_classes)

        def forward(self, x):
            x = torch.relu(self.bn1(self.conv1(x)))
            if model.stem == "imagenet":
                x = nn.functional.max_pool2d(x, 3, stride=2, padding=1)
            for i in range(len(model.stage_sizes)):
                x = getattr(self, f"layer{i + 1}")(x)
            return self.fc(x.mean((2, 3)))

    torch.manual_seed(0)
    net = Net().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    nn.init.normal_(net.fc.weight)
    return net


@pytest.mark.parametrize(
    "kwargs",
    [
        {"stem": "imagenet"},
        {"stem": "imagenet", "bottleneck": True},
        {"stem": "cifar", "shortcut": "zero_pad"},
    ],
    ids=["imagenet", "bottleneck", "zero_pad"],
)
@pytest.mark.parametrize("size", [32, 19])
def test_logits_of_live_pytorch(kwargs, size):
    torch = pytest.importorskip("torch")
    model = ResNet((1, 2, 1), num_classes=7, width=8, **kwargs)
    net = torch_resnet(model)
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        want = net(x).numpy()
    got = apply(model, from_pytorch(net.state_dict(), model), x.numpy().transpose(0, 2, 3, 1))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [resnet34(10), resnet50(10)], ids=["resnet34", "resnet50"])
def test_torchvision_names_of_the_full_networks(model):
    pytest.importorskip("torch")
    state_dict = torch_resnet(model, channels=1).state_dict()
    variables = from_pytorch(state_dict, model)
    counted = sum(v.numel() for k, v in state_dict.items() if "num_batches" not in k)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == counted


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_torch_files(tmp_path, suffix):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    model, x = MLP((5,), 3), torch.randn(2, 4)
    path = tmp_path / f"weights{suffix}"
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, path)
    got = apply(model, from_pytorch(path, model), x.numpy())
    np.testing.assert_allclose(got, net(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_torch_files_cannot_run_code(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(4, 3), tmp_path / "module.pt")
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        from_pytorch(tmp_path / "module.pt", MLP((), 3))


def test_bfloat16_tensors():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(4, 3)).to(torch.bfloat16)
    variables = from_pytorch(net.state_dict(), MLP((), 3))
    assert {leaf.dtype for leaf in flatten_dict(variables).values()} == {jnp.dtype(jnp.float32)}


def write_golden():
    import torch

    net = torch_resnet(cifar_resnet(8, 10, width=4))
    x = torch.randn(2, 3, 16, 16) * torch.tensor([1.0, 3.0])[:, None, None, None]
    names = {"fc.": "linear.", "downsample.": "shortcut."}  # as CIFAR ResNets have them
    arrays = {"x": x.numpy(), "logits": net(x).detach().numpy()}
    for name, value in net.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if "num_batches_tracked" not in name:
            arrays[name] = value.numpy()
    np.savez_compressed(GOLDEN, **arrays)


if __name__ == "__main__":
    write_golden()
