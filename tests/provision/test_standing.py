"""How long a site may take part."""

from datetime import timedelta

import pytest

from fedistill.errors import ProvisionError
from fedistill.provision.site_folder import SiteFolder, join
from fedistill.provision.standing import membership_ends
from tests.provision.conftest import NOW, Federation


@pytest.fixture
def folder(federation: Federation) -> SiteFolder:
    joined = federation.folders["bank_a"]
    join(joined, federation.kit("bank_a"), fingerprint=federation.made.fingerprint, now=NOW)
    return joined


def test_the_earlier_end_of_registration_and_certificate_counts(folder) -> None:
    end = membership_ends(folder, "bank_a")
    assert timedelta(days=99) < end - NOW <= timedelta(days=100)


def test_a_kit_for_another_site_than_the_policy_is_refused(folder) -> None:
    with pytest.raises(ProvisionError, match="another site's kit or another site's policy"):
        membership_ends(folder, "bank_b")


def test_a_certificate_that_is_none_is_refused(folder) -> None:
    folder.ca.write_text("no certificate")
    with pytest.raises(ProvisionError, match=r"ca\.crt"):
        membership_ends(folder, "bank_a")
