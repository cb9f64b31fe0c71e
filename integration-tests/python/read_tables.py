"""Opens table folders with DuckDB, Polars and pyarrow, each as its manual says, and prints what every one of them saw.

Usage: python read_tables.py FOLDER ...; prints {reader: {folder: {rows, columns, id, first, last}}}, where `id` is the
first column and `first` and `last` its lowest and highest value.
"""

import json
import sys

import duckdb
import polars
import pyarrow.compute
import pyarrow.dataset


def seen(rows, columns, first, last):
    return {"rows": rows, "columns": columns, "id": columns[0], "first": first, "last": last}


def with_duckdb(folder):
    table = duckdb.sql(f"SELECT * FROM '{folder}/*.parquet'")
    name = f'"{table.columns[0]}"'
    [(rows, first, last)] = table.aggregate(f"count(*), min({name}), max({name})").fetchall()
    return seen(rows, table.columns, first, last)


def with_polars(folder):
    table = polars.scan_parquet(folder).collect()
    ids = table[table.columns[0]]
    return seen(table.height, table.columns, ids.min(), ids.max())


def with_pyarrow(folder):
    table = pyarrow.dataset.dataset(folder, format="parquet").to_table()
    ends = pyarrow.compute.min_max(table.column(0)).as_py()
    return seen(table.num_rows, table.column_names, ends["min"], ends["max"])


if __name__ == "__main__":
    readers = {"duckdb": with_duckdb, "polars": with_polars, "pyarrow": with_pyarrow}
    print(json.dumps({name: {folder: read(folder) for folder in sys.argv[1:]} for name, read in readers.items()}))
