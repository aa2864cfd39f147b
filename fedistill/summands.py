"""What a site adds to a sum over sites: its release, as one vector of integers.

First the codes of its labels, row by row; then a place for everything that some site's mechanism
states besides. A site leaves zero where another mechanism's places are, so sites with unlike
mechanisms have a sum. The layout is public: a function of the questions and of the proxy set.

All of it is post-processing of a release that was charged, so rounding and clamping cost nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedistill.errors import PolicyRefusal
from fedistill.labels import LabelQuestion, LabelRelease
from fedistill.privacy.grid import LABEL_SCALE

if TYPE_CHECKING:
    from dp_accounting import DpEvent

Integers = npt.NDArray[np.int64]

Place = tuple[str, str]
"""A mechanism's name and the name of what it states."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where in a site's vector what stands.

    Attributes:
        num_rows: Rows of the proxy set.
        num_classes: Classes of the task.
        stated: The places after the codes, sorted.
    """

    num_rows: int
    num_classes: int
    stated: tuple[Place, ...]

    @property
    def num_codes(self) -> int:
        """Codes of labels in a vector."""
        return self.num_rows * (self.num_classes - 1)

    @property
    def length(self) -> int:
        """Integers in a vector."""
        return self.num_codes + len(self.stated)


def to_summands(release: LabelRelease, layout: Layout, bound: int) -> Integers:
    """A release as the vector that is summed, (layout.length,), every entry within +-`bound`.

    Raises:
        PolicyRefusal: The layout has no place for what the release states, or is of another size.
    """
    places = {place: index for index, place in enumerate(layout.stated)}
    vector = np.zeros(layout.length, np.int64)
    if release.codes.size != layout.num_codes:
        raise PolicyRefusal(
            f"layout of {layout.num_codes} codes must have {release.codes.size}, one for each label"
        )
    vector[: layout.num_codes] = release.codes.ravel()
    for name, value in release.parameters.items():
        if (release.mechanism, name) not in places:
            raise PolicyRefusal(
                f"layout must have a place for {name!r} of {release.mechanism!r}: send all "
                "mechanisms' parameters"
            )
        vector[layout.num_codes + places[release.mechanism, name]] = round(value)
    return np.clip(vector, -bound, bound)


def mean_releases(
    total: Integers,
    layout: Layout,
    questions: Mapping[str, LabelQuestion],
    events: Mapping[str, "DpEvent"],
) -> dict[str, LabelRelease]:
    """What each site would have released, had it said what all of them say on average.

    Labels are the mean over all sites; what a mechanism states is the mean over its own sites.

    Args:
        total: (layout.length,) the sum over the sites of `questions`.
        layout: Of `total`.
        questions: What each site in the sum was asked.
        events: What each of them was charged.
    """
    sites = len(questions)
    codes = total[: layout.num_codes].reshape(layout.num_rows, layout.num_classes - 1)
    asked = [question.mechanism for question in questions.values()]
    means = {
        place: max(float(value) / asked.count(place[0]), 1.0) if place[0] in asked else 1.0
        for place, value in zip(layout.stated, total[layout.num_codes :], strict=True)
    }
    return {
        site: LabelRelease(
            codes=codes,
            scale=LABEL_SCALE / sites,
            mechanism=question.mechanism,
            parameters=_of_mechanism(question.mechanism, means),
            proxy_sha256=question.proxy_sha256,
            event=events[site],
        )
        for site, question in questions.items()
    }


def layout_of(num_rows: int, num_classes: int, parameters: Mapping[str, Sequence[str]]) -> Layout:
    """The layout for mechanisms that state these parameters, by the mechanism's name."""
    places = sorted((name, stated) for name, all_ in parameters.items() for stated in all_)
    return Layout(num_rows=num_rows, num_classes=num_classes, stated=tuple(places))


def _of_mechanism(mechanism: str, means: Mapping[Place, float]) -> dict[str, float]:
    return {name: mean for (of, name), mean in means.items() if of == mechanism}
