"""Settings, probes and the zoo's export of the comparison, on what no training is needed for."""

import numpy as np
import pytest
from test_paper_tables import EXPERIMENTS, load


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("bioplausible", {"units": 1}, "rank=2 is larger than units=1"),
        ("bioplausible", {"units": 0}, "units=0 is not possible"),
        ("bioplausible", {"seeds": (-1,)}, r"seeds=\(-1,\)"),
        ("bioplausible_probes", {"seeds": (-1,)}, r"seeds=\(-1,\)"),
        ("bioplausible_probes", {"scaling_rate": float("nan")}, "scaling_rate=nan"),
        ("bioplausible_probes", {"images": 0}, "images=0"),
        ("bioplausible_probes", {"points": 30}, "points=30 are too few"),
        ("zoo", {"seeds": (-1,)}, r"seeds=\(-1,\)"),
        ("zoo", {"names": ("cifar10_fcn",)}, "there is no network 'cifar10_fcn'"),
    ],
)
def test_impossible_settings_are_refused_before_anything_runs(name, settings, message):
    with pytest.raises(ValueError, match=message):
        load(name).Config(**settings)


def test_what_is_asked_of_rows_depends_on_the_depth_the_units_and_their_neighbours():
    report = load("bioplausible_report")

    def runs(accuracy, units=2000):
        row = {"test_accuracy": accuracy / 100}
        return [{"final": row, "best": row, "units": {"units": units}}]

    def asked(name, **results):
        return report.asked_for(name, results, "mnist")

    assert asked("gupta1_4_p10", gupta1_4_p10=runs(88)) == "78 to 87: no"
    assert asked("gupta3_2_p90", gupta3_2_p90=runs(89.5)) == "89 to 100: yes"
    assert asked("gupta2_3", gupta2_3=runs(89.5)) == "90 to 93.5: no"
    assert asked("gupta2_3_p20", gupta2_3_p20=runs(50)) == ""
    assert asked("units_power", units_power=runs(94)) == "96.5 to 100: no"
    assert asked("units_power", units_power=runs(94, 400)) == "93 to 100: yes"
    both = {"units_power": runs(97), "units_power_fa": runs(95.5)}
    assert asked("units_power_fa", **both) == "within 2 of 97.00: yes"
    assert asked("units_power_fa", **both | {"units_power_fa": runs(94.9)}).endswith("no")


@pytest.mark.parametrize("data", ["mnist", "cifar10"])
def test_smoke_of_the_zoo_trains_the_fcn_of_either_image_set(data):
    assert load("zoo").Config(preset="smoke", data=data).chosen() == (f"{data}_fcn",)


def test_verdicts_on_attacks_are_those_of_the_printed_curves():
    probes = load("bioplausible_probes")
    for name, printed in probes.PRINTED.items():
        assert probes.verdict(name, np.array(printed)).endswith(": yes")
        assert probes.verdict(name, np.linspace(97, 20, 7)).endswith(": no")
    assert probes.verdict("competing units, mended, before tanh", np.zeros(7)) == ""
