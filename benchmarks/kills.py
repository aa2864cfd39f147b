"""Kills of a random process at a random moment of real deployed runs, and how the runs ended.

    python -m benchmarks.kills --kills 20 --results kills.jsonl

Three sites on this machine: agents, SuperNodes, a SuperLink and `fedistill run`, each a process of
its own. One kill -9 a run; what was killed is started again as a supervisor would, and the
ServerApp is left to `fedistill run`. The claims: every run ends by itself, with a result or
cleanly refused for want of sites; no site is charged more than once; no row, key or un-noised label
crosses the wire between SuperNodes and SuperLink, whose every byte is recorded; no process is left.
Each kill is a line of JSON that is appended to --results, so that many kills may be done in parts:
a later call counts those that are there. It uses the federation of the tests, so it runs in the
repository.
"""

import argparse
import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from fedistill.site import LocalAgent
from tests.e2e.conftest import free_port, own_flower
from tests.e2e.faults import Breakable
from tests.federation.deployed_secrets import encodings, rows_and_key, twin_of, unnoised_codes
from tests.relays import Relay

VICTIMS = ("server-app", "superlink", "supernode", "agent", "nobody")
LONGEST_WAIT = 45.0  # seconds from the start of a run to its kill: about as long as a run takes
LONGEST_RUN = 900.0
SECONDS_TO_END = 30.0
REFUSED = "sites answered, min-sites="


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One run, in which one process was killed.

    Attributes:
        victim: What was killed.
        after: Seconds after the start of the run.
        phase: The last phase that had begun.
        ended: `finished`, `refused` (too few sites), `failed` or `hung`.
        seconds: How long the run took.
        charges: Charges of each site.
        leaks: Sites of which the record of the wire holds a row, the key or un-noised labels.
        left: Processes left when everything was stopped.
    """

    victim: str
    after: float
    phase: str
    ended: str
    seconds: float
    charges: list[int]
    leaks: list[str]
    left: int

    @property
    def good(self) -> bool:
        """Whether the claims hold."""
        ended_cleanly = self.ended in ("finished", "refused")
        harmless = max(self.charges) <= 1 and not self.leaks
        return ended_cleanly and harmless and self.left == 0


def kill_once(random: random.Random) -> Kill:
    """A federation of its own, a run, a kill, and what became of them."""
    victim, after = random.choice(VICTIMS[:-1]), random.uniform(0, LONGEST_WAIT)
    site = random.choice(("bank_a", "bank_b", "bank_c"))
    with own_flower() as flower, ExitStack() as stack:
        federation = Breakable(flower)
        try:
            for each in federation.sites.values():
                federation.until(each.socket.exists, f"the agent of {each.name}")
            twins = {name: twin_of(each) for name, each in federation.sites.items()}
            entrance = free_port()
            wire = stack.enter_context(Relay(int(entrance), int(federation.port)))
            federation.entrance = dict.fromkeys(federation.sites, entrance)
            for name in federation.sites:
                federation.start_supernode(name)
            start = time.monotonic()
            run = federation.begin(**{"phase-timeout": 90.0})
            try:
                run.wait(timeout=after)
                victim = "nobody"  # the run was faster
            except subprocess.TimeoutExpired:
                _kill(federation, victim, site)
            phase = federation.last_phase()
            ended = _end(federation, run)
            seconds = time.monotonic() - start
            charges = federation.charges()
            if ended == "finished" and _is_blind(twins.values(), wire):
                raise RuntimeError("the record of the wire lacks the sites' public keys")
            leaks = [name for name, twin in twins.items() if _leaked(federation, twin, wire)]
        finally:
            federation.stop()
        deadline = time.monotonic() + SECONDS_TO_END
        while (left := len(flower.processes())) and time.monotonic() < deadline:
            time.sleep(0.5)
    return Kill(
        victim=victim,
        after=round(after, 1),
        phase=phase,
        ended=ended,
        seconds=round(seconds, 1),
        charges=charges,
        leaks=leaks,
        left=left,
    )


def _kill(federation: Breakable, victim: str, site: str) -> None:
    if victim == "server-app":
        federation.kill_server_app()
    elif victim == "superlink":
        federation.kill_superlink()
        federation.start_superlink()
    elif victim == "supernode":
        federation.kill_supernode(site)
        federation.start_supernode(site)
    else:
        federation.kill_agent(site)
        federation.restart_agent(site)


def _leaked(federation: Breakable, twin: LocalAgent, wire: Relay) -> bool:
    site = federation.sites[twin.policy.site]
    codes = unnoised_codes(twin, federation.config)
    return any(wire.saw(secret) for secret in rows_and_key(site, twin) + encodings(codes))


def _is_blind(twins: Iterable[LocalAgent], wire: Relay) -> bool:
    """Whether the record lacks what every finished run sends: the sites' public keys."""
    return not all(wire.saw(twin.identity.public_key().public_bytes_raw()) for twin in twins)


def _end(federation: Breakable, run: subprocess.Popen[str]) -> str:
    try:
        code = run.wait(timeout=LONGEST_RUN)
    except subprocess.TimeoutExpired:
        run.kill()
        run.wait()
        return "hung"
    if code == 0 and (federation.folder / "run" / "summary.json").is_file():
        return "finished"
    return "refused" if REFUSED in federation.output().splitlines()[-1] else "failed"


def read_results(path: Path) -> list[Kill]:
    """The kills of earlier calls."""
    if not path.exists():
        return []
    return [Kill(**json.loads(line)) for line in path.read_text().splitlines()]


def print_tally(kills: list[Kill], console: Console) -> None:
    """What was killed and how the runs ended, and every run that breaks a claim."""
    good = sum(kill.good for kill in kills)
    console.print(f"{good} of {len(kills)} runs ended as they must")
    for (victim, ended), count in sorted(Counter((k.victim, k.ended) for k in kills).items()):
        console.print(f"  {victim:<10} {ended:<8} {count}")
    for kill in kills:
        if not kill.good:
            console.print(f"  broken: {json.dumps(asdict(kill))}", markup=False)


def main() -> None:
    """Kill until there are enough, or the time is over; exit 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="how many, earlier parts included")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="begin none after these"
    )
    parser.add_argument("--results", type=Path, default=Path("kills.jsonl"), help="lines of JSON")
    options = parser.parse_args()
    console, start = Console(), time.monotonic()
    chance = random.SystemRandom()
    while len(kills := read_results(options.results)) < options.kills:
        if time.monotonic() - start > options.seconds:
            break
        kill = kill_once(chance)
        with options.results.open("a") as file:
            file.write(json.dumps(asdict(kill)) + "\n")
        console.print(json.dumps(asdict(kill)), markup=False)
    print_tally(kills, console)
    raise SystemExit(not all(kill.good for kill in kills))


if __name__ == "__main__":
    main()
