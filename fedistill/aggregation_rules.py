"""Which run-config keys go together where the server sees sums only."""

from fedistill.errors import ConfigError

FEDERATED = "corrections"
"""The mechanism whose rounds run over all sites: its sums are what the server works with."""


CORRECTION_ROUNDS = 4
"""Rounds that suit it, found on validation rows: `benchmarks/shared_noise.py`."""


def check_aggregation(
    *,
    secure: bool,
    trust: str,
    weights: str,
    answers: str,
    rounds: int,
    mechanisms: frozenset[str],
) -> None:
    """Refuse what sums over sites cannot give.

    Args:
        secure: `secure-aggregation`.
        trust: `trust`.
        weights: `ensemble-weights`.
        answers: `answers`.
        rounds: `rounds`.
        mechanisms: All that sites shall answer with.

    Raises:
        ConfigError: Names the two keys and the way out.
    """
    if rounds > 1 and mechanisms != {FEDERATED}:
        raise ConfigError(
            f"rounds={rounds} must be 0 or 1 with mechanism={', '.join(sorted(mechanisms))!r}: "
            f"only {FEDERATED!r} asks the sites again"
        )
    if not secure:
        if trust != "none":
            raise ConfigError(
                f"trust={trust!r} must be 'none' with secure-aggregation=false: without sums the "
                "server would see each site's part of the shared noise; set secure-aggregation=true"
            )
        if FEDERATED in mechanisms:
            raise ConfigError(
                f"mechanism={FEDERATED!r} works on sums over sites: set secure-aggregation=true, "
                "or choose 'dp-probe', which does the same within each site"
            )
        return
    if weights not in ("auto", "uniform"):
        raise ConfigError(
            f"ensemble-weights={weights!r} must be 'auto' or 'uniform' with "
            "secure-aggregation=true: it compares single sites, and the server sees sums only; "
            "set secure-aggregation=false"
        )
    if answers == "confident" and "sharded" in mechanisms:
        raise ConfigError(
            "answers='confident' must be 'soft' with secure-aggregation=true: which rows a site "
            "answered is part of its release and cannot be summed; set secure-aggregation=false"
        )
    if len(mechanisms) > 1 and (trust != "none" or FEDERATED in mechanisms):
        raise ConfigError(
            f"site-mechanisms must be '' with trust={trust!r} and mechanisms "
            f"{', '.join(sorted(mechanisms))}: integers of unlike mechanisms have no sum; choose "
            "one mechanism, or trust='none' without 'corrections'"
        )
