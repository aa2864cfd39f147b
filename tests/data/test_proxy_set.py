import hashlib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedistill.data import ColumnSchema, Kind, ProxySet, Schema, Table, numbers, split_table
from fedistill.errors import DataError

Rows = npt.NDArray[np.float32]

values = st.one_of(
    st.floats(width=32, allow_infinity=False, allow_nan=False), st.just(float("nan"))
)


names = st.lists(st.text(min_size=1), min_size=2, max_size=5, unique=True)


@st.composite
def proxy_sets(draw: st.DrawFn) -> ProxySet:
    columns = numbers(draw(names))
    shape = (draw(st.integers(1, 6)), len(columns))
    return ProxySet(schema=columns, rows=draw(arrays(np.float32, shape, elements=values)))


@st.composite
def mixed_schemas(draw: st.DrawFn) -> Schema:
    kinds = st.sampled_from([Kind.NUMBER, Kind.BOOLEAN, Kind.DATE, Kind.EMPTY])
    columns = [ColumnSchema(name=name, kind=draw(kinds)) for name in draw(names)]
    texts = draw(st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True))
    place = draw(st.integers(0, len(columns) - 1))
    columns[place] = ColumnSchema(
        name=columns[place].name, kind=Kind.CATEGORY, categories=tuple(sorted(texts))
    )
    return tuple(columns)


def test_there_is_no_place_for_labels() -> None:
    assert {field.name for field in fields(ProxySet)} == {"schema", "rows", "encoder"}


def test_canonical_bytes_are_the_documented_format() -> None:
    schema = (ColumnSchema(name="Ort", kind=Kind.CATEGORY, categories=("Köln", "Ulm")),)
    proxy = ProxySet(
        schema=schema + numbers(["age"]), rows=np.array([[1, -0.0], [np.nan, 2.5]], np.float32)
    )
    expected = (
        b"fedistill-proxy-2\n"
        b'{"schema":[["Ort","category",["K\\u00f6ln","Ulm"]],["age","number",[]]],"shape":[2,2]}\n'
        b"\x00\x00\x80\x3f" + bytes(4) + b"\x00\x00\xc0\x7f" + b"\x00\x00\x20\x40"
    )
    assert proxy.canonical_bytes() == expected
    assert proxy.sha256 == hashlib.sha256(expected).hexdigest()


def test_the_credit_proxy_set_keeps_its_hash(credit: Table) -> None:
    """Sites pin this hash in their policies: a new format must get a new version tag."""
    proxy = split_table(credit, proxy_fraction=0.2, test_fraction=0.15).proxy
    assert proxy.sha256 == "35992fd80f2000897dd62ddff789751caa0ea5ba156b0691925779fa38f38ea7"


def test_rows_are_a_copy_that_nobody_can_write(credit_rows: Rows) -> None:
    given_rows = credit_rows[:20].copy()
    proxy = ProxySet(schema=numbers(f"x{j}" for j in range(32)), rows=given_rows)
    given_rows[:] = 7
    assert np.array_equal(proxy.rows, credit_rows[:20])
    assert proxy.rows.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        proxy.rows[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        proxy.rows.flags.writeable = True


@given(proxy_sets(), st.integers(0, 2**22 - 1), st.booleans(), st.data())
def test_hash_ignores_memory_order_nan_bits_and_the_sign_of_zero(
    proxy: ProxySet, payload: int, negative: bool, data: st.DataObject
) -> None:
    rows = proxy.rows.copy()
    # A quiet NaN: bit 22 set. Signalling ones may be quieted by the processor on the way.
    bits = 0x7FC00000 | payload | (negative << 31)
    rows.view(np.uint32)[np.isnan(rows)] = bits
    rows[rows == 0] = -0.0 if negative else 0.0
    wide = np.zeros((rows.shape[0], rows.shape[1] * 2), np.float32)
    wide[:, ::2] = rows
    other = data.draw(st.sampled_from([rows, np.asfortranarray(rows), wide[:, ::2]]))
    again = ProxySet(schema=numbers(proxy.columns), rows=other)
    assert again.sha256 == proxy.sha256
    assert again == proxy
    assert hash(again) == hash(proxy)


@given(proxy_sets(), st.data())
def test_hash_changes_with_any_cell(proxy: ProxySet, data: st.DataObject) -> None:
    rows = proxy.rows.copy()
    cell = tuple(data.draw(st.integers(0, size - 1)) for size in rows.shape)
    new = np.float32(data.draw(values))
    old = rows[cell]
    rows[cell] = new
    same = bool(old == new) or bool(np.isnan(old) and np.isnan(new))
    assert (ProxySet(schema=numbers(proxy.columns), rows=rows).sha256 == proxy.sha256) == same


@given(proxy_sets(), st.data())
def test_hash_changes_with_any_name(proxy: ProxySet, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(proxy.columns) - 1))
    name = data.draw(st.text(min_size=1).filter(lambda text: text not in proxy.columns))
    columns = list(proxy.columns)
    columns[position] = name
    assert ProxySet(schema=numbers(tuple(columns)), rows=proxy.rows).sha256 != proxy.sha256


