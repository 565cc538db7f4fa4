"""The tabular sets' files as arrays: columns and targets, nothing fitted."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from synscale_jax.data._fetch import Source, fetch, texts_by_name

_UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases"


class Raw(NamedTuple):
    """What a reader returns.

    Attributes:
      scalars: float64 (rows, scalars), NaN where missing.
      categories: int32 (rows, categories), codes from 0.
      levels: how many levels each category has.
      columns: names, scalars first.
      target: labels from 0, or float64 values.
      classes: names of the classes; empty for regression.
      groups: int32 (rows,), or None.
      group: what a group is.
      unit: of the target.
    """

    scalars: np.ndarray
    categories: np.ndarray
    levels: tuple[int, ...]
    columns: tuple[str, ...]
    target: np.ndarray
    classes: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    group: str = ""
    unit: str = ""


def _scalar_table(values: np.ndarray, columns: Sequence[str], target: np.ndarray, **more: Any):
    nothing = np.zeros((len(values), 0), np.int32)
    return Raw(np.asarray(values, np.float64), nothing, (), tuple(columns), target, **more)


def _codes(values: Sequence[Any], levels: Sequence[Any] | None = None) -> np.ndarray:
    order = {level: code for code, level in enumerate(levels or sorted(set(values)))}
    return np.array([order[value] for value in values], np.int32)


def _rows(path: Any, delimiter: str = ",") -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return [row for row in csv.reader(file, delimiter=delimiter) if row]


def _numbers(rows: Sequence[Sequence[str]]) -> np.ndarray:
    missing = {"", "?"}
    return np.array([[np.nan if c.strip() in missing else float(c) for c in r] for r in rows])


_THYROID = tuple(
    Source("thyroid", name, digest, f"{_UCI}/thyroid-disease/{name}", fields=True)
    for name, digest in (
        ("ann-train.data", "457b45124e9ad4ac2ebac7571ef379ff647b5f923949a42ae6cddf6eaf573721"),
        ("ann-test.data", "2c5acaf9eced99607e93ece98d5d83ca3602667ee5b4b12edcfb75a340b01a58"),
    )
)


def thyroid() -> Raw:
    """Both files, training first: 15 binary and 6 continuous features, all taken as scalars."""
    rows = [line.split() for file in _THYROID for line in fetch(file).read_text().splitlines()]
    values = np.array([row for row in rows if row], np.float64)
    columns = [f"attribute{index}" for index in range(1, 22)]
    classes = ("class 1", "class 2", "class 3")
    return _scalar_table(
        values[:, :21], columns, values[:, 21].astype(np.int32) - 1, classes=classes
    )


_BREAST = Source(
    "breast_cancer",
    "breast-cancer.data",
    "ca7d3fa97b62ff967b6894ffbb3acaaf4a51062e0149e5950b3ad6f685970b65",
    f"{_UCI}/breast-cancer/breast-cancer.data",
)
_BREAST_COLUMNS = (
    "age", "menopause", "tumor-size", "inv-nodes", "node-caps", "deg-malig", "breast",
    "breast-quad", "irradiat",
)  # fmt: skip
_SIZE = _BREAST_COLUMNS.index("tumor-size")


def breast_cancer() -> Raw:
    """Tumor size as a scalar (the lower end of its range), the others one-hot, '?' a level."""
    rows = _rows(fetch(_BREAST))
    size = [[float(row[1 + _SIZE].split("-")[0])] for row in rows]
    others = [index for index in range(9) if index != _SIZE]
    return _breast(rows, np.array(size), others, missing_is_level=True)


def breast_cancer_41() -> Raw:
    """All nine attributes one-hot: 41 levels, a missing value has none of them."""
    rows = _rows(fetch(_BREAST))
    return _breast(rows, np.zeros((len(rows), 0)), range(9), missing_is_level=False)


def _breast(
    rows: Sequence[Sequence[str]],
    scalars: np.ndarray,
    attributes: Sequence[int],
    missing_is_level: bool,
) -> Raw:
    codes, levels = [], []
    for index in attributes:
        values = [row[1 + index] for row in rows]
        known = sorted(set(values) - {"?"})
        codes.append(_codes(values, [*known, "?"]))
        levels.append(len(known) + (missing_is_level and "?" in values))
    names = [_BREAST_COLUMNS[index] for index in attributes]
    return Raw(
        scalars,
        np.stack(codes, 1),
        tuple(levels),
        (*(["tumor-size"] if scalars.shape[1] else []), *names),
        _codes([row[0] for row in rows]),
        ("no-recurrence-events", "recurrence-events"),
    )


_WISCONSIN = Source(
    "breast_cancer_wisconsin",
    "breast-cancer-wisconsin.data",
    "402c585309c399237740f635ef9919dc512cca12cbeb20de5e563a4593f22b64",
    f"{_UCI}/breast-cancer-wisconsin/breast-cancer-wisconsin.data",
)


def breast_cancer_wisconsin() -> Raw:
    """Nine features of 1 to 10; the sample's id, which 54 rows repeat, is the group, no input."""
    values = _numbers(_rows(fetch(_WISCONSIN)))
    columns = (
        "clump thickness", "uniformity of cell size", "uniformity of cell shape",
        "marginal adhesion", "single epithelial cell size", "bare nuclei", "bland chromatin",
        "normal nucleoli", "mitoses",
    )  # fmt: skip
    return _scalar_table(
        values[:, 1:10],
        columns,
        (values[:, 10] == 4).astype(np.int32),
        classes=("benign", "malignant"),
        groups=_codes(values[:, 0].astype(int).tolist()),
        group="sample id",
    )


