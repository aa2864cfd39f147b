"""Editing a ledger behind its back."""

import sqlite3
from contextlib import closing
from pathlib import Path


def edit(path: Path, *statements: str) -> None:
    """What somebody with a SQLite client and no scruples can do: drop the triggers first."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in names.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
