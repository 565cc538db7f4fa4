import json
import re

import jax
import jax.numpy as jnp
import job
import optax
import pytest

from synscale_jax.models import cifar_resnet
from synscale_jax.training import methods
from synscale_jax.training.loop import Measures, train
from synscale_jax.training.runs import RunError


def poison(module, leaf, step, value=float("nan")):
    """A method whose update number ``step`` puts ``value`` into one entry of one parameter."""

    def update(updates, state, params=None, **extra):
        del params, extra
        bad = updates[module][leaf].at[(0,) * updates[module][leaf].ndim].set(value)
        hit = jnp.where(state + 1 == step, bad, updates[module][leaf])
        return {**updates, module: {**updates[module], leaf: hit}}, state + 1

    transform = optax.GradientTransformationExtraArgs(lambda _: jnp.int32(0), update)
    settings = {"module": module, "leaf": leaf, "step": step, "value": str(value)}
    return methods.Method(
        "poison", "Poison", settings, after_optimizer=lambda layers, steps: transform
    )


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_huge_scaling_rate_diverges_and_says_where(tmp_path, monkeypatch, capfd):
    program = job.make_program(methods.synscaw(1e6, restore_norm=False, scale_output=True))
    result = train(program, 0, tmp_path / "run", show_progress=False)
    assert result["status"] == "diverged" and result["steps_planned"] == 36
    # The weights grow until what they carry overflows.
    match = re.fullmatch(
        r"SynScaW diverged: the loss of step (\d+) \(epoch 1\) is not finite though all weights "
        r"are; the first bad numbers are in the activity of layer '(dense0|head)'\.",
        result["message"],
    )
    assert match and int(match[1]) == result["steps_run"] + 1
    assert result["message"] in capfd.readouterr().err
    assert strict((tmp_path / "run" / "result.json").read_text()) == result
    assert "state_hash" not in result and result["history"] == []
    # Going on would only diverge again.
    monkeypatch.setattr(program, "chunk", lambda *_: pytest.fail("trained again"))
    assert train(program, 0, tmp_path / "run", show_progress=False) == result


@pytest.mark.parametrize(
    ("module", "leaf", "step", "value"),
    [
        ("head", "kernel", 1, float("nan")),
        ("dense0", "kernel", 10, float("inf")),  # the last step of a chunk
        ("dense0", "bias", 24, float("nan")),  # of an epoch
        ("dense0", "bias", 17, float("-inf")),  # ReLU hides it from the loss
    ],
)
def test_poisoned_layer_and_step_are_named(module, leaf, step, value, tmp_path):
    program = job.make_program(poison(module, leaf, step, value))
    result = train(program, 0, tmp_path / "run", show_progress=False)
    assert result["message"] == (
        f"Poison diverged: step {step} (epoch {(step - 1) // 12 + 1}) left numbers that are not "
        f"finite in the weights of layer {module!r}."
    )
    assert result["steps_run"] == step
    assert [row["epoch"] for row in result["history"]] == list(range(1, (step - 1) // 12 + 1))


def test_poisoned_normalisation_is_named(tmp_path):
    program = job.make_program(
        poison("norm_stem", "scale", 2), cifar_resnet(8, 10, width=4), epochs=1, train_examples=300
    )
    result = train(program, 0, tmp_path / "run", show_progress=False)
    assert "step 2 (epoch 1) left" in result["message"]
    assert result["message"].endswith("in the parameter 'norm_stem/scale'.")


def test_measures_are_not_asked_of_a_run_that_has_diverged(tmp_path):
    """They refuse what is not finite; the run would have no result, and none when begun again."""

    def each_epoch(program, state):
        raise ValueError("values are not finite")

    huge = poison("head", "kernel", 12, 3e38)  # finite, but not what it answers
    program = job.make_program(huge, epochs=1)
    measures = Measures(each_epoch=each_epoch)
    result = train(program, 0, tmp_path / "run", measures=measures, show_progress=False)
    assert result["status"] == "diverged" and "the loss of the evaluation" in result["message"]


def test_a_run_with_other_measures_is_another_run(tmp_path):
    program = job.make_program(epochs=1)
    for examples in (300, 300, 50):
        measures = Measures(at_end=lambda *_, n=examples: {"n": n}, settings={"examples": examples})
        if examples == 50:
            with pytest.raises(RunError, match="examples"):
                train(program, 0, tmp_path / "run", measures=measures, show_progress=False)
        else:
            result = train(program, 0, tmp_path / "run", measures=measures, show_progress=False)
            assert result["measures"] == {"examples": 300} and result["measured"] == {"n": 300}


def test_loss_that_is_not_finite_though_the_weights_are(tmp_path):
    def loss(logits, labels):
        del labels
        return jnp.where(jnp.abs(logits).sum() > 0, jnp.nan, 0.0)

    program = job.make_program(methods.Method("bad", "Bad", loss=loss), epochs=1)
    result = train(program, 0, tmp_path / "run", show_progress=False)
    assert "the loss of step 1 (epoch 1) is not finite though all weights are" in result["message"]
    assert result["message"].endswith("in the loss itself.")


def test_gap_that_json_has_no_number_for_is_null(tmp_path):
    state = {"count": jnp.int32(0), "mean_gap": {"head": jnp.float32(jnp.inf)}}
    transform = optax.GradientTransformationExtraArgs(
        lambda _: jax.tree.map(jnp.asarray, state), lambda u, s, p=None, **_: (u, s)
    )
    method = methods.Method("gap", "Gap", after_optimizer=lambda layers, steps: transform)
    result = train(job.make_program(method, epochs=1), 0, tmp_path / "run", show_progress=False)
    assert result["status"] == "finished" and result["final"]["mean_gap"] == {"head": None}
    strict((tmp_path / "run" / "result.json").read_text())