_IRIS = Source(
    "iris",
    "iris.data",
    "6f608b71a7317216319b4d27b4d9bc84e6abd734eda7872b71a458569e2656c0",
    f"{_UCI}/iris/iris.data",
)


def iris() -> Raw:
    """UCI's file, which differs from Fisher's paper in two rows."""
    rows = _rows(fetch(_IRIS))
    names = [row[4] for row in rows]
    return _scalar_table(
        _numbers([row[:4] for row in rows]),
        ("sepal length", "sepal width", "petal length", "petal width"),
        _codes(names),
        classes=tuple(sorted(set(names))),
    )


_MESOTHELIOMA = Source(
    "mesothelioma",
    "Mesothelioma data set.xlsx",
    "cb3a7b5b9352ff30224f5080769db031339dd78c5a4ffb6860cb2a2a54cba73f",
    f"{_UCI}/00351/Mesothelioma%20data%20set.xlsx",
)
_SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def mesothelioma() -> Raw:
    """34 features; 'diagnosis method' is the label under another name."""
    with zipfile.ZipFile(fetch(_MESOTHELIOMA)) as book:
        shared = ElementTree.fromstring(book.read("xl/sharedStrings.xml"))
        strings = ["".join(part.itertext()) for part in shared]
        sheet = ElementTree.fromstring(book.read("xl/worksheets/sheet1.xml"))
    rows = [[_cell(cell, strings) for cell in row] for row in sheet.iter(f"{_SHEET}row")]
    header = [" ".join(name.split()) for name in rows[0]]
    values = _numbers(rows[1:])
    return _scalar_table(
        values[:, :34],
        header[:34],
        (values[:, 34] == 2).astype(np.int32),
        classes=("healthy", "mesothelioma"),
    )


def _cell(cell: ElementTree.Element, strings: Sequence[str]) -> str:
    value = cell.findtext(f"{_SHEET}v", "")
    return strings[int(value)] if cell.get("t") == "s" else value


def mesothelioma_blind() -> Raw:
    """Without the column that is the label."""
    raw = mesothelioma()
    keep = [index for index, name in enumerate(raw.columns) if name != "diagnosis method"]
    return raw._replace(scalars=raw.scalars[:, keep], columns=tuple(raw.columns[i] for i in keep))


_PARKINSON = Source(
    "parkinsons_telemonitoring",
    "parkinsons_updrs.data",
    "f2c7d5025dec4e92e7feae367a5f7ccf58789a10ac6b54bdf15976c599f9dd39",
    f"{_UCI}/parkinsons/telemonitoring/parkinsons_updrs.data",
)


def _parkinson(target: str) -> Raw:
    rows = _rows(fetch(_PARKINSON))
    header, values = rows[0], _numbers(rows[1:])
    return _scalar_table(
        values[:, 6:],
        header[6:],
        values[:, header.index(target)],
        groups=_codes(values[:, 0].astype(int).tolist()),
        group="subject",
        unit="UPDRS points",
    )


def parkinson_motor() -> Raw:
    """The 16 voice measures, as the paper counts; neither age, sex nor time of the test."""
    return _parkinson("motor_UPDRS")


def parkinson_total() -> Raw:
    """As the motor score, with the total score as target."""
    return _parkinson("total_UPDRS")


