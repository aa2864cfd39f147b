"""What the guarantee hides: which data sets count as neighbours, and what one unit is."""

from enum import StrEnum


class Adjacency(StrEnum):
    """When two data sets are neighbours: the presence or the content of one unit is hidden.

    The same mechanism has another sensitivity under each, and the accountant would not notice a
    mixture: a ledger holds one adjacency for life.
    """

    ADD_REMOVE = "add-remove"
    """One data set is the other with one unit added or removed. The number of units is private."""

    REPLACE_ONE = "replace-one"
    """Both have equally many units and differ in one. The number of units is public. A sum's
    sensitivity is up to twice that under add-remove."""


class Unit(StrEnum):
    """Whose presence is hidden: what one "unit" of the adjacency is."""

    RECORD = "record"
    """One row."""

    GROUP = "group"
    """All rows with one value of the unit column: a customer, a patient."""

    SITE = "site"
    """All rows of the site."""
