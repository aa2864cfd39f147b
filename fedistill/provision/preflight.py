"""Whether a site is ready: its files, its policy, its disk, and what it knows of the project.

Each check says what it found and how to mend it. None writes anything or sends anything private.
What needs the server is in `fedistill.provision.preflight_server`, what needs rows in
`fedistill.provision.preflight_data`.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from fedistill.errors import FedistillError, LedgerError, PolicyRefusal, ProvisionError
from fedistill.privacy.ledger_key import load_key
from fedistill.provision import files
from fedistill.provision.authority import days_left, fingerprint_of, parse_certificate
from fedistill.provision.peers import pinned_keys, with_named
from fedistill.provision.site_folder import (
    Membership,
    SiteFolder,
    load_membership,
    load_pins,
    load_supernode_key,
)
from fedistill.site.policy import Policy

EXPIRES_SOON_DAYS = 30
_DISK_WARNING, _DISK_ERROR = 1 << 30, 100 << 20
_LARGEST_PEM = 64 << 10


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the report.

    Attributes:
        name: What was checked.
        status: How it ended.
        found: What was found.
        mend: What to do; "" where all is well.
    """

    name: str
    status: Status
    found: str
    mend: str = ""


def well(name: str, found: str) -> Check:
    """A check that found nothing wrong."""
    return Check(name=name, status=Status.OK, found=found)


def warning(name: str, found: str, mend: str) -> Check:
    """A check that found what will soon be wrong, or could be better."""
    return Check(name=name, status=Status.WARNING, found=found, mend=mend)


def wrong(name: str, found: str, mend: str) -> Check:
    """A check that found what keeps the site from taking part."""
    return Check(name=name, status=Status.ERROR, found=found, mend=mend)


def failed(name: str, error: FedistillError) -> Check:
    """A check that ended in an error, whose message says what to do after its last colon."""
    found, _, mend = str(error).rpartition(": ")
    return wrong(name, found or mend, mend)


def exit_code(checks: Iterable[Check]) -> int:
    """0 where all is well, 1 with a warning, 2 with an error."""
    found = {check.status for check in checks}
    return 2 if Status.ERROR in found else int(Status.WARNING in found)


def local_checks(folder: SiteFolder, *, now: datetime) -> tuple[list[Check], Membership | None]:
    """All checks that need the site's folder only, and what the site joined, if it did."""
    membership: Membership | None = None
    checks = [check_keys(folder), check_private_files(folder)]
    try:
        membership = load_membership(folder)
    except ProvisionError as error:
        checks.append(failed("membership", error))
    else:
        checks += [
            check_registration_time(membership, now),
            check_authority(folder, membership, now),
            check_pins(folder, membership),
        ]
    checks += [check_policy(folder, membership), check_disk(folder.path)]
    return checks, membership


def check_keys(folder: SiteFolder) -> Check:
    """Both keys are there, are keys, and are readable by their owner alone."""
    try:
        load_key(folder.identity)
        load_supernode_key(folder)
    except (LedgerError, ProvisionError) as error:
        return failed("keys", error)
    return well("keys", "identity and SuperNode key, mode 0600")


def check_private_files(folder: SiteFolder) -> Check:
    """Nobody else can read the folder, its policy or its pins, or write in it."""
    name = "permissions"
    if not folder.path.is_dir():
        return wrong(name, f"{folder.path} is no folder", "run fedistill site init")
    open_to = files.mode_of(folder.path) & 0o077
    if open_to & 0o022:
        return wrong(name, f"others can write in {folder.path}", f"run chmod 700 '{folder.path}'")
    loose = [p for p in (folder.policy, folder.pins) if p.exists() and files.mode_of(p) & 0o022]
    if loose:
        return wrong(name, f"others can write {loose[0]}", f"run chmod 600 '{loose[0]}'")
    if open_to:
        return warning(name, f"others can list {folder.path}", f"run chmod 700 '{folder.path}'")
    return well(name, f"{folder.path} is its owner's alone")


def check_registration_time(membership: Membership, now: datetime) -> Check:
    """The registration has not ended, and will not soon."""
    left = (membership.expires - now) / timedelta(days=1)
    return check_days("registration ends", left, "a kit that provision renew wrote, and join it")


def check_days(name: str, left: float, ask_for: str) -> Check:
    """An error where `left` days are over, a warning where they are few."""
    if left <= 0:
        return wrong(name, f"{-left:.0f} days ago", f"ask the coordinator for {ask_for}")
    if left < EXPIRES_SOON_DAYS:
        return warning(name, f"in {left:.0f} days", f"ask the coordinator for {ask_for}")
    return well(name, f"in {left:.0f} days")


def check_authority(folder: SiteFolder, membership: Membership, now: datetime) -> Check:
    """The certificate that the site trusts is the project's, and good."""
    name = "certificate authority"
    try:
        content = files.read(folder.ca, "certificate", at_most=_LARGEST_PEM)
        certificate = parse_certificate(content, str(folder.ca))
    except ProvisionError as error:
        return failed(name, error)
    if fingerprint_of(certificate) != membership.fingerprint:
        return wrong(
            name, f"{folder.ca} is not the project's", "join the kit again; somebody changed it"
        )
    ask_for = "a kit that provision renew wrote, and join it"
    return check_days(f"{name} ends", days_left(certificate, now), ask_for)


def check_pins(folder: SiteFolder, membership: Membership) -> Check:
    """Every peer's key was compared: it is pinned, or the policy names it."""
    name = "pins"
    try:
        named = Policy.load(folder.policy).peers
    except PolicyRefusal:
        named = {}  # a check of its own says so
    try:
        peers = with_named(pinned_keys(load_pins(folder), membership), named)
    except ProvisionError as error:
        return failed(name, error)
    unpinned = [each.site for each in membership.peers if peers.get(each.site) != each.identity]
    if unpinned:
        return warning(
            name,
            f"nobody compared the fingerprint of {', '.join(unpinned)}",
            "compare by telephone, then run fedistill site pin SITE FINGERPRINT",
        )
    return well(name, f"{len(membership.peers)} peers, all compared")


def check_policy(folder: SiteFolder, membership: Membership | None) -> Check:
    """There is a policy, it can be understood, and it is this site's."""
    name = "policy"
    if not folder.policy.exists():
        return wrong(
            name,
            f"{folder.policy} is missing, so nothing is released",
            "write one; clients/policy.toml is an example",
        )
    try:
        policy = Policy.load(folder.policy)
    except PolicyRefusal as error:
        return wrong(name, " ".join(str(error).split()), "correct the clause that it names")
    if membership is not None and policy.site != membership.site:
        return wrong(
            name,
            f"site={policy.site!r} must be {membership.site!r}, the name in the kit",
            f"correct {folder.policy}",
        )
    return well(name, f"{len(policy.proxy_sha256)} proxy sets, budget {policy.total_epsilon:g}")


def check_disk(path: Path, usage: Callable[[Path], int] | None = None) -> Check:
    """There is room: a ledger that cannot be written answers nothing."""
    name = "disk"
    try:
        free = (usage or (lambda where: shutil.disk_usage(where).free))(path)
    except OSError as error:
        return wrong(name, f"{path}: {error.strerror}", "run fedistill site init")
    found = f"{free / (1 << 30):.1f} GiB free"
    if free < _DISK_ERROR:
        return wrong(
            name, found, "free at least 1 GiB: without room nothing is charged or answered"
        )
    if free < _DISK_WARNING:
        return warning(name, found, "free at least 1 GiB")
    return well(name, found)
