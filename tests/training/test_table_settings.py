import pytest

from synscale_jax.training.command_line import resolve
from synscale_jax.training.published import TABLE_I, TABLE_II, TABLE_III
from synscale_jax.training.table_settings import (
    MLP_CELLS,
    PAPER_METHODS,
    PROTOCOLS,
    RESNET_CELLS,
    TablesConfig,
    table_presets,
)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"cells": ("mnist-mpl",)}, "there is no cell 'mnist-mpl': use some of mnist-mlp"),
        ({"cells": ("mnist-port_mlp",)}, "the laptop protocol has no cell mnist-port_mlp"),
        ({"cells": ()}, "cells=() is empty"),
        ({"seeds": (0, 1, 0)}, "seeds=(0, 1, 0) is empty or repeats itself"),
        ({"seeds": (-1,)}, "negative seed"),
        ({"confidence_penalty": -1.0}, "strength"),
    ],
)
def test_impossible_settings_are_refused(changed, told):
    with pytest.raises(ValueError) as refused:
        TablesConfig(**changed)
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_methods_are_named_as_the_published_tables_name_them():
    chosen = TablesConfig().chosen_methods()
    assert tuple(method.name for method in chosen) == PAPER_METHODS
    for table in (TABLE_I, TABLE_II, TABLE_III):
        assert set(table) == {*MLP_CELLS, *RESNET_CELLS}
        assert all(set(column) <= set(PAPER_METHODS) for column in table.values())
    assert TABLE_I["cifar100-resnet32"]["bottleneck"] == 51.91
    assert "dropout" not in TABLE_I["mnist-resnet32"]


def test_settings_reach_the_combined_methods():
    config = resolve(
        TablesConfig,
        table_presets(),
        ["--preset", "laptop", "--synscaw.scaling-rate", "0.1", "--confidence-penalty", "0.5"],
    )
    both = config.chosen_methods()[PAPER_METHODS.index("synscaw_confidence_penalty")].settings
    assert both["synscaw"]["scaling_rate"] == 0.1
    assert both["confidence_penalty"]["strength"] == 0.5


def test_presets_are_the_protocols():
    presets = table_presets()
    assert set(presets) == set(PROTOCOLS)
    assert presets["paper"].cells == (*MLP_CELLS, *RESNET_CELLS)
    assert PROTOCOLS["paper"]["mlp"].epochs == 200 and PROTOCOLS["laptop"]["mlp"].epochs == 24
    port = presets["port"].chosen_methods()
    assert port[1].settings["every_k"] == "epoch" and port[2].settings["reading"] == "mean_logit"
