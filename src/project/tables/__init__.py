"""Tables of samples: CSV, TSV, JSON Lines and Parquet. Does not import torch."""

from project.tables.formats import BLANKS, CONTROL, clean, decode_text
from project.tables.table import DEFAULT_COLUMNS, Columns, PathColumns, Table, check_distinct, load_table

__all__ = [
    "BLANKS",
    "CONTROL",
    "DEFAULT_COLUMNS",
    "Columns",
    "PathColumns",
    "Table",
    "check_distinct",
    "clean",
    "decode_text",
    "load_table",
]
