"""The data sets inside the package. Each has its licence beside it in `sets/`."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

_SETS = files("fedistill.data").joinpath("sets")


@dataclass(frozen=True, kw_only=True)
class ShippedSet:
    """A Parquet file in `sets/` and the roles of its columns.

    Attributes:
        file: Name of the Parquet file.
        label_column: The column to predict.
        site_column: The column that says whose row it is, never a feature; "" without one.
        class_names: Names of the label's sorted values; () takes the values themselves.
    """

    file: str
    label_column: str
    site_column: str = ""
    class_names: tuple[str, ...] = ()

    @property
    def path(self) -> Traversable:
        """Where the installed package keeps the file."""
        return _SETS.joinpath(self.file)

    @property
    def licence(self) -> Traversable:
        """Where the installed package keeps the file's licence and attribution."""
        return _SETS.joinpath(self.file.removesuffix(".parquet") + ".LICENSE.txt")


SHIPPED: Mapping[str, ShippedSet] = MappingProxyType(
    {
        "credit_default": ShippedSet(
            file="credit_default.parquet",
            label_column="default_next_month",
            class_names=("no default", "default"),
        ),
        "heart_disease": ShippedSet(
            file="heart_disease.parquet",
            label_column="disease",
            site_column="hospital",
            class_names=("no disease", "disease"),
        ),
        "thyroid": ShippedSet(
            file="thyroid.parquet",
            label_column="finding",
            site_column="referral_source",
            class_names=("no finding", "finding"),
        ),
    }
)
"""Shipped data sets by the name that `dataset` takes."""
