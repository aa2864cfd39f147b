"""Images as rows of a table: one column a pixel, one channel after the other, line by line."""

import math
from dataclasses import dataclass

from fedistill.errors import DataError

SMALLEST_SIDE = 8


@dataclass(frozen=True, kw_only=True)
class ImageShape:
    """Square images.

    Attributes:
        channels: 1 for grey, 3 for red, green and blue.
        side: Height and width in pixels.
    """

    channels: int
    side: int

    @property
    def num_columns(self) -> int:
        """Columns of a row."""
        return self.channels * self.side**2


def image_shape(num_columns: int) -> ImageShape:
    """The shape of images in rows of so many columns; no count is both grey and colour.

    Raises:
        DataError: They are no square grey or colour images of at least 8 by 8 pixels.
    """
    for channels in (1, 3):
        side = math.isqrt(num_columns // channels)
        if side >= SMALLEST_SIDE and channels * side**2 == num_columns:
            return ImageShape(channels=channels, side=side)
    raise DataError(
        f"rows of {num_columns} columns must be square images, side^2 columns if grey and 3 "
        f"side^2 in colour, with a side of at least {SMALLEST_SIDE}: leave out columns that are no "
        "pixels, and crop or pad"
    )
