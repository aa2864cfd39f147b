"""npz files as columns; pickled objects are never loaded."""

from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fedistill.data.columns import Column
from fedistill.data.wording import listing
from fedistill.errors import DataError

_NUMERIC_KINDS = "biuf"

IMAGE_SET = ("x_train", "y_train", "x_test", "y_test")
"""Arrays of an image set as Keras and its like store it."""


def read_npz(
    file: IO[bytes], source: str, wanted: tuple[str, ...]
) -> tuple[list[tuple[str, Column]], dict[str, Column]]:
    """Names and columns of `X`, and the further columns among `wanted` and `y`.

    `X` (num_rows, num_columns), `y` (num_rows,), `features` (num_columns,) names if any.

    Further arrays of shape (num_rows,) may be the label, site or unit column; `<name>_names` then
    holds the names that the codes in `<name>` stand for.

    Or, of an image set, `IMAGE_SET`: images (num_images, side, side), or (num_images, side, side,
    3) in colour, and their labels (num_images,). All images become rows, those of training first.

    Raises:
        DataError: An array is missing, is pickled, or has another shape or type.
    """
    with np.load(file, allow_pickle=False) as arrays:
        if "X" not in arrays and all(name in arrays for name in IMAGE_SET):
            return _image_set(arrays, source)
        if "X" not in arrays:
            raise DataError(
                f"{source} must hold an array 'X' of rows, but holds {listing(arrays.files)}: "
                "save it with numpy.savez(path, X=rows, y=labels, features=names)"
            )
        rows = _array(arrays, "X", source, ndim=2, kinds=_NUMERIC_KINDS)
        names = _feature_names(arrays, rows.shape[1], source)
        extras = {}
        for name in dict.fromkeys(("y", *wanted)):
            if name not in arrays.files or name in ("X", "features"):
                continue
            if name in names:
                raise DataError(
                    f"{source}: {name!r} is a column of X and an array of its own, and names must "
                    "differ: rename one"
                )
            extras[name] = _extra(arrays, name, len(rows), source)
    return [(name, Column.of(rows[:, j])) for j, name in enumerate(names)], extras


def _image_set(arrays: Any, source: str) -> tuple[list[tuple[str, Column]], dict[str, Column]]:
    """One column a pixel: line by line, one channel after the other."""
    images, labels = [], []
    for part in ("train", "test"):
        pixels = _array(arrays, f"x_{part}", source, ndim=(3, 4), kinds=_NUMERIC_KINDS)
        if pixels.ndim == 4:
            pixels = np.moveaxis(pixels, 3, 1)
        images.append(pixels.reshape(len(pixels), -1))
        codes = _array(arrays, f"y_{part}", source, ndim=1, kinds=_NUMERIC_KINDS + "U")
        if len(codes) != len(pixels):
            raise DataError(
                f"{source}: array 'y_{part}' has {len(codes)} labels and must have one for each of "
                f"the {len(pixels)} images of 'x_{part}': save both from the same set"
            )
        labels.append(codes)
    if images[0].shape[1] != images[1].shape[1]:
        raise DataError(
            f"{source}: images of 'x_train' have {images[0].shape[1]} pixels and those of 'x_test' "
            f"{images[1].shape[1]}, which must be equal: bring them to one size"
        )
    rows = np.concatenate(images)
    columns = [(f"x{j}", Column.of(np.ascontiguousarray(rows[:, j]))) for j in range(rows.shape[1])]
    return columns, {"y": Column.of(np.concatenate(labels))}


def _array(
    arrays: Any, name: str, source: str, *, ndim: int | tuple[int, ...], kinds: str
) -> npt.NDArray[Any]:
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    try:
        # A member without numpy's header comes as bytes.
        array = np.asarray(arrays[name])
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            f"{source}: array {name!r} holds pickled Python objects, which are never loaded since "
            "they can run code: save it as numbers or fixed-width strings"
        ) from None
    if array.ndim not in allowed or array.dtype.kind not in kinds:
        what = "numbers" if kinds == _NUMERIC_KINDS else "numbers or text"
        count = " or ".join(map(str, allowed))
        raise DataError(
            f"{source}: array {name!r} of shape {array.shape} and type {array.dtype} must have "
            f"{count} dimension{'' if allowed == (1,) else 's'} of {what}: save it so"
        )
    return array


def _feature_names(arrays: Any, num_columns: int, source: str) -> list[str]:
    if "features" not in arrays:
        return [f"x{j}" for j in range(num_columns)]
    names = _array(arrays, "features", source, ndim=1, kinds="U")
    if len(names) != num_columns:
        raise DataError(
            f"{source}: features={len(names)} names must be one for each of the {num_columns} "
            "columns of X: save both from the same table"
        )
    return [str(name) for name in names]


def _extra(arrays: Any, name: str, num_rows: int, source: str) -> Column:
    codes = _array(arrays, name, source, ndim=1, kinds=_NUMERIC_KINDS + "U")
    if len(codes) != num_rows:
        raise DataError(
            f"{source}: array {name!r} has {len(codes)} entries and must have one for each of the "
            f"{num_rows} rows of X: save both from the same table"
        )
    if f"{name}_names" not in arrays:
        return Column.of(codes)
    names = _array(arrays, f"{name}_names", source, ndim=1, kinds="U")
    if codes.dtype.kind not in "iu" or (codes < 0).any() or (codes >= len(names)).any():
        raise DataError(
            f"{source}: array {name!r} must hold integers in 0..{len(names) - 1}, the positions "
            f"in {name + '_names'!r}: save it so"
        )
    return Column.of(names[codes])
