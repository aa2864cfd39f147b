"""With whom a site takes part in sums: the peers that its owner pinned, and those its policy names.

The roster, which the coordinator wrote, has each peer's public key; `fedistill site pin` keeps the
fingerprint that somebody compared. A key counts where both agree, so that nobody copies keys. One
rule joins them with the policy's `[peers]`: both count, and where both name a site they must name
the same key. Nothing decides between them but the owner.
"""

from collections.abc import Mapping

from fedistill.errors import ProvisionError
from fedistill.privacy.ledger_key import fingerprint
from fedistill.provision.fingerprints import grouped
from fedistill.provision.site_folder import Membership, SiteFolder, load_membership, load_pins
from fedistill.site.policy import Policy


def peers_of(folder: SiteFolder, policy: Policy) -> dict[str, str]:
    """Public keys (hex) of all peers, by site; of a site that joined nothing, the policy's.

    Args:
        folder: Where the site's key lies, and what `site join` and `site pin` wrote beside it.
        policy: The site's.

    Raises:
        ProvisionError: The policy is another site's, or pins contradict it or the roster.
    """
    if not folder.membership.exists() and not folder.pins.exists():
        return dict(policy.peers)
    membership = load_membership(folder)
    if policy.site != membership.site:
        raise ProvisionError(
            f"policy: site={policy.site!r} must be {membership.site!r}, the name in the kit: "
            f"correct {folder.policy}"
        )
    return with_named(pinned_keys(load_pins(folder), membership), policy.peers)


def with_named(pinned: Mapping[str, str], named: Mapping[str, str]) -> dict[str, str]:
    """Pinned keys and those of the policy's `[peers]`, by site.

    Raises:
        ProvisionError: Both have a site, with unlike keys.
    """
    for site, key in pinned.items():
        if named.get(site, key) != key:
            raise ProvisionError(
                f"policy: peers.{site}={named[site]} must be {key}, the key that was pinned: ask "
                f"{site} for its fingerprint, then remove it from [peers], or correct pins.toml by "
                "fedistill site pin"
            )
    return {**named, **pinned}


def pinned_keys(pins: Mapping[str, str], membership: Membership) -> dict[str, str]:
    """Public keys (hex) of the roster whose fingerprints are pinned, by site.

    Raises:
        ProvisionError: A pin is of no peer in the roster, or of another key than the roster's.
    """
    roster = {each.site: each.identity for each in membership.peers}
    for site, pin in pins.items():
        if site not in roster or fingerprint(roster[site]) != pin:
            said = grouped(fingerprint(roster[site])) if site in roster else "none"
            raise ProvisionError(
                f"pins: {site}={grouped(pin)} must be the fingerprint in the roster, {said}: join "
                "the newest kit, compare again, and run fedistill site pin"
            )
    return {site: roster[site] for site in pins}
