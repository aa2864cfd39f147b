"""The private log is the owner's alone, and ends where its context ends."""

import logging
import os

import pytest

from fedistill.errors import BadInput, DataError, PolicyRefusal
from fedistill.site import daemon_log
from fedistill.site.daemon_log import private, private_log, public_words
from fedistill.site.policy import Policy


def test_each_file_of_the_private_log_is_its_owner_s_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(daemon_log, "LARGEST_PRIVATE_LOG", 200)
    path = tmp_path / "private.log"
    before = os.umask(0)
    try:
        with private_log(path):
            for number in range(20):
                private.warning("row %d", number)
    finally:
        os.umask(before)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["private.log", "private.log.1"]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    assert "row 19" in path.read_text()


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path):
    path = tmp_path / "private.log"
    path.touch(mode=0o644)
    with private_log(path):
        logging.getLogger("some.library").error("row 7")
    private.warning("after the end")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "row 7" in path.read_text()
    assert "after the end" not in path.read_text()


def test_a_private_log_that_cannot_be_written_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="private-log-path"), private_log(tmp_path):
        pass


def test_words_of_policy_and_ledger_are_public_and_others_are_not(tmp_path):
    with pytest.raises(PolicyRefusal) as refused:
        Policy.load(tmp_path / "none.toml")
    assert "no release without a policy" in public_words(refused.value)
    for error in (
        PolicyRefusal("an extension's, of row 7"),
        DataError("row 7"),
        ValueError("row 7"),
    ):
        with pytest.raises(type(error)) as raised:
            raise error
        assert "row 7" not in public_words(raised.value)
    assert public_words(DataError("row 7")).startswith("DataError")
    assert "an error of private code" in public_words(ValueError("row 7"))
