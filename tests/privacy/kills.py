"""A site that is killed with -9 while it asks its ledger, again and again, and what must hold then.

    python -m tests.privacy.kills FOLDER KILLS [broken]

Half of the kills strike at every line of the ledger's code in turn, on a fresh ledger; the other
half at a random instant, which mostly lies in a write to the disk, on a ledger that two processes
use at once. `broken` is a site that sends before it charges: the audit has to notice it.
"""

import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from dp_accounting import ZCDpEvent

from fedistill.privacy import ledger as module
from fedistill.privacy.adjacency import Adjacency, Unit
from fedistill.privacy.ledger import Ledger
from fedistill.privacy.ledger_anchor import anchor_path
from fedistill.privacy.ledger_verify import verify

PRIVACY = str(Path(module.__file__).parent)
BLOCK = 25  # kills in one lasting ledger


@dataclass(frozen=True)
class Site:
    """A site in a folder of its own, and what it notes outside its ledger."""

    folder: Path
    broken: bool = False

    @property
    def ledger(self) -> Path:
        return self.folder / "site.ledger.db"

    def open(self) -> Ledger:
        return Ledger.open(
            self.ledger,
            population="patients",
            adjacency=Adjacency.ADD_REMOVE,
            unit=Unit.RECORD,
            create=True,
        )

    def answer(self, question: str) -> None:
        """As the agent answers: from the ledger, or charge, release, store; then it leaves."""
        release = os.urandom(16)
        if self.broken:
            self.note("sent", release.hex())
        with self.open() as ledger:
            stored = ledger.cached(question)
            if stored is None:
                self.note("asked", question)
                charge = ledger.charge(
                    question, {}, ZCDpEvent(1e-7), budget_epsilon=1.0, delta=1e-5
                )
                self.note("confirmed", charge.hash)
                ledger.store(charge, release, b"teacher")
            else:
                release = stored.release
        self.note("sent", release.hex())

    def note(self, what: str, text: str) -> None:
        """Append a line; the page cache outlives a kill."""
        file = os.open(self.folder / what, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{text}\n".encode())
        os.close(file)

    def noted(self, what: str) -> list[str]:
        path = self.folder / what
        return path.read_text().splitlines() if path.exists() else []

    def audit(self, deaths: int) -> None:
        """Never a release without its charge, never two charges for one release."""
        if anchor_path(self.ledger).exists():  # else it died while it made the ledger
            self.check_valid()
        self.open().close()
        self.check_valid()
        with closing(sqlite3.connect(self.ledger)) as connection:
            charged = connection.execute("SELECT sequence, question, hash FROM charges").fetchall()
            stored = dict(connection.execute("SELECT sequence, hex(release) FROM releases"))
        answers = {release.lower() for release in stored.values()}
        assert set(self.noted("sent")) <= answers, "a release left without its charge"
        assert set(stored) <= {sequence for sequence, _, _ in charged}
        assert len(answers) == len(stored)
        assert set(self.noted("confirmed")) <= {digest for _, _, digest in charged}
        asked = Counter(self.noted("asked"))
        for question, count in Counter(question for _, question, _ in charged).items():
            assert count <= asked[question], "one question was charged twice"
            answered = [s for s, q, _ in charged if q == question and s in stored]
            later = [s for s, q, _ in charged if q == question and answered and s > answered[0]]
            assert not later, "an answered question was charged again"
        assert len(charged) - len(stored) <= deaths

    def check_valid(self) -> None:
        result = verify(self.ledger)
        assert result.complete, result.message


def child(action: Callable[[], None]) -> int:
    """Do something in a process of its own: its id."""
    process = os.fork()
    if process:
        return process
    try:
        action()
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def lines(action: Callable[[], None], at: Callable[[int, FrameType], None]) -> None:
    """Call `at` before each line of the ledger's code that `action` executes."""
    done = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal done
        if not frame.f_code.co_filename.startswith(PRIVACY):
            return None
        if event == "line":
            done += 1
            at(done, frame)
        return trace

    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(None)


def die_at(fatal: int, site: Site, number: int, frame: FrameType) -> None:
    if number == fatal:
        site.note("died", frame.f_code.co_name)
        os.kill(os.getpid(), signal.SIGKILL)


def kill_at_lines(folder: Path, kills: int, broken: bool) -> Iterator[str]:
    """Kill at `kills` lines, spread over all: the functions in which the site died."""
    counted: list[int] = []
    Site(made(folder / "warm")).answer("q")  # fills caches, so that the next takes every line again
    practice = Site(made(folder / "practice"))
    lines(lambda: practice.answer("q"), lambda number, _: counted.append(number))
    for kill in range(kills):
        fatal = 1 + kill * len(counted) // kills
        site = Site(made(folder / f"line-{fatal}-{kill}"), broken)

        answer = partial(site.answer, "q")
        die = partial(die_at, fatal, site)
        assert ended(child(partial(lines, answer, die))) == -signal.SIGKILL
        site.audit(1)
        assert ended(child(answer)) == 0
        site.audit(1)
        yield from site.noted("died")


def kill_at_instants(folder: Path, kills: int, broken: bool, seed: int) -> Iterator[str]:
    """Kill two processes that share a ledger, each at a random instant: what they left behind."""
    instants = random.Random(seed)  # noqa: S311
    practice = Site(made(folder / "practised"))
    practice.answer("q0")
    start = time.perf_counter()
    practice.answer("q1")
    usual = time.perf_counter() - start
    site = Site(folder)
    for kill in range(0, kills, 2):
        if kill % BLOCK < 2:
            site = Site(made(folder / f"block-{kill}"), broken)
            deaths = 0
        deaths += 2
        pair = [child(partial(work, site, name)) for name in "ab"]
        for process in pair:
            time.sleep(instants.uniform(0, 2 * usual))
            os.kill(process, signal.SIGKILL)
        assert {ended(process) for process in pair} == {-signal.SIGKILL}
        for left in ("journal", "wal"):
            if site.ledger.with_name(f"{site.ledger.name}-{left}").exists():
                yield f"a {left}"
        site.audit(deaths)
        yield from ["a paid answer"] * len(set(site.noted("sent")))


def work(site: Site, name: str) -> None:
    """Ask the last question again, then new ones for ever."""
    number = max(len(set(site.noted("asked"))) - 1, 0)
    while True:
        site.answer(f"{name}{number}")
        number += 1


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def main(folder: Path, kills: int, *broken: str) -> None:
    """Kill, audit after each kill, print where the site died and what it left."""
    import dp_accounting.rdp  # noqa: F401  # before the first fork, once for all

    seed = int.from_bytes(os.urandom(4))
    print(json.dumps({"seed": seed}), file=sys.stderr)
    died = Counter(kill_at_lines(folder / "lines", kills // 2, bool(broken)))
    left = Counter(kill_at_instants(folder / "instants", kills - kills // 2, bool(broken), seed))
    print(json.dumps({"died": died, "left": left}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
