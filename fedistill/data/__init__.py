"""Tables: what is read, how it is cut into public and private rows, and the public proxy set.

    load_table -> Table of typed columns, as the file stores them
    split_table -> proxy rows (no labels), whose values alone decide the schema;
                   test rows and private rows, coded by that schema
    private rows -> partition_rows -> rows by simulated site -> register_rows -> rows that fit

A site that has its own table codes it against a published proxy set:

    load_table -> code_table -> misfits_in_words (its own log), register_rows

No function here takes a seed: splits and partitions are fixed, so that figures compare.
"""

from fedistill.data.coding import code_rows, code_table, infer_schema
from fedistill.data.columns import Column
from fedistill.data.loaders import load_table
from fedistill.data.partition import partition_rows
from fedistill.data.proxy import ProxySet
from fedistill.data.registration import misfits_in_words, register_rows
from fedistill.data.schema import ColumnSchema, Kind, Schema, numbers
from fedistill.data.shipped import SHIPPED, ShippedSet
from fedistill.data.split import Split, split_table
from fedistill.data.table import LabelledRows, Table

__all__ = [
    "SHIPPED",
    "Column",
    "ColumnSchema",
    "Kind",
    "LabelledRows",
    "ProxySet",
    "Schema",
    "ShippedSet",
    "Split",
    "Table",
    "code_rows",
    "code_table",
    "infer_schema",
    "load_table",
    "misfits_in_words",
    "numbers",
    "partition_rows",
    "register_rows",
    "split_table",
]
