"""Tables: what is read, how it is cut into public and private rows, and the public proxy set.

    load_table -> Table -> split_table -> proxy rows (no labels), test rows, private rows
    private rows -> partition_rows -> rows by simulated site -> register_rows

No function here takes a seed: splits and partitions are fixed, so that figures compare.
"""

from fedistill.data.loaders import load_table
from fedistill.data.partition import partition_rows
from fedistill.data.proxy import ProxySet
from fedistill.data.registration import register_rows
from fedistill.data.shipped import SHIPPED, ShippedSet
from fedistill.data.split import Split, split_table
from fedistill.data.table import LabelledRows, Table

__all__ = [
    "SHIPPED",
    "LabelledRows",
    "ProxySet",
    "ShippedSet",
    "Split",
    "Table",
    "load_table",
    "partition_rows",
    "register_rows",
    "split_table",
]