@given(proxy_sets())
def test_hash_changes_with_the_order_of_columns(proxy: ProxySet) -> None:
    renamed = ProxySet(schema=numbers(proxy.columns[::-1]), rows=proxy.rows)
    moved = ProxySet(schema=numbers(proxy.columns[::-1]), rows=proxy.rows[:, ::-1])
    assert renamed.sha256 != proxy.sha256
    assert moved.sha256 != proxy.sha256


@given(proxy_sets())
def test_hash_changes_with_the_shape_of_the_same_bytes(proxy: ProxySet) -> None:
    wide = proxy.rows.reshape(1, -1)
    names = tuple(f"x{j}" for j in range(wide.shape[1]))
    tall = ProxySet(schema=numbers(names[:1]), rows=wide.reshape(-1, 1))
    assert ProxySet(schema=numbers(names), rows=wide).sha256 != tall.sha256


@given(proxy_sets())
def test_saved_sets_load_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, proxy: ProxySet
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.proxy"
    proxy.save(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == proxy.sha256
    again = ProxySet.load(path)
    assert again.columns == proxy.columns
    assert again.rows.tobytes() == proxy.rows.tobytes()


@given(mixed_schemas())
def test_a_saved_schema_loads_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, schema: Schema
) -> None:
    path = tmp_path_factory.getbasetemp() / "schema.proxy"
    ProxySet(schema=schema, rows=np.zeros((1, len(schema)))).save(path)
    assert ProxySet.load(path).schema == schema


@given(mixed_schemas(), st.data())
def test_hash_changes_with_the_meaning_of_a_column(schema: Schema, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(schema) - 1))
    column = schema[place]
    if column.kind is Kind.CATEGORY:
        other = replace(column, categories=(*column.categories, "\U0010ffff"))
    else:
        other = replace(column, kind=Kind.NUMBER if column.kind is Kind.DATE else Kind.DATE)
    rows = np.zeros((1, len(schema)))
    changed = (*schema[:place], other, *schema[place + 1 :])
    assert ProxySet(schema=changed, rows=rows) != ProxySet(schema=schema, rows=rows)


@pytest.mark.parametrize("code", [-1, 2, 0.5])
def test_codes_that_stand_for_no_category_are_refused(code: float) -> None:
    schema = (ColumnSchema(name="city", kind=Kind.CATEGORY, categories=("Köln", "Ulm")),)
    with pytest.raises(DataError, match=f"'city' holds {code:g}, which must be .* code, 0 to 1"):
        ProxySet(schema=schema, rows=np.array([[0], [np.nan], [code], [1]]))


def test_files_that_are_no_saved_set_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.proxy"
    proxy = ProxySet(schema=numbers(("a", "b")), rows=np.array([[1, np.nan], [0, 2]], np.float32))
    good = proxy.canonical_bytes()
    with pytest.raises(DataError, match="cannot be read"):
        ProxySet.load(path)
    for bad in (
        b"",
        b"a,b\n1,2\n",
        good[:-1],
        good + bytes(4),
        good.replace(b"proxy-2", b"proxy-1"),
        good.replace(b'["a","number",[]]', b'["a", "number", []]'),
        good.replace(b'"number"', b'"colour"'),
        good.replace(b'["a","number",[]]', b'["a","number"]'),
        good.replace(b"[2,2]", b"[4,1]"),
        good.replace(b"[2,2]", b"[-1,2]"),
        good.replace(b"\xc0\x7f", b"\xc0\xff"),
        good.replace(b'"shape"', b'"size"'),
        good.replace(b'{"schema"', b'["schema"'),
    ):
        path.write_bytes(bad)
        with pytest.raises(DataError, match="must be the bytes that fedistill wrote"):
            ProxySet.load(path)


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        (("a",), [[1, 2]], "must have one column for each of the 1 names"),
        (("a", "b"), [1, 2], "must have one column for each of the 2 names"),
        ((), np.zeros((2, 0)), "must have one column for each of the 0 names"),
        (("a",), np.zeros((0, 1)), "must be at least 1"),
        (("a", ""), [[1, 2]], "must have a name"),
        (("a", "a"), [[1, 2]], "must differ"),
        (("a", "b"), [[1, np.inf]], "columns 'b' hold infinite values"),
        (("a", "b"), [[1e39, 0]], "columns 'a' hold infinite values"),
    ],
)
def test_bad_rows_are_refused(columns: tuple[str, ...], rows: Rows, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ProxySet(schema=numbers(columns), rows=np.array(rows, dtype=np.float64))
