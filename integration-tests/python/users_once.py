"""Counts the users of scored tables with DuckDB, as somebody would who knows only the folders.

Usage: python users_once.py HISTORIES TABLE ...; prints [{rows, users, missing, strangers}], one for each table: its rows, its
different users, users of HISTORIES that it lacks, and users that HISTORIES lacks.
"""

import json
import sys

import duckdb


def counted(histories, table):
    duckdb.sql(f"CREATE OR REPLACE VIEW wanted AS SELECT user_id FROM '{histories}/*.parquet'")
    duckdb.sql(f"CREATE OR REPLACE VIEW found AS SELECT user_id FROM '{table}/*.parquet'")
    one = lambda query: duckdb.sql(query).fetchall()[0][0]
    return {
        "rows": one("SELECT count(*) FROM found"),
        "users": one("SELECT count(DISTINCT user_id) FROM found"),
        "missing": one("SELECT count(*) FROM wanted ANTI JOIN found USING (user_id)"),
        "strangers": one("SELECT count(*) FROM found ANTI JOIN wanted USING (user_id)"),
    }


if __name__ == "__main__":
    print(json.dumps([counted(sys.argv[1], table) for table in sys.argv[2:]]))
