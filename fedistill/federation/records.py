"""The content records of answers, by name. They hold bytes that a site encoded, or a public class.

Imports Flower alone: a courier starts for every message.
"""

from collections.abc import Mapping

from flwr.app import ConfigRecord, RecordDict

OK = "ok"


def hello_record(identities: Mapping[str, bytes]) -> RecordDict:
    """Which sites a node hosts, and the public key by which each signs (b"" where it has none)."""
    sites, keys = list(identities), list(identities.values())
    return RecordDict({"hello": ConfigRecord({"sites": sites, "identities": keys})})


def release_record(site: str, release: bytes) -> RecordDict:
    """A site's noised labels or tables, as `fedistill.codec` encodes them."""
    return RecordDict({"release": ConfigRecord({"site": site, "status": OK, "release": release})})


def failure_record(site: str, public_class: str) -> RecordDict:
    """A site's failure to give labels or tables: a public class, no text."""
    return RecordDict({"release": ConfigRecord({"site": site, "status": public_class})})


def sealed_record(site: str, message: bytes) -> RecordDict:
    """A site's message of a step of a sealed round, as `fedistill.secagg` encodes it."""
    return RecordDict({"reply": ConfigRecord({"site": site, "status": OK, "message": message})})


def refusal_record(site: str, public_class: str) -> RecordDict:
    """A site's failure in a step: a public class, no text."""
    return RecordDict({"reply": ConfigRecord({"site": site, "status": public_class})})
