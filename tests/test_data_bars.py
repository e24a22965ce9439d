"""Bars from files and frames: what is read, and what each bad input is told."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradax.data import samples
from tradax.data.bars import Bars, bars_from_frame, check_file, read_bars
from tradax.data.pipeline import Pipeline
from tradax.data.splits import chronological
from tradax.data.synthetic import geometric_brownian_motion
from tradax.errors import ConfigError, DataError

HEADER = "date,open,high,low,close,volume"
ROWS = (
    "2024-01-02,10,12,9,11,100",
    "2024-01-03,11,13,10,12,200",
    "2024-01-04,12,14,11,13,300",
)


def text(*rows, header=HEADER):
    return "\n".join((header, *rows)) + "\n"


def write(folder, content, name="A.csv"):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def days(*texts):
    return np.array(texts, "datetime64[us]")


def frame_of(rows=ROWS, header=HEADER):
    """A polars frame with the types of a good file."""
    return pl.read_csv(text(*rows, header=header).encode(), try_parse_dates=True)


def assert_the_three_rows(bars, symbol="A"):
    assert bars.symbols == (symbol,)
    np.testing.assert_array_equal(bars.timestamps, days("2024-01-02", "2024-01-03", "2024-01-04"))
    assert bars.timestamps.dtype == np.dtype("datetime64[us]")
    np.testing.assert_array_equal(bars.open, [[10, 11, 12]])
    np.testing.assert_array_equal(bars.high, [[12, 13, 14]])
    np.testing.assert_array_equal(bars.low, [[9, 10, 11]])
    np.testing.assert_array_equal(bars.close, [[11, 12, 13]])
    np.testing.assert_array_equal(bars.volume, [[100, 200, 300]])
    assert bars.has_range
    assert bars.has_volume


# What is read.


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        "Date,Open,High,Low,Close,Volume",
        "TIMESTAMP,OPEN,HIGH,LOW,CLOSE,VOLUME",
        " Time , Open , High , Low , Close , Volume ",
        '"Date_Time","open","high","low","close","volume"',
    ],
)
def test_column_names_are_matched_without_regard_to_case_spaces_and_underscores(tmp_path, header):
    bars = read_bars([write(tmp_path, text(*ROWS, header=header))])
    assert_the_three_rows(bars)
    assert bars.signals == {}
    assert bars.source == "A.csv"


@pytest.mark.parametrize("name", ["Adj Close", "adj_close", "Adjusted Close", "close_adj"])
def test_an_adjusted_close_rescales_all_four_prices_and_not_the_volume(tmp_path, name):
    rows = ("2024-01-02,10,12,8,10,100,5", "2024-01-03,5,6,4,5,200,5")
    bars = read_bars([write(tmp_path, text(*rows, header=f"{HEADER},{name}"))])
    np.testing.assert_allclose(bars.open, [[5, 5]])
    np.testing.assert_allclose(bars.high, [[6, 6]])
    np.testing.assert_allclose(bars.low, [[4, 4]])
    np.testing.assert_allclose(bars.close, [[5, 5]])
    np.testing.assert_array_equal(bars.volume, [[100, 200]])
    assert bars.signals == {}


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("2024-01-02", "2024-01-02"),
        ("2024/01/02", "2024-01-02"),
        ("20240102", "2024-01-02"),
        ("2024-01-02 09:30", "2024-01-02T09:30"),
        ("2024-01-02T09:30:15", "2024-01-02T09:30:15"),
        ("2024-01-02 09:30:15.25", "2024-01-02T09:30:15.25"),
        ("2024-01-02T09:30:00Z", "2024-01-02T09:30"),
        ("2024-01-02T09:30Z", "2024-01-02T09:30"),
        ("2024-01-02T09:30:00-05:00", "2024-01-02T14:30"),
        ("2024-01-02 00:30:00+0100", "2024-01-01T23:30"),
        ("1704067200", "2024-01-01"),
        ("1704067200.5", "2024-01-01T00:00:00.5"),
        ("1086048000.000022", "2004-06-01T00:00:00.000022"),
        ("1704067200123", "2024-01-01T00:00:00.123"),
        ("1704067200123456", "2024-01-01T00:00:00.123456"),
        ("1704067201000000000", "2024-01-01T00:00:01"),
        ("01/31/2024", "2024-01-31"),
        ("31/01/2024", "2024-01-31"),
    ],
)
def test_a_timestamp_is_read_as_utc(tmp_path, written, means):
    bars = read_bars([write(tmp_path, text(f"{written},10,12,9,11,100"))])
    np.testing.assert_array_equal(bars.timestamps, days(means))


def test_days_and_months_are_told_apart_by_the_whole_column(tmp_path):
    rows = ("05/01/2024,10,12,9,11,100", "01/02/2024,10,12,9,11,100", "31/03/2024,10,12,9,11,1")
    bars = read_bars([write(tmp_path, text(*rows))])
    np.testing.assert_array_equal(bars.timestamps, days("2024-01-05", "2024-02-01", "2024-03-31"))


LONG = text(
    "2024-01-02,B,10,12,9,11,100",
    "2024-01-02,A,1,1,1,1,7",
    "2024-01-03,B,11,13,10,12,200",
    "2024-01-03,A,2,2,2,2,8",
    header="date,Ticker,open,high,low,close,volume",
)


def test_a_long_file_holds_several_symbols_in_order_of_appearance(tmp_path):
    bars = read_bars([write(tmp_path, LONG)])
    assert bars.symbols == ("B", "A")
    np.testing.assert_array_equal(bars.close, [[11, 12], [1, 2]])
    np.testing.assert_array_equal(bars.volume, [[100, 200], [7, 8]])
    assert len(bars) == 2


def test_symbols_are_chosen_and_ordered_as_asked(tmp_path):
    path = write(tmp_path, LONG)
    assert read_bars([path], symbols=["A"]).symbols == ("A",)
    chosen = read_bars([path], symbols=["A", "B"])
    selected = read_bars([path]).select(["A", "B"])
    assert chosen.symbols == selected.symbols == ("A", "B")
    assert chosen.sha256 == selected.sha256
    np.testing.assert_array_equal(chosen.close, [[1, 2], [11, 12]])


def test_one_file_a_symbol_takes_the_name_of_the_file(tmp_path):
    other = text(*(f"{row[:10]},1,1,1,1,5" for row in ROWS))
    paths = [write(tmp_path, text(*ROWS), "AAPL.csv"), write(tmp_path, other, "MSFT.csv")]
    bars = read_bars(paths)
    assert bars.symbols == ("AAPL", "MSFT")
    np.testing.assert_array_equal(bars.close, [[11, 12, 13], [1, 1, 1]])
    assert bars.source == "AAPL.csv, MSFT.csv"


def test_parquet_polars_and_pandas_say_the_same_as_csv(tmp_path):
    frame = frame_of()
    assert_the_three_rows(bars_from_frame(frame), "frame")
    assert_the_three_rows(bars_from_frame(frame.to_pandas(), source="A"))
    assert_the_three_rows(bars_from_frame(frame.cast(pl.String), source="A"))
    frame.write_parquet(tmp_path / "A.parquet")
    assert_the_three_rows(read_bars([tmp_path / "A.parquet"]))


@pytest.mark.parametrize("name", [None, "Date", "timestamp"])
def test_a_pandas_datetime_index_is_the_timestamp(name):
    frame = frame_of().to_pandas().set_index("date").rename_axis(name)
    frame.index = pd.DatetimeIndex(frame.index)
    assert_the_three_rows(bars_from_frame(frame, source="A"))
    local = frame.set_axis(frame.index.tz_localize("America/New_York")).rename_axis(name)
    hours = bars_from_frame(local).timestamps - bars_from_frame(frame).timestamps
    np.testing.assert_array_equal(hours, np.timedelta64(5, "h"))


EXTRA = text(
    "0,2024-01-02,10,12,9,11,100,0.5,up,7",
    "1,2024-01-03,11,13,10,12,200,-2,down,8",
    header=f",{HEADER},My Signal,mood,other",
)


def test_extra_numeric_columns_become_signals_and_row_numbers_do_not(tmp_path):
    bars = read_bars([write(tmp_path, EXTRA)])
    assert list(bars.signals) == ["My Signal", "other"]
    np.testing.assert_array_equal(bars.signals["My Signal"], [[0.5, -2]])
    np.testing.assert_array_equal(bars.signals["other"], [[7, 8]])


def test_signals_are_picked_by_name(tmp_path):
    path = write(tmp_path, EXTRA)
    assert list(read_bars([path], signals=["my_signal"]).signals) == ["My Signal"]
    assert read_bars([path], signals=[]).signals == {}


def test_closes_alone_stand_for_open_high_and_low(tmp_path):
    path = write(tmp_path, text("2024-01-02,11", "2024-01-03,12", header="date,close"))
    bars = read_bars([path], closes_only=True)
    for name in ("open", "high", "low", "close"):
        np.testing.assert_array_equal(getattr(bars, name), [[11, 12]])
    assert not bars.has_range
    assert not bars.has_volume
    full = read_bars([write(tmp_path, text(*ROWS))], closes_only=True)
    np.testing.assert_array_equal(full.high, full.close)
    assert not full.has_range
    assert full.has_volume
    assert full.signals == {}


def test_an_adjusted_close_alone_is_the_close(tmp_path):
    path = write(tmp_path, text("2024-01-02,11", "2024-01-03,12", header="date,Adj Close"))
    np.testing.assert_array_equal(read_bars([path], closes_only=True).close, [[11, 12]])
    bad = write(tmp_path, text("2024-01-02,11", "2024-01-03,-1", header="date,Adj Close"))
    assert len(check_file(bad, closes_only=True)) == 1


def test_intersection_keeps_the_shared_timestamps(tmp_path):
    paths = [write(tmp_path, text(*ROWS), "A.csv"), write(tmp_path, text(*ROWS[1:]), "B.csv")]
    bars = read_bars(paths, intersection=True)
    np.testing.assert_array_equal(bars.timestamps, days("2024-01-03", "2024-01-04"))
    np.testing.assert_array_equal(bars.close, [[12, 13], [12, 13]])


def test_a_price_off_by_rounding_is_accepted(tmp_path):
    row = "2024-01-02,10,11,9,11.000001,100"
    assert read_bars([write(tmp_path, text(row))]).close[0, 0] == 11.000001


def test_blank_lines_at_the_end_are_no_rows(tmp_path):
    assert_the_three_rows(read_bars([write(tmp_path, text(*ROWS) + "\n\n")]))
    assert_the_three_rows(read_bars([write(tmp_path, text(*ROWS).rstrip())]))


# What bars know of themselves.


def long_bars(n=40, symbols=3, closes_only=False, signals=True):
    rng = np.random.default_rng(5)
    stamps = np.datetime64("2020-01-01", "us") + np.arange(n) * np.timedelta64(3_600_000_001, "us")
    low, mid, high = np.sort(rng.uniform(1, 9, (3, symbols, n)), axis=0)
    return Bars(
        tuple(f"S{i}" for i in range(symbols)),
        stamps,
        open=mid,
        high=mid if closes_only else high,
        low=mid if closes_only else low,
        close=mid,
        volume=np.zeros((symbols, n)) if closes_only else rng.uniform(0, 1e6, (symbols, n)),
        signals={"x y": rng.normal(size=(symbols, n))} if signals else {},
        has_range=not closes_only,
        has_volume=not closes_only,
        source="here",
    )


@pytest.mark.parametrize("closes_only", [False, True])
@pytest.mark.parametrize("signals", [False, True])
def test_parquet_gives_back_every_bit(tmp_path, closes_only, signals):
    bars = long_bars(closes_only=closes_only, signals=signals)
    bars.write_parquet(tmp_path / "bars.parquet")
    back = read_bars([tmp_path / "bars.parquet"], closes_only=closes_only)
    assert back.sha256 == bars.sha256
    assert back.symbols == bars.symbols
    assert (back.has_range, back.has_volume) == (bars.has_range, bars.has_volume)
    np.testing.assert_array_equal(back.timestamps, bars.timestamps)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["open", "high", "low", "close", "volume", "x y", "timestamps"]),
    st.integers(0, 2),
    st.integers(0, 39),
)
def test_the_hash_changes_with_any_value(column, symbol, row):
    bars, changed = long_bars(), long_bars()
    assert bars.sha256 == changed.sha256
    if column == "timestamps":
        changed.timestamps[row] += np.timedelta64(1, "us")
    elif column == "x y":
        changed.signals[column][symbol, row] = np.nextafter(changed.signals[column][symbol, row], 9)
    else:
        values = getattr(changed, column)
        values[symbol, row] = np.nextafter(values[symbol, row], np.inf)
    assert bars.sha256 != changed.sha256


def test_the_hash_changes_with_a_name():
    bars = long_bars()
    assert bars.select(["S0", "S1"]).sha256 != bars.select(["S1", "S0"]).sha256
    assert bars.sha256 != long_bars(signals=False).sha256


def calendar(unit, n=60, keep=lambda stamp: True):
    stamps = np.arange(np.datetime64("2024-01-01"), np.datetime64("2026-01-01"), unit)
    return [s for s in stamps if keep(s)][:n]


MINUTES = [
    day + np.timedelta64(9 * 60 + minute, "m")
    for day in np.busday_offset("2024-01-02", np.arange(6), roll="forward").astype("datetime64[m]")
    for minute in range(390)
]


@pytest.mark.parametrize(
    ("stamps", "periods"),
    [
        (calendar(np.timedelta64(1, "D"), keep=np.is_busday), 252),
        (calendar(np.timedelta64(1, "D")), 365),
        (calendar(np.timedelta64(7, "D")), 52),
        (np.arange("2020-01", "2023-01", dtype="datetime64[M]"), 12),
        (np.arange("2010-01", "2023-01", 3, dtype="datetime64[M]"), 4),
        (np.arange("1990", "2023", dtype="datetime64[Y]"), 1),
        (MINUTES, 252 * 390),
        (np.arange("2024-01-01", "2024-02-01", dtype="datetime64[h]"), 365 * 24),
    ],
    ids=["daily", "calendar", "weekly", "monthly", "quarterly", "yearly", "minutes", "crypto"],
)
def test_periods_per_year(stamps, periods):
    frame = pl.DataFrame({"date": np.array(stamps, "datetime64[us]"), "close": 1.0})
    assert bars_from_frame(frame, closes_only=True).periods_per_year == periods


# What a bad file is told.


def changed(line, value, column=None):
    """The three rows with `value` in place of a line, or of one column of it; header = line 1."""
    rows = list(ROWS)
    if column is not None:
        cells = rows[line - 2].split(",")
        cells[HEADER.split(",").index(column)] = value
        value = ",".join(cells)
    rows[line - 2] = value
    return text(*rows)


def without(column):
    index = HEADER.split(",").index(column)
    return "\n".join(
        ",".join(cell for i, cell in enumerate(line.split(",")) if i != index)
        for line in (HEADER, *ROWS)
    )


PARQUET = b"PAR1 this is not what it says PAR1"

# Each: the file, then pieces of the one line that it is told, in order.
BAD_CSV = {
    "empty": ("", ["A.csv: ", "the file is empty"]),
    "header only": (HEADER + "\n", ["A.csv: ", "no rows", "only a header"]),
    "header and blank lines": (HEADER + "\n\n\n", ["A.csv: ", "no rows", "only a header"]),
    "no open": (without("open"), ["A.csv: ", "no column open", "add it"]),
    "no high": (without("high"), ["A.csv: ", "no column high", "add it"]),
    "no low": (without("low"), ["A.csv: ", "no column low", "add it"]),
    "no close": (without("close"), ["A.csv: ", "no column close", "add it"]),
    "no volume": (without("volume"), ["A.csv: ", "no column volume", "add it", "--closes-only"]),
    "no timestamp": (without("date"), ["A.csv: ", "no timestamp column", "name it one of", "date"]),
    "text for a number": (
        changed(3, "twelve", "close"),
        ["A.csv, line 3, column close: 'twelve' is not a number", "use digits"],
    ),
    "currency": (changed(2, "$9", "low"), ["line 2, column low: '$9' is not a number"]),
    "missing value": (
        changed(4, "", "volume"),
        ["A.csv, line 4, column volume: the value is missing", "fill it or delete the row"],
    ),
    "row cut short": (
        changed(3, "2024-01-03,11,13,10,12"),
        ["A.csv, line 3, column volume: the value is missing"],
    ),
    "NaN": (
        changed(3, "NaN", "open"),
        ["A.csv, line 3, column open: the value is NaN", "finite number or delete the row"],
    ),
    "infinite": (
        changed(2, "inf", "volume"),
        ["A.csv, line 2, column volume: the value is inf", "finite number or delete the row"],
    ),
    "no date": (
        changed(3, "yesterday", "date"),
        ["A.csv, line 3, column date: 'yesterday' is not a date", "write it as 2024-12-31"],
    ),
    "impossible date": (
        changed(4, "2024-02-30", "date"),
        ["A.csv, line 4, column date: '2024-02-30' is not a date", "write it as 2024-12-31"],
    ),
    "missing date": (changed(3, "", "date"), ["A.csv, line 3, column date: '' is not a date"]),
    "ambiguous date": (
        text("01/02/2024,10,12,9,11,100"),
        ["A.csv, line 2, column date: '01/02/2024' is day/month or month/day", "2024-12-31"],
    ),
    "unix seconds and a gap": (
        text("1704067200,10,12,9,11,1", "nan,10,12,9,11,1"),
        ["A.csv, line 3, column date: 'nan' is not a date"],
    ),
    "high below low": (
        text("2024-01-02,10,8,9,11,100"),
        ["A.csv, line 2, column high: high 8 is below low 9", "correct one of them"],
    ),
    "open outside": (
        changed(3, "14", "open"),
        ["A.csv, line 3, column open: open 14 is outside [low, high] = [10, 13]", "correct"],
    ),
    "close outside": (
        changed(4, "10.5", "close"),
        ["A.csv, line 4, column close: close 10.5 is outside [low, high] = [11, 14]", "correct"],
    ),
    "negative volume": (
        changed(3, "-1", "volume"),
        ["A.csv, line 3, column volume: -1: a volume cannot be negative", "correct it or delete"],
    ),
    "timestamp twice": (
        changed(4, "2024-01-03", "date"),
        ["A.csv, line 4, column date: 2024-01-03 stands twice", "delete one"],
    ),
    "unsorted": (
        changed(3, "2024-01-01", "date"),
        ["A.csv, line 3, column date: 2024-01-01 comes after a later time", "sort the rows"],
    ),
    "column twice": (
        text(header=HEADER + ",open"),
        ["A.csv, line 1: two columns are called open", "rename or delete one"],
    ),
    "column twice by meaning": (
        text(f"{ROWS[0]},10", header=HEADER + ",OPEN"),
        ["A.csv: columns open and OPEN mean the same", "delete one"],
    ),
    "adjusted close twice": (
        text(f"{ROWS[0]},10,10", header=HEADER + ",adj close,Adjusted Close"),
        ["A.csv: columns adj close and Adjusted Close mean the same", "delete one"],
    ),
    "date and time apart": (
        text("2024-01-02,09:30,10,12,9,11,100", header="date,time,open,high,low,close,volume"),
        ["A.csv: columns date and time mean the same", "join them into one"],
    ),
    "symbol twice": (
        text(f"{ROWS[0]},X,Y", header=HEADER + ",symbol,ticker"),
        ["A.csv: columns symbol and ticker mean the same", "delete one"],
    ),
    "infinite price": (
        changed(3, "inf", "high"),
        ["A.csv, line 3, column high: the value is inf", "finite number"],
    ),
    "price 0": (
        changed(3, "0", "low"),
        ["A.csv, line 3, column low: 0: a price must be above 0", "correct it or delete"],
    ),
    "signal that starts with text": (
        text(ROWS[0] + ",NA", ROWS[1] + ",1", ROWS[2] + ",2", header=HEADER + ",mood"),
        ["A.csv, line 2, column mood: 'NA' is not a number", "use digits"],
    ),
    "header not UTF-8": (
        text(header=HEADER + ",né").encode("latin-1"),
        ["A.csv, line 1: the text is not UTF-8", "save"],
    ),
    "not UTF-8": (
        changed(3, "é", "open").encode("latin-1"),
        ["A.csv, line 3: the text is not UTF-8", "save the file as UTF-8"],
    ),
    "ragged": (
        changed(4, "2024-01-04,12,14,11,13,3,000"),
        ["A.csv, line 4: 7 values where the header has 6", "delete the extra ones"],
    ),
    "blank line": (
        changed(3, "\n" + ROWS[1]),
        ["A.csv, line 3: the line is blank", "delete it"],
    ),
    "blank first line": (
        "\n" + text(*ROWS),
        ["A.csv, line 1: the line is blank", "the first line must name the columns"],
    ),
    "semicolons": (
        text(*ROWS).replace(",", ";"),
        ["A.csv, line 1: columns are separated by semicolons", "write commas"],
    ),
    "signal with a gap": (
        text(ROWS[0] + ",1", ROWS[1] + ",", ROWS[2] + ",2", header=HEADER + ",mood"),
        ["A.csv, line 3, column mood: the value is missing", "fill it or delete the row"],
    ),
    "empty symbol": (
        text(ROWS[0] + ",X", ROWS[1] + ",", ROWS[2] + ",X", header=HEADER + ",symbol"),
        ["A.csv, line 3, column symbol: no symbol", "name it or delete the row"],
    ),
    "timestamp twice in one symbol": (
        text(ROWS[0] + ",X", ROWS[0] + ",Y", ROWS[0] + ",X", header=HEADER + ",symbol"),
        ["A.csv, line 4, column date: 2024-01-02 of X stands twice"],
    ),
}


def assert_told(message, pieces):
    place = 0
    for piece in pieces:
        assert piece in message[place:], f"{piece!r} is not in {message!r}"
        place = message.index(piece, place) + len(piece)


@pytest.mark.parametrize("case", BAD_CSV)
def test_a_bad_file_is_told_where_what_and_what_to_do(tmp_path, case):
    content, pieces = BAD_CSV[case]
    path = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read_bars([path])
    assert len(caught.value.problems) == 1, caught.value.problems
    assert str(caught.value).startswith(str(path))
    assert_told(str(caught.value), pieces)
    assert check_file(path) == list(caught.value.problems)


@pytest.mark.parametrize("price", ["0", "-3"])
@pytest.mark.parametrize("column", ["open", "low", "close"])
def test_a_price_must_be_above_0(tmp_path, column, price):
    path = write(tmp_path, changed(3, price, column))
    told = f"line 3, column {column}: {price}: a price must be above 0; correct it or delete"
    assert any(told in problem for problem in check_file(path))
    with pytest.raises(DataError, match="a price must be above 0"):
        read_bars([path])


def test_a_missing_file_is_told(tmp_path):
    path = tmp_path / "none.csv"
    with pytest.raises(DataError) as caught:
        read_bars([path])
    assert str(caught.value) == f"{path}: no such file; check the name"
    assert check_file(path) == [str(caught.value)]
    assert check_file(tmp_path) == [f"{tmp_path}: no such file; check the name"]


@pytest.mark.parametrize("part", ["foreign", "truncated", "text"])
def test_a_damaged_parquet_file_is_told(tmp_path, part):
    path = tmp_path / "A.parquet"
    frame_of().write_parquet(path)
    whole = path.read_bytes()
    path.write_bytes({"foreign": PARQUET, "truncated": whole[:-40], "text": b"a,b\n1,2\n"}[part])
    with pytest.raises(DataError) as caught:
        read_bars([path])
    assert_told(str(caught.value), [f"{path}: cannot be read as Parquet (", "write it anew"])
    assert check_file(path) == [str(caught.value)]


def test_rows_of_parquet_files_and_of_frames_are_counted_from_1(tmp_path):
    frame = frame_of().with_columns(close=pl.Series([11.0, None, 13.0]))
    frame.write_parquet(tmp_path / "A.parquet")
    told = "row 2, column close: the value is missing; fill it or delete the row"
    assert check_file(tmp_path / "A.parquet") == [f"{tmp_path / 'A.parquet'}, {told}"]
    with pytest.raises(DataError) as caught:
        bars_from_frame(frame)
    assert str(caught.value) == f"frame, {told}"
    with pytest.raises(DataError, match="frame, row 2, column close: the value is "):
        bars_from_frame(frame.to_pandas())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"close": [11.0, np.nan, 13.0]}, "frame, row 2, column close: the value is nan; fill it"),
        ({"open": [10, 11, np.inf]}, "frame, row 3, column open: the value is inf; fill it"),
        ({"date": [datetime.date(2024, 1, 2)] * 3}, "frame, row 2, column date: 2024-01-02 stands"),
        ({"date": [0, 1, 2]}, "frame, row 1, column date: '0' is not a date"),
        ({"volume": [1, -2, 3]}, "frame, row 2, column volume: -2: a volume cannot be negative"),
    ],
)
def test_a_bad_frame_is_told(change, told):
    frame = frame_of().with_columns(**{k: pl.Series(v, strict=False) for k, v in change.items()})
    with pytest.raises(DataError) as caught:
        bars_from_frame(frame)
    assert caught.value.problems[0].startswith(told), caught.value.problems


def test_symbols_of_different_calendars_are_offered_the_intersection(tmp_path):
    paths = [write(tmp_path, text(*ROWS[:2]), "A.csv"), write(tmp_path, text(*ROWS[1:]), "B.csv")]
    with pytest.raises(DataError) as caught:
        read_bars(paths)
    pieces = ["A.csv, B.csv: ", "A has 2 rows", "share only 1", "--intersection", "intersection="]
    assert_told(str(caught.value), pieces)
    assert len(read_bars(paths, intersection=True)) == 1


def test_symbols_of_different_length_are_offered_the_intersection(tmp_path):
    paths = [write(tmp_path, text(*ROWS), "A.csv"), write(tmp_path, text(*ROWS[1:]), "B.csv")]
    with pytest.raises(DataError) as caught:
        read_bars(paths)
    pieces = ["A has 3 rows", "2024-01-02 to 2024-01-04", "share only 2", "--intersection"]
    assert_told(str(caught.value), pieces)


def test_symbols_without_a_shared_timestamp_are_an_error(tmp_path):
    paths = [write(tmp_path, text(ROWS[0]), "A.csv"), write(tmp_path, text(ROWS[1]), "B.csv")]
    with pytest.raises(DataError, match=r"A\.csv, B\.csv: the symbols share no timestamp"):
        read_bars(paths, intersection=True)


def test_symbols_need_the_same_signals(tmp_path):
    other = text(*(row + ",1" for row in ROWS), header=HEADER + ",mood")
    paths = [write(tmp_path, text(*ROWS), "A.csv"), write(tmp_path, other, "B.csv")]
    with pytest.raises(DataError, match="different signal columns; name them alike"):
        read_bars(paths)


def test_a_symbol_in_two_files_is_an_error(tmp_path):
    (tmp_path / "b").mkdir()
    paths = [write(tmp_path, text(*ROWS)), write(tmp_path / "b", text(*ROWS))]
    with pytest.raises(DataError) as caught:
        read_bars(paths)
    assert str(caught.value) == f"{paths[1]}: symbol A is in another file too; keep one of them"


def test_an_unknown_symbol_is_told_the_near_ones(tmp_path):
    path = write(tmp_path, text(*ROWS), "AAPL.csv")
    for ask in (read_bars([path]).select, lambda symbols: read_bars([path], symbols=symbols)):
        with pytest.raises(DataError) as caught:
            ask(["APPL"])
        assert str(caught.value) == "AAPL.csv: no symbol APPL; did you mean AAPL?"


def test_an_unknown_signal_is_told_the_columns(tmp_path):
    path = write(tmp_path, EXTRA)
    with pytest.raises(DataError) as caught:
        read_bars([path], signals=["moon"])
    assert_told(str(caught.value), [f"{path}: no signal column moon; columns are ", "mood, other"])
    with pytest.raises(DataError, match=r"line 2, column mood: 'up' is not a number"):
        read_bars([path], signals=["mood"])
    with pytest.raises(DataError, match="column close is no signal: it is read already"):
        read_bars([path], signals=["close"])


def test_no_file_is_an_error():
    with pytest.raises(DataError, match="no data given"):
        read_bars([])
    with pytest.raises(DataError, match="no data given"):
        samples.load([])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("sp5oo", "sp5oo: no such file, nor a sample; did you mean sp500?"),
        ("where.csv", "where.csv: no such file, nor a sample; samples are sp500"),
        (["AAPL", "zzz.csv"], "zzz.csv: no such file, nor a sample"),
        (None, "data is a NoneType; give a polars or pandas DataFrame"),
        (np.ones(3), "data is a ndarray; give a polars or pandas DataFrame"),
        (["us20", "AAPL"], "us20 holds 20 symbols of its own; give it alone"),
    ],
)
def test_what_is_no_data_is_told(data, told):
    with pytest.raises(DataError) as caught:
        samples.load(data)
    assert str(caught.value).startswith(told)


def test_a_sample_and_a_file_do_not_mix(tmp_path):
    path = write(tmp_path, text(*ROWS))
    with pytest.raises(DataError, match="AAPL is a sample and the rest are files; give one kind"):
        samples.load(["AAPL", str(path)])


def test_too_few_rows_are_told(tmp_path):
    with pytest.raises(DataError) as caught:
        Pipeline.fit(geometric_brownian_motion(60))
    pieces = ["synthetic:gbm: 60 rows are too few", "rows of warm-up, train has", "needs 30"]
    assert_told(str(caught.value), [*pieces, "give more rows"])
    with pytest.raises(DataError, match="3 rows are too few"):
        Pipeline.fit(read_bars([write(tmp_path, text(*ROWS))]))


@pytest.mark.parametrize(
    ("fractions", "told"),
    [
        ({"train": 0.0}, "train_fraction is 0.0; it must lie between 0 and 1"),
        ({"train": 1.2}, "train_fraction is 1.2; it must lie between 0 and 1"),
        ({"validation": -0.1}, "validation_fraction is -0.1; it must lie between 0 and 1"),
        ({"train": float("nan")}, "train_fraction is nan; it must lie between 0 and 1"),
        ({"train": 0.8, "validation": 0.2}, "leave no rows to test on; their sum must be below 1"),
    ],
)
def test_wrong_fractions_are_told(fractions, told):
    with pytest.raises(ConfigError) as caught:
        chronological(1000, 0, **fractions)
    assert told in str(caught.value)
    with pytest.raises(ConfigError):
        Pipeline.fit(geometric_brownian_motion(400), **fractions)


SEVERAL = text(
    "2024-01-02,10,12,9,11,100",
    "2024-01-03,x,13,10,12,200",
    "2024-01-02,12,14,11,13,-5",
    "2024-13-40,12,14,11,nan,1",
    "2024-01-08,12,10,11,13,",
)
TOLD = (
    "line 5, column date: '2024-13-40' is not a date",
    "line 3, column open: 'x' is not a number",
    "line 5, column close: the value is nan",
    "line 6, column volume: the value is missing",
    "line 4, column volume: -5: a volume cannot be negative",
    "line 6, column high: high 10 is below low 11",
    "line 4, column date: 2024-01-02 comes after a later time",
)


@pytest.mark.parametrize("form", ["LF", "CRLF", "BOM"])
def test_all_problems_of_a_file_are_listed_at_once_with_the_lines_of_an_editor(tmp_path, form):
    content = {
        "LF": SEVERAL.encode(),
        "CRLF": SEVERAL.replace("\n", "\r\n").encode(),
        "BOM": SEVERAL.encode("utf-8-sig"),
    }[form]
    path = write(tmp_path, content)
    problems = check_file(path)
    assert len(problems) == len(TOLD), problems
    for problem, told in zip(problems, TOLD, strict=True):
        assert problem.startswith(f"{path}, {told}")


def test_lines_after_a_blank_one_keep_their_number(tmp_path):
    rows = (ROWS[0], "", ROWS[1], changed(4, "x", "low").splitlines()[3])
    path = write(tmp_path, text(*rows))
    blank, number = check_file(path)
    assert blank == f"{path}, line 3: the line is blank; delete it"
    assert number.startswith(f"{path}, line 5, column low: 'x' is not a number")


def test_rows_are_counted_where_a_quoted_cell_holds_a_line_end(tmp_path):
    rows = (ROWS[0] + ',"two\nlines"', ROWS[1] + ",c", ROWS[2].replace("13", "x") + ",c")
    path = write(tmp_path, text(*rows, header=HEADER + ",note"))
    assert [p.split(": ")[0] for p in check_file(path)] == [f"{path}, row 3, column close"]


def test_reading_stops_at_20_problems_and_checking_at_1000(tmp_path):
    path = write(tmp_path, text(*("x,10,12,9,11,100" for _ in range(1500))))
    with pytest.raises(DataError) as caught:
        read_bars([path])
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1] == f"{path}: and 1480 more"
    told = check_file(path)
    assert len(told) == 1001
    assert told[-1] == f"{path}: and 500 more"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.sampled_from(["open", "high", "low", "close", "volume"]))
def test_any_bad_cell_is_named_by_its_line(tmp_path_factory, row, column):
    start = np.datetime64("2024-01-01")
    lines = [f"{start + i},10,12,9,11,100".split(",") for i in range(100)]
    lines[row][HEADER.split(",").index(column)] = "?"
    path = tmp_path_factory.mktemp("cell") / "A.csv"
    path.write_text(text(*(",".join(line) for line in lines)))
    (problem,) = check_file(path)
    assert problem.startswith(f"{path}, line {row + 2}, column {column}: '?' is not a number")


def test_a_quoted_column_name_may_hold_a_comma(tmp_path):
    header = HEADER + ',"mood, a","mood, b"'
    bars = read_bars([write(tmp_path, text(ROWS[0] + ",1,2", header=header))])
    assert list(bars.signals) == ["mood, a", "mood, b"]


def test_a_path_is_a_name_and_not_a_pattern(tmp_path):
    (tmp_path / "[A]").mkdir()
    path = write(tmp_path / "[A]", text(*ROWS))
    frame_of().write_parquet(tmp_path / "[A]" / "A.parquet")
    assert_the_three_rows(read_bars(path))
    assert_the_three_rows(read_bars([tmp_path / "[A]" / "A.parquet"]))


def test_a_signal_called_index_is_kept_and_row_numbers_are_not(tmp_path):
    rows = (ROWS[0] + ",0.5,0", ROWS[1] + ",-2,1")
    path = write(tmp_path, text(*rows, header=HEADER + ",index,Unnamed: 0"))
    assert list(read_bars([path]).signals) == ["index"]


def test_signals_may_stand_in_another_order_in_each_file(tmp_path):
    one = text(ROWS[0] + ",1,2", header=HEADER + ",mood,news")
    two = text(ROWS[0] + ",3,4", header=HEADER + ",news,mood")
    bars = read_bars([write(tmp_path, one, "A.csv"), write(tmp_path, two, "B.csv")])
    assert list(bars.signals) == ["mood", "news"]
    np.testing.assert_array_equal(bars.signals["mood"], [[1], [4]])


def test_checking_a_long_file_compares_the_calendars_of_its_symbols(tmp_path):
    path = write(tmp_path, LONG.rsplit("\n", 2)[0] + "\n")
    (problem,) = check_file(path)
    assert_told(problem, [f"{path}: B has 2 rows", "share only 1", "--intersection"])


def test_a_long_text_is_cut_in_the_message(tmp_path):
    (problem,) = check_file(write(tmp_path, changed(3, "9" * 500 + "x", "open")))
    assert "is not a number" in problem
    assert "9" * 40 + "'" in problem
    assert "9" * 41 not in problem


def test_damaged_parquet_never_raises_anything_else(tmp_path):
    # Some of these make polars panic, which is no Exception.
    whole = tmp_path / "A.parquet"
    frame_of().write_parquet(whole)
    content = whole.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=3):
            damaged[place] = rng.integers(256)
        whole.write_bytes(bytes(damaged))
        assert isinstance(check_file(whole), list)


def test_what_pandas_calls_its_rows_is_no_signal():
    frame = frame_of().to_pandas().rename_axis("id")
    assert bars_from_frame(frame).signals == {}
    long = pd.concat([frame.assign(symbol=s) for s in ("X", "Y")])
    bars = bars_from_frame(long.set_index(["date", "symbol"]))
    assert bars.symbols == ("X", "Y")
    np.testing.assert_array_equal(bars.close, [[11, 12, 13]] * 2)


def test_a_pandas_frame_that_cannot_be_read_is_told():
    frame = frame_of().to_pandas()
    with pytest.raises(DataError, match="frame: two columns are called close; rename"):
        bars_from_frame(pd.concat([frame, frame[["close"]]], axis=1))
    frame["mood"] = [1, "x", None]
    with pytest.raises(DataError, match=r"frame: .*let every column hold values of one kind"):
        bars_from_frame(frame)


@pytest.mark.parametrize(
    ("first", "hours", "periods"),
    [
        # Midnight in Tokyo is the day before in UTC, so that Monday's bar is Sunday's.
        ("2024-01-07T15:00", [24 * d for d in range(60) if d % 7 < 5], 252),
        # Futures from Sunday evening to Friday evening.
        ("2024-01-07T23:00", [h for h in range(24 * 60) if h % 168 < 5 * 24 - 1], 252 * 24),
        # Two bars on one day do not make a daily series an intraday one.
        ("2024-01-01T00:00", sorted([24 * d for d in range(60)] + [5]), 365),
    ],
    ids=["Tokyo", "futures", "a double day"],
)
def test_periods_per_year_of_calendars_that_utc_cuts(first, hours, periods):
    stamps = np.datetime64(first, "us") + np.array(hours) * np.timedelta64(1, "h")
    frame = pl.DataFrame({"date": stamps, "close": 1.0})
    assert bars_from_frame(frame, closes_only=True).periods_per_year == periods


@pytest.mark.parametrize(
    ("stamps", "periods"),
    [
        (np.arange("2020-01-01", "2022-01-01", 2, dtype="datetime64[D]"), 182.6),
        (np.arange("2020-01-01", "2023-01-01", 10, dtype="datetime64[D]"), 36.5),
        (np.arange("2020-01-01", "2023-01-01", 14, dtype="datetime64[D]"), 26.1),
        (np.arange("2000-01", "2020-01", 2, dtype="datetime64[M]"), 6.0),
        (np.arange("2000-01", "2020-01", 6, dtype="datetime64[M]"), 2.0),
        (np.arange("2000-01", "2020-01", 1, dtype="datetime64[M]"), 12.0),
        (np.arange("2000", "2020", 1, dtype="datetime64[Y]"), 1.0),
        (np.datetime64("2020-01-01T00") + 36 * np.arange(400), 243.5),
        (np.datetime64("2020-01-01T00") + 18 * np.arange(400), 487.0),
        (np.busday_offset("2020-01-01", np.arange(400), roll="forward"), 252.0),
        (np.busday_offset("2020-01-01", 2 * np.arange(400), roll="forward"), 126.0),
        (np.busday_offset("2020-01-01", 3 * np.arange(400), roll="forward"), 84.0),
        (np.busday_offset("2020-01-05", np.arange(400), "forward", "Mon Tue Wed Thu Fri Sun"), 313),
        (np.busday_offset("2020-01-05", np.arange(400), "forward", "Sun Mon Tue Wed Thu"), 252.0),
    ],
)
def test_bars_a_year_of_other_lengths(stamps, periods):
    close = np.linspace(10, 20, len(stamps))
    frame = pl.DataFrame({"timestamp": stamps.astype("datetime64[us]"), "close": close})
    found = bars_from_frame(frame, closes_only=True).periods_per_year
    assert found == pytest.approx(periods, rel=0.01)


def test_a_year_of_two_digits_is_no_date():
    for stamps in (["01/13/20", "01/14/20"], ["20-01-13", "20-01-14"]):
        with pytest.raises(DataError, match=r"no century|not a date"):
            bars_from_frame(pl.DataFrame({"date": stamps, "close": [1.0, 2.0]}), closes_only=True)


def test_slashed_dates_with_a_time_say_so():
    frame = pl.DataFrame({"date": ["10/26/2020 00:00", "10/27/2020 00:00"], "close": [1.0, 2.0]})
    with pytest.raises(DataError, match="slashes and a time"):
        bars_from_frame(frame, closes_only=True)


def test_a_symbol_is_asked_for_once():
    with pytest.raises(DataError, match="AAPL is asked for twice"):
        samples.load(["us20"], symbols=["AAPL", "AAPL"])
