from dataclasses import replace

import numpy as np
import pytest
from dp_accounting import ZCDpEvent
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from safetensors.numpy import load, save

from fedistill.codec import decode_release, encode_release
from fedistill.errors import DataError
from fedistill.labels import EnsembleTarget, LabelQuestion, LabelRelease, SoftLabels
from fedistill.privacy.grid import LABEL_SCALE

EVENT = ZCDpEvent(0.02)


def question(num_classes: int = 3) -> LabelQuestion:
    return LabelQuestion(
        mechanism="dp-probe",
        epsilon=1.0,
        delta=1e-5,
        probe_steps=6,
        num_classes=num_classes,
        proxy_sha256="ab" * 32,
    )


def release(codes: np.ndarray, count: float = 80.0) -> LabelRelease:
    return LabelRelease(
        codes=codes,
        scale=LABEL_SCALE,
        mechanism="dp-probe",
        parameters={"noised-count": count},
        proxy_sha256="ab" * 32,
        event=EVENT,
    )


def decode(data: bytes, num_rows: int = 7) -> LabelRelease:
    return decode_release(
        data,
        question=question(),
        num_rows=num_rows,
        event=EVENT,
        parameters=("noised-count",),
    )


@given(st_numpy.arrays(np.int16, st.tuples(st.integers(1, 40), st.integers(1, 9))))
def test_a_release_survives_the_wire(codes: np.ndarray) -> None:
    sent = release(codes)
    got = decode_release(
        encode_release(sent),
        question=question(codes.shape[1] + 1),
        num_rows=len(codes),
        event=EVENT,
        parameters=("noised-count",),
    )
    np.testing.assert_array_equal(got.codes, codes)
    assert replace(got, codes=codes) == replace(sent, codes=codes)


@given(st_numpy.arrays(np.int16, (7, 2)), st.floats(allow_nan=False, allow_infinity=False))
def test_the_length_depends_on_public_sizes_alone(codes: np.ndarray, count: float) -> None:
    """PRIVACY rule 4."""
    blank = encode_release(release(np.zeros((7, 2), np.int16)))
    assert len(encode_release(release(codes, count))) == len(blank)


@pytest.mark.parametrize(
    "labels",
    [
        SoftLabels(log_odds=np.zeros((7, 2))),
        EnsembleTarget(log_odds=np.zeros((7, 2)), std=np.zeros((7, 2)), num_sites=1),
        np.zeros((7, 2)),
        release(np.zeros((7, 2), np.int64)),
        release(np.zeros((7, 2))),
    ],
)
def test_nothing_else_has_an_encoding(labels: object) -> None:
    with pytest.raises(TypeError, match="only a LabelRelease"):
        encode_release(labels)


GOOD = load(encode_release(release(np.zeros((7, 2), np.int16))))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 64,
        save({"codes": GOOD["codes"]}),
        save(GOOD | {"codes": GOOD["codes"][:6]}),
        save(GOOD | {"codes": GOOD["codes"].astype(np.float64)}),
        save(GOOD | {"scale": np.array([np.nan])}),
        save(GOOD | {"scale": np.array([0.0])}),
        save(GOOD | {"scale": np.array([1e300])}),
        save(GOOD | {"parameter.noised-count": np.array([0.0])}),
        save(GOOD | {"parameter.noised-count": np.array([1e300])}),
        save(GOOD | {"parameter.surprise": np.array([1.0])}),
        save({name: value for name, value in GOOD.items() if "count" not in name}),
        save(GOOD | {"scale": np.array([1.0, 2.0])}),
        save(GOOD | {"parameter.noised-count": np.array([np.inf])}),
        save(GOOD | {"mechanism": np.frombuffer(b"sharded", np.uint8)}),
        save(GOOD | {"mechanism": np.array([255, 254], np.uint8)}),
        save(GOOD | {"proxy-sha256": np.zeros(32, np.uint8)}),
        encode_release(release(np.zeros((7, 2), np.int16)))[:-3],
    ],
)
def test_a_malformed_release_is_refused(data: bytes) -> None:
    with pytest.raises(DataError):
        decode(data)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_crash_the_server(data: bytes) -> None:
    with pytest.raises(DataError):
        decode(data)
