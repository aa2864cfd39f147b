"""One mechanism that answered once at one epsilon."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of it.

    Attributes:
        mechanism: Its name.
        epsilon: What the answer cost.
        draw: Number of the draw of rows and labels; trials of one draw are paired.
        score: The ensemble's, on held-out public rows.
        chance: What guessing scores on them.
        attainable: What the labels' own probabilities score on them: no mechanism can do better.
        noise_nats: Root mean square noise in a site's log-odds on the proxy rows.
        bytes_up: Size of a site's answer on all public rows.
        seconds: Of one site's work.
        float_noise: Whether the noise is made in floating point.
    """

    mechanism: str
    epsilon: float
    draw: int
    score: float
    chance: float
    attainable: float
    noise_nats: float
    bytes_up: int
    seconds: float
    float_noise: bool