_WINE = {
    color: Source("wine_quality", f"winequality-{color}.csv", digest,
                  f"{_UCI}/wine-quality/winequality-{color}.csv")
    for color, digest in (
        ("red", "4a402cf041b025d4566d954c3b9ba8635a3a8a01e039005d97d6a710278cf05e"),
        ("white", "76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836"),
    )
}  # fmt: skip


def _wine(color: str) -> Raw:
    rows = _rows(fetch(_WINE[color]), ";")
    values = _numbers(rows[1:])
    return _scalar_table(values[:, :11], rows[0][:11], values[:, 11], unit="points of quality")


def red_wine() -> Raw:
    """1599 red wines."""
    return _wine("red")


def white_wine() -> Raw:
    """4898 white wines."""
    return _wine("white")


def diabetes() -> Raw:
    """scikit-learn's set, unscaled."""
    from sklearn.datasets import load_diabetes

    found: Any = load_diabetes(scaled=False)
    return _scalar_table(found.data, found.feature_names, found.target, unit="progression score")


_ABALONE = Source(
    "abalone",
    "abalone.data",
    "de37cdcdcaaa50c309d514f248f7c2302a5f1f88c168905eba23fe2fbc78449f",
    f"{_UCI}/abalone/abalone.data",
)


def abalone() -> Raw:
    """Eight inputs, as the paper counts: sex as one scalar, infant −1, female 0, male 1."""
    rows = _rows(fetch(_ABALONE))
    sex = _codes([row[0] for row in rows], ["I", "F", "M"])[:, None] - 1.0
    values = _numbers([row[1:] for row in rows])
    columns = ("sex", "length", "diameter", "height", "whole", "shucked", "viscera", "shell")
    return _scalar_table(
        np.concatenate([sex, values[:, :7]], 1), columns, values[:, 7], unit="rings"
    )


_LIFE = Source(
    "life_expectancy",
    "Life Expectancy Data.csv",
    "ea2092484ce03004538675b341df7b2e5017f277f01d0937166f44e14e5c788e",
    None,
    "https://www.kaggle.com/datasets/kumarajarshi/life-expectancy-who (it asks for an account)",
)


def life_expectancy() -> Raw:
    """The 19 scalar inputs with Year; rows without a target are left out."""
    rows = _rows(fetch(_LIFE))
    header = [" ".join(name.split()) for name in rows[0]]
    target = header.index("Life expectancy")
    rows = [row for row in rows[1:] if row[target]]
    inputs = [i for i, name in enumerate(header) if i != target and name not in _LIFE_TEXT]
    return _scalar_table(
        _numbers([[row[i] for i in inputs] for row in rows]),
        [header[i] for i in inputs],
        _numbers([[row[target]] for row in rows])[:, 0],
        groups=_codes([row[0] for row in rows]),
        group="country",
        unit="years",
    )


_LIFE_TEXT = ("Country", "Status")

READERS: Mapping[str, Callable[[], Raw]] = {
    "thyroid": thyroid,
    "breast_cancer": breast_cancer,
    "breast_cancer_41": breast_cancer_41,
    "breast_cancer_wisconsin": breast_cancer_wisconsin,
    "iris": iris,
    "mesothelioma": mesothelioma,
    "mesothelioma_blind": mesothelioma_blind,
    "parkinson_motor": parkinson_motor,
    "parkinson_total": parkinson_total,
    "red_wine": red_wine,
    "white_wine": white_wine,
    "diabetes": diabetes,
    "abalone": abalone,
    "life_expectancy": life_expectancy,
}

EEG = Source(
    "epileptic_seizure",
    "bonn_eeg.zip",
    "50d34bbdec4363259e9477d3aa92235dfc19b3a4842c11772d286addff2d6a24",
    None,
    "the five Bonn sets (https://doi.org/10.34810/data490), their 500 texts packed in one zip",
    fields=True,
)
_EEG_SETS = {"z": "A", "o": "B", "n": "C", "f": "D", "s": "E"}  # a file's first letter -> its set


def eeg_segments() -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The Bonn set: float32 (500, 4097) in microvolts, labels 0 to 4, and the sets' names."""
    with zipfile.ZipFile(fetch(EEG)) as archive:
        letters = {name: name.split("/")[-1][0].lower() for name in texts_by_name(archive)}
        names = sorted(letters, key=lambda name: [*_EEG_SETS].index(letters[name]))
        signals = np.stack([np.array(archive.read(n).split(), np.float32) for n in names])
    return signals, _codes([letters[name] for name in names], [*_EEG_SETS]), (*_EEG_SETS.values(),)
