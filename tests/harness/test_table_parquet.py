"""Parquet tables, read back by pandas and pyarrow."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnbench.table_data import FIELDS, csv_text, flat, json_text
from cnnbench.table_parquet import parquet

_spec = importlib.util.spec_from_file_location("fixed_sheets", Path(__file__).with_name("fixed_sheets.py"))
fixed = importlib.util.module_from_spec(_spec)
sys.modules["fixed_sheets"] = fixed
_spec.loader.exec_module(fixed)


def read(report) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(parquet(report)))


def test_one_row_for_each_arm_and_quantity_with_the_fields_of_the_csv():
    report = fixed.report(names=("baseline", "silu", "gelu"))
    frame = read(report)
    assert list(frame.columns) == list(FIELDS)
    assert list(zip(frame["arm"], frame["quantity"], strict=True)) == [
        (arm, quantity) for arm in ("baseline", "silu", "gelu") for quantity in ("accuracy", "params")
    ]
    rows = list(csv.DictReader(io.StringIO(csv_text(report))))
    assert len(rows) == len(frame)
    for name in ("mean", "low", "high", "diff"):
        assert [row[name] for row in rows] == ["" if pd.isna(value) else str(value) for value in frame[name]]


def test_columns_have_their_types_even_where_all_is_missing():
    schema = pyarrow.parquet.read_schema(io.BytesIO(parquet(fixed.report(names=("baseline",)))))
    kinds = {name: str(schema.field(name).type) for name in FIELDS}
    assert {name for name, kind in kinds.items() if kind == "int64"} == {"ok", "planned", "n", "diff_n"}
    texts = {name for name, kind in kinds.items() if kind == "string"}
    assert texts == {"dataset", "arm", "role", "changes", "reference", "quantity", "method", "diff_method", "verdict"}
    assert set(kinds.values()) == {"int64", "string", "double"}
    frame = read(fixed.report(names=("baseline", "silu")))
    assert frame["p"].dtype == "float64"
    assert frame["mean"].isna().tolist() == [False, True, False, False]
    assert frame["reference"].isna().tolist() == [True, True, False, False]


def test_every_field_of_the_data_is_typed_as_what_it_holds():
    """A field that ``flat`` gains must find its type here."""
    types = {
        name: str(pyarrow.parquet.read_schema(io.BytesIO(parquet(fixed.report()))).field(name).type) for name in FIELDS
    }
    for row in flat(fixed.report()):
        for name, value in row.items():
            if value is not None:
                assert types[name] == {str: "string", int: "int64", float: "double"}[type(value)], name


def test_metadata_tells_the_suite_its_seeds_and_its_units():
    metadata = pyarrow.parquet.read_schema(io.BytesIO(parquet(fixed.report()))).metadata
    about = json.loads(metadata[b"cnnbench"])
    assert (about["suite"], about["question"], about["primary"]) == ("tricks", "Which?", "accuracy")
    assert about["seeds"] == {"": [0, 1, 2, 3, 4]}
    assert about["quantities"]["accuracy"] == {"label": "accuracy", "unit": "%", "better": "higher", "factor": 100}


def test_datasets_stand_below_each_other():
    one, two = fixed.report(dataset="digits"), fixed.report(dataset="mnist")
    frame = read(replace(one, tables=(*one.tables, *two.tables)))
    assert frame["dataset"].tolist() == ["digits"] * 4 + ["mnist"] * 4


def test_the_same_report_gives_the_same_bytes():
    assert parquet(fixed.report()) == parquet(fixed.report())


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",))), min_size=1, max_size=5, unique=True))
@settings(max_examples=100, deadline=None)
def test_any_name_is_read_back_as_it_was(names):
    assert read(fixed.report(names=tuple(names)))["arm"].tolist() == [name for name in names for _ in range(2)]


@given(st.lists(st.text().filter(str.isprintable), min_size=1, max_size=5, unique=True))
@settings(max_examples=100, deadline=None)
def test_any_name_that_a_suite_takes_is_read_back_from_csv_and_json(names):
    report = fixed.report(names=tuple(names))
    rows = list(csv.DictReader(io.StringIO(csv_text(report), newline="")))
    # A spreadsheet must not compute what looks like a formula to it.
    shown = [f"'{name}" if name.startswith(("=", "+", "-", "@")) else name for name in names]
    assert [row["arm"] for row in rows] == [name for name in shown for _ in range(2)]
    assert [arm["arm"] for arm in json.loads(json_text(report))["tables"][0]["arms"]] == names


def test_half_a_surrogate_pair_is_replaced():
    assert read(fixed.report(names=("a\udc80b", "😀")))["arm"].tolist() == ["a\ufffdb"] * 2 + ["😀"] * 2
