"""Every error that fedistill raises on purpose.

    FedistillError
    ├── BadInput              what the user gave cannot be used: exit code 2
    │   ├── ConfigError       a run-config key: unknown, out of bounds, at odds with another
    │   ├── DataError         a data set, a row, a label or a path
    │   └── ProvisionError    a project, a request, a startup kit, a key or a certificate
    ├── Refusal               a site says no; nothing was charged
    │   ├── PolicyRefusal     a clause of the site's policy forbids the question
    │   ├── Waiting           the site's owner has not decided on the question yet
    │   ├── BudgetExceeded    the population's privacy budget does not hold the charge
    │   └── LedgerError       the ledger is missing, behind its anchor, edited, or cannot be written
    ├── SecAggError           secure aggregation ends, and nobody learned a sum
    │   ├── TermsRefused      a round's terms promise too little or do not fit: exit code 2
    │   ├── MessageRefused    a message is malformed, unsigned, of another round, or repeated
    │   └── TooFewSurvivors   too few sites remain to open the sum
    └── RunFailed             the run cannot go on: exit code 1
        └── TooFewSites       fewer than `min-sites` answered

Messages name the field, the value and the bound, then what to do. They stay on the machine that
raised them: only `public_class`, a constant per class, may cross the wire, and with "policy" the
name of the clause, never its bound.
"""

from typing import ClassVar


class FedistillError(Exception):
    """Base of all errors raised on purpose."""

    public_class: str = "no-answer"
    exit_code: ClassVar[int] = 1


class BadInput(FedistillError):
    """What the user gave cannot be used."""

    exit_code = 2


class ConfigError(BadInput):
    """A run-config key is unknown, out of bounds or at odds with another key."""


class DataError(BadInput):
    """A data set cannot be used. Row-dependent: its text never leaves the owner's machine."""


class ProvisionError(BadInput):
    """A project, a request, a startup kit, a key or a certificate cannot be used."""


class Refusal(FedistillError):
    """A site declines to answer; no budget was spent."""


class PolicyRefusal(Refusal):
    """A clause of the site's policy forbids the question.

    Args:
        message: For the site's own log.
        clause: The clause's name, which the server may see; "" where no single one forbids it. A
            clause must not be refused for what a private row says.
    """

    public_class = "policy"

    def __init__(self, message: str, *, clause: str = "") -> None:
        super().__init__(message)
        if clause:
            self.public_class = f"policy:{clause}"


class Waiting(Refusal):
    """The site's owner has not decided on the question yet."""

    public_class = "waiting"


class BudgetExceeded(Refusal):
    """The population's remaining budget does not hold the charge."""

    public_class = "budget"


class LedgerError(Refusal):
    """The ledger is missing, behind its anchor, edited, or cannot be written."""

    public_class = "ledger"


class SecAggError(FedistillError):
    """Secure aggregation ends, and nobody learned a sum."""


class TermsRefused(SecAggError):
    """A round's terms promise too little, or its integers do not fit."""

    exit_code = 2


class MessageRefused(SecAggError):
    """A message is malformed, not signed as it must be, of another round, or repeated."""


class TooFewSurvivors(SecAggError):
    """Too few sites remain to open the sum, which stays closed."""


class RunFailed(FedistillError):
    """The run cannot go on."""


class TooFewSites(RunFailed):
    """Fewer sites answered than `min-sites` asks for."""


def public_class_of(error: Exception) -> str:
    """What of an error may cross the wire; of one that nobody raised on purpose, nothing."""
    return error.public_class if isinstance(error, FedistillError) else FedistillError.public_class
