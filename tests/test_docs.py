"""The docs say what is so: links, names of code and tests, tables of keys, commands."""

import ast
import itertools
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from fedistill.config import RunConfig, describe_keys
from fedistill.errors import ConfigError
from fedistill.evaluate.summary import Summary
from fedistill.privacy.receipts import Receipt
from tests.doc_commands import (
    COMMANDS,
    DEPLOYMENT_TEST,
    HELP,
    IN_CI,
    PREPARE,
    PROVISION_TEST,
    RUN,
    TUTORIAL_TEST,
)

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "simulations/*/README.md",
        "server/*.md",
        "clients/*.md",
    )
    for page in ROOT.glob(pattern)
)
per_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, *languages: str) -> list[str]:
    """Fenced blocks in one of the languages."""
    fenced = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(), re.M | re.S)
    return [text for language, text in fenced if language in languages]


def prose(page: Path) -> str:
    """The page without fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.M | re.S)


def commands(page: Path) -> list[str]:
    """Commands of the page's shell blocks."""
    text = "".join(blocks(page, "sh", "bash", "shell", "console")).replace("\\\n", "")
    lines = (" ".join(line.removeprefix("$ ").split()) for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


# The tutorial's test reads its commands from the page, and runs them all.
COMMANDS |= {
    command: COMMANDS.get(command, TUTORIAL_TEST) for command in commands(ROOT / "docs/tutorial.md")
}


# So do the tests of the pages about provisioning and deployment, against real processes.
COMMANDS |= dict.fromkeys(commands(ROOT / "docs/provisioning.md"), PROVISION_TEST)
COMMANDS |= {
    command: COMMANDS.get(command, DEPLOYMENT_TEST)
    for command in commands(ROOT / "docs/deployment.md")
}


@cache
def defined_names(path: Path) -> frozenset[str]:
    """Functions, classes, methods and constants of a module, methods as `Class.method`."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if hasattr(part, "name")}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(names)


def exists(reference: str) -> bool:
    """Whether `path` or `path::name` names something in the repository."""
    path, _, name = reference.partition("::")
    file = ROOT / path
    return file.exists() and (not name or name in defined_names(file))


def is_module_or_name(dotted: str) -> bool:
    """Whether `fedistill.part.part` is a module, or a name in one."""
    file = ROOT / dotted.replace(".", "/")
    is_module = file.is_dir() or file.with_suffix(".py").exists()
    homes = (file.parent.with_suffix(".py"), file.parent / "__init__.py")
    return is_module or any(p.exists() and file.name in defined_names(p) for p in homes)


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@per_page
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if fragment and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            assert fragment in map(slug, headings), target


@per_page
def test_code_and_tests_that_are_named_exist(page: Path) -> None:
    spans = re.findall(r"`([^`\n]+)`", prose(page))
    paths = re.compile(r"(fedistill|tests|scripts|docs|simulations|benchmarks)/[\w./-]+(::[\w.]+)?")
    dotted = re.compile(r"fedistill(\.\w+)+")
    for span in spans:
        if paths.fullmatch(span):
            assert exists(span), span
        if dotted.fullmatch(span):
            assert is_module_or_name(span), span


@per_page
def test_no_page_names_the_machine_it_was_written_on(page: Path) -> None:
    assert not re.search(r"/(work|home|root|tmp)/|localhost", page.read_text())


def test_every_page_is_in_the_navigation() -> None:
    navigation = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    assert navigation == {str(p.relative_to(ROOT / "docs")) for p in ROOT.glob("docs/**/*.md")}


def test_every_decision_is_listed() -> None:
    listed = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (ROOT / "docs/adr/README.md").read_text())
    assert listed == sorted(path.name for path in ROOT.glob("docs/adr/[0-9]*.md"))


def test_privacy_rules_are_numbered_and_say_what_holds_them() -> None:
    text = (ROOT / "docs/privacy-rules.md").read_text()
    rules = re.split(r"^(\d+)\. ", text, flags=re.M)
    assert [int(number) for number in rules[1::2]] == list(range(1, 24))
    assert all(re.search(r"\*(Held by|Not offered yet)", rule) for rule in rules[2::2])


def allowed(key: str) -> str:
    """The bounds of a key in words, read from the model or from its own complaint."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    field = RunConfig.model_fields[key.replace("-", "_")]
    bounds = [
        f"{words[name]} {value:.12g}"
        for bound in field.metadata
        for name in words
        if (value := getattr(bound, name, None)) is not None
    ]
    if bounds or key == "site-names":
        return ", ".join(bounds)
    wrong = {str: "?", int: 2, bool: True}[type(field.default)]
    try:
        RunConfig.from_flat({key: wrong})
    except ConfigError as error:
        found = re.search(r"must be (.*?): ", str(error))
        return found[1].replace("'", "`") if found else ""
    return ""


def config_table() -> str:
    rows = [("key", "default", "allowed", "meaning"), ("---",) * 4]
    for key in describe_keys():
        default = str(key.default).lower() if isinstance(key.default, bool) else repr(key.default)
        cells = (f"`{key.name}`", f"`{default}`".replace("'", '"'), allowed(key.name), key.meaning)
        rows.append(cells)  # type: ignore[arg-type]
    escaped = (" | ".join(row).replace("<", "&lt;").replace("``", '`""`') for row in rows)
    return "\n".join(f"| {row} |" for row in escaped)


def test_the_table_of_keys_is_that_of_the_config() -> None:
    table = config_table()
    assert table in (ROOT / "docs/configuration.md").read_text(), f"the table must be:\n{table}"


def leaves(kind: Any, key: str = "") -> Iterator[str]:
    """Keys of a model in dots: `<site>` for a mapping of models, `<key>` of values, `[]`."""
    inner = [part for part in get_args(kind) if part not in (type(None), ...)]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield from leaves(field.annotation, f"{key}.{name}".lstrip("."))
    elif get_origin(kind) is tuple:
        yield from leaves(inner[0], f"{key}[]")
    elif get_origin(kind) is Mapping:
        many = isinstance(inner[1], type(Summary))
        yield from leaves(inner[1], f"{key}.<site>" if many else f"{key}.<key>")
    elif len(inner) == 1:
        yield from leaves(inner[0], key)
    else:
        yield key


def expand(key: str) -> list[str]:
    """`a.{b,c}.d` to `a.b.d` and `a.c.d`."""
    parts = [part.split(",") for part in re.split(r"[{}]", key)]
    return ["".join(choice) for choice in itertools.product(*parts)]


def table_keys(heading: str) -> list[str]:
    """The code spans in the first column of the table under a heading of results-folder.md."""
    text = (ROOT / "docs/results-folder.md").read_text()
    section = text.split(f"## {heading}\n", 1)[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*) \|", section, re.M)
    return [key for cell in cells for key in re.findall(r"`([^`]+)`", cell)]


def test_the_keys_of_summary_json_are_those_of_its_model() -> None:
    documented = [key for span in table_keys("summary.json") for key in expand(span)]
    assert sorted(documented) == sorted(leaves(Summary))


def test_the_fields_of_a_receipt_are_those_of_its_model() -> None:
    assert sorted(table_keys("receipts.jsonl")) == sorted(Receipt.model_fields)


@per_page
def test_every_command_on_a_page_is_known(page: Path) -> None:
    unknown = [command for command in commands(page) if command not in COMMANDS]
    assert not unknown, "enter them in COMMANDS with the way they are tested"


@pytest.mark.parametrize("where", sorted({*COMMANDS.values()} - {RUN, HELP, PREPARE}))
def test_the_test_of_a_command_exists(where: str) -> None:
    assert exists(where)


def test_ci_runs_the_commands_of_the_quick_start() -> None:
    script = (ROOT / IN_CI).read_text()
    for step in (
        "-m venv",
        "pip install --quiet -c requirements.lock",
        "pytest -n auto --dist loadfile\n",
        "flwr run",
    ):
        assert step in script
