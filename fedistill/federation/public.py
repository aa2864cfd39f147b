"""What the server of every federation has: public rows, names of classes and of sites."""

from collections.abc import Mapping
from typing import Protocol

from fedistill.data import LabelledRows, ProxySet


class Public(Protocol):
    """Public alone. `Simulation` has private rows besides, `Deployment` has nothing more."""

    @property
    def name(self) -> str:
        """What the data set is called."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices."""
        ...

    @property
    def proxy(self) -> ProxySet:
        """Public rows without labels."""
        ...

    @property
    def test(self) -> LabelledRows:
        """Public rows that only score."""
        ...

    @property
    def site_names(self) -> tuple[str, ...]:
        """The sites that are asked, in a fixed order."""
        ...

    @property
    def left_out(self) -> Mapping[str, str]:
        """Sites that take no part, and why."""
        ...
