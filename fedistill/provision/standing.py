"""How long a site that joined a project may take part, and whether its kit is for that site."""

from datetime import datetime

from fedistill.errors import ProvisionError
from fedistill.provision import files
from fedistill.provision.authority import parse_certificate
from fedistill.provision.site_folder import SiteFolder, load_membership

_LARGEST_PEM = 64 << 10


def membership_ends(folder: SiteFolder, site: str) -> datetime:
    """When the registration or the project's certificate ends, whichever comes first.

    Args:
        folder: The site's, with a kit that was joined.
        site: The name that the site's policy has.

    Raises:
        ProvisionError: The kit is for another site, or the folder's files cannot be read.
    """
    membership = load_membership(folder)
    if membership.site != site:
        raise ProvisionError(
            f"{folder.membership} has site={membership.site!r} and {folder.policy} has {site!r}, "
            "which must be the same: this is another site's kit or another site's policy"
        )
    content = files.read(folder.ca, "certificate", at_most=_LARGEST_PEM)
    return min(membership.expires, parse_certificate(content, str(folder.ca)).not_valid_after_utc)
