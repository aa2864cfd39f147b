"""Which file of rows the owner registered, so that another one is noticed before it answers.

The hash is a local tamper warning: it is never sent, and no budget hangs on it. Another file is new
data of the same population, charged to the same budget, once its owner confirms that it is
(PRIVACY rule 10).
"""

import hashlib
import os

from fedistill.errors import DataError
from fedistill.privacy import ledger_file
from fedistill.privacy.ledger_anchor import read_anchor
from fedistill.site.site_config import SiteConfig


def confirm_data(config: SiteConfig) -> str:
    """Register the file of rows as it is now, as a line for `sha256sum -c`; returns its sha256.

    Raises:
        DataError: The file cannot be read, or the line cannot be written.
    """
    found, path = data_sha256(config), config.registered_data_path
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.unlink(missing_ok=True)
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as stream:
            stream.write(f"{found}  {config.data_path}\n")
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"registered-data-path={str(path)!r} cannot be written: {error.strerror}"
        ) from error
    return found


def check_data(config: SiteConfig) -> None:
    """Refuse a file of rows that is not the registered one.

    A site that was never charged registers its file now; one that was, and whose line is missing,
    asks its owner.

    Raises:
        DataError: The file changed since it was registered, or nobody can tell, or it cannot be
            read.
        LedgerError: There is no ledger, or it cannot be read.
    """
    path, registered = config.ledger_path, registered_sha256(config)
    ledger_file.identity(path, read_anchor(path))  # says so where there is none
    if registered is None and not ledger_file.read(path).entries:
        confirm_data(config)
        return
    if registered != data_sha256(config):
        what = "is not" if registered else "may not be"
        raise DataError(
            f"data-path={str(config.data_path)!r} {what} the file that was registered in "
            f"{str(config.registered_data_path)!r}: if its rows are about the same population, and "
            "may be charged to the same budget, run fedistill site confirm-data; else give it a "
            "policy and a ledger of its own"
        )


def registered_sha256(config: SiteConfig) -> str | None:
    """The registered hash; None where none was written.

    Raises:
        DataError: What stands there cannot be read.
    """
    path = config.registered_data_path
    try:
        return path.read_text().partition(" ")[0]
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"registered-data-path={str(path)!r} cannot be read: {error}: run fedistill site "
            "confirm-data, if the rows are still those of the same population"
        ) from error


def data_sha256(config: SiteConfig) -> str:
    """Sha256 (hex) of the file of rows.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with config.data_path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"data-path={str(config.data_path)!r} cannot be read: {error.strerror}: correct the "
            "path, or its permissions"
        ) from error
