"""Log lines are whole, machine-readable, and silent about exceptions."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedistill.errors import ConfigError
from fedistill.log_lines import (
    VARIABLE,
    JsonLines,
    LogFormat,
    TextLines,
    fields,
    format_from_environment,
)


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("fedistill.site", logging.WARNING, __file__, 1, message, (), None)
    vars(made).update(extra)
    return made


def failing(message: str) -> logging.LogRecord:
    made = record("an answer failed")
    error = ValueError(message)
    made.exc_info = (ValueError, error, None)
    made.exc_text = f"Traceback: {message}"
    made.stack_info = f"Stack: {message}"
    return made


@given(st.text())
def test_any_message_is_one_json_object_on_one_line(message):
    line = JsonLines().format(record(message.replace("%", "%%"), **fields("answered", bytes=7)))
    assert len(line.splitlines()) == 1
    found = json.loads(line)
    assert found["message"] == message.replace("%", "%%")
    assert found["event"] == "answered"
    assert found["level"] == "warning"
    assert found["bytes"] == 7
    assert "seconds" not in found


@given(st.text(), st.booleans())
def test_any_message_is_one_line_of_text(message, journal):
    line = TextLines(journal=journal).format(record(message.replace("%", "%%")))
    assert len(line.splitlines()) <= 1
    assert line.startswith("<4>") == journal


@pytest.mark.parametrize("formatter", [JsonLines(), TextLines(journal=False)])
def test_no_formatter_prints_what_an_exception_says(formatter):
    line = formatter.format(failing("row 31337"))
    assert "an answer failed" in line
    assert "31337" not in line


def test_the_format_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert format_from_environment() is LogFormat.TEXT
    monkeypatch.setenv(VARIABLE, "json")
    assert format_from_environment() is LogFormat.JSON
    monkeypatch.setenv(VARIABLE, "xml")
    with pytest.raises(ConfigError, match="must be one of text, json"):
        format_from_environment()
