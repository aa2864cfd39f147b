"""What one person has spent over all sites of a run: a simulation has all ledgers at hand.

Sites hold disjoint people, or they do not. If no person is at two sites, a person's total is that
of the site which holds the person: the largest over the sites bounds it (parallel composition,
McSherry 2009, "Privacy Integrated Queries"). For someone with a record at every site, all sites'
releases are about that person, and compose: the accountant adds their Renyi divergences, order by
order, at the one delta. Under site-level privacy the same holds, a site being all of its records.

Where sites share the noise of a sum, such a person moves the sum once for each site. Then only each
site's own noise counts for the site's own part, and the parts compose: the sum is post-processing
of them. So what is added is each charge's cost if all other sites colluded.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedistill.errors import LedgerError, PolicyRefusal
from fedistill.evaluate.summary import PersonPrivacy, SitePrivacy
from fedistill.federation.run_folder import RunFolder, ledger_path
from fedistill.privacy.accountant import epsilon_of
from fedistill.privacy.adjacency import Adjacency
from fedistill.site import Policy, open_ledger

if TYPE_CHECKING:
    from dp_accounting import DpEvent

    from fedistill.config import RunConfig


def person_privacy(
    config: "RunConfig", folder: RunFolder, paid: Mapping[str, SitePrivacy]
) -> PersonPrivacy | None:
    """A person's total over the sites in `paid`, None where no site paid.

    A site whose ledger cannot be read leaves `every_site` without a finite bound.
    """
    if not paid:
        return None
    totals = [site.total_epsilon for site in paid.values()]
    delta = max(site.delta for site in paid.values())
    adjacency = Adjacency(next(iter(paid.values())).adjacency)
    try:
        events = [event for site in paid for event in _events(config, folder, site)]
        every_site = epsilon_of(events, delta, adjacency)
    except (LedgerError, PolicyRefusal):
        every_site = None
    return PersonPrivacy(
        one_site=None if None in totals else max(total for total in totals if total is not None),
        every_site=every_site,
        delta=delta,
    )


def _events(config: "RunConfig", folder: RunFolder, site: str) -> "list[DpEvent]":
    """All that the site ever released about its population, each by the site's own noise."""
    policy = Policy.load(folder.site(site) / "policy.toml")
    with open_ledger(policy, ledger_path(config, folder, site), create=False) as ledger:
        return [charge.alone for charge in ledger.entries()]
