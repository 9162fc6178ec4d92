"""The `where` language: against a slow and obvious evaluator, and what it refuses."""

import contextlib
import fnmatch
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_registry.errors import QueryError
from loadmaster_registry.expression import parse_expression
from loadmaster_registry.timespan import MAX_NS, MIN_NS, Timespan
from loadmaster_registry.universe import load_universe
from loadmaster_registry.where import Predicate, contradiction, parse
from lsst.sphgeom import Angle, Circle, LonLat, Region, UnitVector3d

UNIVERSE = load_universe()
HSC = {"instrument": "HSC", "skymap": "rings"}


def predicates(text: str, *dimensions: str, **options: Any) -> tuple[Predicate, ...]:
    options.setdefault("given", HSC)
    group = UNIVERSE.group(dimensions) if dimensions else None
    return parse(text, universe=UNIVERSE, dimensions=group, **options)


def rows(text: str, frame: pl.DataFrame, **options: Any) -> list[bool | None]:
    """Return for each row what the whole expression says."""
    masks = [p.mask(frame) for p in predicates(text, **options)]
    return pl.select(pl.all_horizontal(masks)).to_series().to_list() if masks else [True] * frame.height


# --- a slow and obvious evaluator: one row at a time, None for unknown

Row = Mapping[str, Any]
Evaluated = tuple[str, Callable[[Row], Any]]  # an expression, and what it yields for a row
CIRCLES = {"CIRCLE(10, 0, 1)": (10, 0, 1), "CIRCLE(12, 0, 0.5)": (12, 0, 0.5), "POINT(10.5, 0)": (10.5, 0, 0)}
INSTANTS = {"T'2026-03-01T00:00:00/tai'": 1772323200_000000000, "T'61097.0'": 1772064000_000000000}


def circle(ra: float, dec: float, radius: float) -> bytes:
    return Circle(UnitVector3d(LonLat.fromDegrees(ra, dec)), Angle.fromDegrees(radius)).encode()


def nullable(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | of


frames = st.lists(
    st.fixed_dictionaries(
        {
            "visit": st.integers(-20, 20),
            "detector": st.integers(0, 5),
            "band": nullable(st.sampled_from(["g", "r", "i", "*"])),
            "visit.exposure_time": nullable(st.sampled_from([0.0, 15.0, 30.5, -1.0])),
            "visit.seq_num": nullable(st.integers(-3, 3)),
            "visit.target_name": nullable(st.sampled_from(["", "cosmos", "COSMOS 2", "a.b", "x\ny"])),
            "exposure.can_see_sky": nullable(st.booleans()),
            "visit.timespan_begin": nullable(st.sampled_from([*INSTANTS.values(), MIN_NS])),
            "visit.timespan_end": nullable(st.sampled_from([*(v + 30 for v in INSTANTS.values()), MAX_NS])),
            "visit.region": nullable(st.sampled_from([circle(*c) for c in CIRCLES.values()])),
            "patch.region": nullable(st.sampled_from([circle(*c) for c in CIRCLES.values()])),
        }
    ),
    min_size=1,
    max_size=6,
)
SCHEMA = {
    "visit": pl.Int64, "detector": pl.Int64, "band": pl.String, "visit.exposure_time": pl.Float64,
    "visit.seq_num": pl.Int64, "visit.target_name": pl.String, "exposure.can_see_sky": pl.Boolean,
    "visit.timespan_begin": pl.Int64, "visit.timespan_end": pl.Int64, "visit.region": pl.Binary,
    "patch.region": pl.Binary,
}  # fmt: skip
COMPARE = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
           ">=": operator.ge}  # fmt: skip


def known(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that yields None where an argument is None."""
    return lambda *values: None if any(v is None for v in values) else function(*values)


def column(name: str) -> Evaluated:
    return name, lambda row: row[name]


def literal(text: str, value: Any) -> Evaluated:
    return text, lambda row: value


def joined(template: str, function: Callable[..., Any], *parts: Evaluated) -> Evaluated:
    return template.format(*(text for text, _ in parts)), lambda row: function(*(f(row) for _, f in parts))


def divided(a: int, b: int) -> int | None:
    return None if b == 0 else (abs(a) // abs(b)) * (1 if a * b >= 0 else -1)


def remainder(a: int, b: int) -> int | None:
    quotient = divided(a, b)
    return None if quotient is None else a - b * quotient


integers = st.integers(-30, 30).map(lambda n: literal(str(n), n)) | st.sampled_from(
    [column("visit"), column("detector"), column("visit.seq_num")]
)
whole = st.recursive(
    integers,
    lambda inner: st.one_of(
        st.builds(lambda a, b: joined("({} + {})", known(operator.add), a, b), inner, inner),
        st.builds(lambda a, b: joined("({} - {})", known(operator.sub), a, b), inner, inner),
        st.builds(lambda a, b: joined("({} * {})", known(operator.mul), a, b), inner, inner),
        st.builds(lambda a: joined("({} / {})", known(divided), a, column("visit.seq_num")), inner),
        st.builds(lambda a: joined("({} % {})", known(remainder), a, column("visit.seq_num")), inner),
        st.builds(lambda a: joined("(-{})", known(operator.neg), a), inner),
    ),
    max_leaves=4,
)
reals = (
    whole
    | st.just(column("visit.exposure_time"))
    | st.sampled_from([literal("15.0", 15.0), literal(".5", 0.5), literal("1e1", 10.0)])
)
texts = st.sampled_from([column("band"), column("visit.target_name"), literal("'g'", "g"), literal("''", "")])
times = st.sampled_from(
    [
        *(literal(text, value) for text, value in INSTANTS.items()),
        ("visit.timespan.begin", lambda row: row["visit.timespan_begin"]),
        ("visit.timespan.end", lambda row: row["visit.timespan_end"]),
    ]
)
first, second = INSTANTS.items()
SPAN = ("visit.timespan", lambda row: (row["visit.timespan_begin"], row["visit.timespan_end"]))
spans = st.sampled_from(
    [
        SPAN,
        literal(f"({second[0]}, {first[0]})", (second[1], first[1])),
        literal(f"(NULL, {first[0]})", (MIN_NS, first[1])),
        literal(f"({first[0]}, NULL)", (first[1], MAX_NS)),
    ]
)
skies = st.sampled_from(
    [
        *(literal(text, circle(*c)) for text, c in CIRCLES.items()),
        column("patch.region"),
    ]
)


def spans_meet(a: tuple[Any, Any], b: tuple[Any, Any]) -> bool | None:
    """Kleene's `a begins before b ends AND b begins before a ends`."""
    halves = [known(operator.lt)(a[0], b[1]), known(operator.lt)(b[0], a[1])]
    return all_of(halves)


def all_of(parts: list[Any]) -> bool | None:
    return False if False in parts else None if None in parts else True


def any_of(parts: list[Any]) -> bool | None:
    return True if True in parts else None if None in parts else False


def regions_meet(a: bytes, b: bytes) -> bool:
    return Region.decode(a).overlaps(Region.decode(b)) is not False


def compared(of: st.SearchStrategy[Evaluated]) -> st.SearchStrategy[Evaluated]:
    return st.builds(
        lambda sign, a, b: joined(f"{{}} {sign} {{}}", known(COMPARE[sign]), a, b),
        st.sampled_from(sorted(COMPARE)),
        of,
        of,
    )


def listed(
    operand: Evaluated, items: list[int], ranges: list[tuple[int, int, int]], negated: bool
) -> Evaluated:
    written = [str(i) for i in items] + [f"{a}..{a + n}:{s}" for a, n, s in ranges]
    values = {*items, *(v for a, n, s in ranges for v in range(a, a + n + 1, s))}
    sign = "NOT IN" if negated else "IN"
    hit = known(lambda value: (value in values) != negated)
    return joined(f"{{}} {sign} ({', '.join(written)})", hit, operand)


members = st.builds(
    listed,
    integers,
    st.lists(st.integers(-9, 9), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 9), st.integers(1, 4)), max_size=2),
    st.booleans(),
)
nulls = st.builds(
    lambda name, sign: (f"{name} {sign} NULL", lambda row: (row[name] is None) == (sign == "=")),
    st.sampled_from(["visit.target_name", "visit.exposure_time", "exposure.can_see_sky", "visit.region"]),
    st.sampled_from(["=", "!="]),
)
globs = st.sampled_from(["*", "cosmos", "c?s*", "*2", "a.b", "a?b", "x*", "[gc]*", ""]).map(
    lambda pattern: (
        f"GLOB(visit.target_name, '{pattern}')",
        lambda row: known(lambda text: bool(re.fullmatch(glob_regex(pattern), text)))(
            row["visit.target_name"]
        ),
    )
)


def glob_regex(pattern: str) -> str:
    return fnmatch.translate(pattern.replace("[", "[[]"))


conditions = st.recursive(
    st.one_of(
        compared(reals), compared(texts), compared(times), members, nulls, globs,
        st.just(column("exposure.can_see_sky")),
        st.builds(lambda a: joined("{} OVERLAPS {}", spans_meet, SPAN, a), spans),
        st.builds(
            lambda t: joined(
                "{} OVERLAPS {}",
                lambda s, at: all_of([known(operator.le)(s[0], at), known(operator.lt)(at, s[1])]),
                SPAN, t,
            ),
            times,
        ),
        st.builds(lambda r: joined("{} OVERLAPS {}", known(regions_meet), column("visit.region"), r), skies),
    ),
    lambda inner: st.one_of(
        st.builds(lambda a, b: joined("({} AND {})", lambda *p: all_of([*p]), a, b), inner, inner),
        st.builds(lambda a, b: joined("({} or {})", lambda *p: any_of([*p]), a, b), inner, inner),
        st.builds(lambda a: joined("NOT ({})", known(operator.not_), a), inner),
    ),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(conditions, frames)
def test_masks_are_what_evaluating_row_by_row_gives(case: Evaluated, data: list[Row]) -> None:
    text, evaluate = case
    frame = pl.DataFrame(data, schema=SCHEMA)
    assert rows(text, frame) == [evaluate(row) for row in data]


@settings(max_examples=100, deadline=None)
@given(members, frames)
def test_equal_holds_every_value_that_is_admitted(case: Evaluated, data: list[Row]) -> None:
    frame = pl.DataFrame(data, schema=SCHEMA)
    for predicate in predicates(case[0]):
        for dimension, values in predicate.equal.items():
            admitted = frame.filter(predicate.mask(frame).fill_null(False))[dimension]
            assert set(admitted) <= set(values)


# --- what a predicate says about itself


def test_each_top_level_condition_becomes_a_predicate() -> None:
    found = predicates("instrument = 'HSC' AND (visit > 5 AND NOT band = 'g') AND (tract = 1 OR tract = 2)")
    assert [p.text for p in found] == [
        "instrument = 'HSC'",
        "visit > 5",
        "NOT band = 'g'",
        "(tract = 1 OR tract = 2)",
    ]
    assert [sorted(p.dimensions) for p in found] == [
        ["instrument"], ["instrument", "visit"], ["band"], ["skymap", "tract"],
    ]  # fmt: skip


def test_an_empty_expression_admits_everything() -> None:
    assert predicates("") == predicates(" \n ") == ()


def test_columns_are_those_of_the_frame_that_is_asked() -> None:
    (found,) = predicates("visit.timespan OVERLAPS T'61100.0' OR detector.full_name = 'S00'")
    assert found.columns == {"visit.timespan_begin", "visit.timespan_end", "detector.full_name"}
    assert found.elements == {"visit", "detector"}
    assert found.dimensions == {"instrument", "visit", "detector"}


@pytest.mark.parametrize(
    ("text", "equal"),
    [
        ("visit = 5", {"visit": (5,)}),
        ("5.0 = visit", {"visit": (5,)}),
        ("visit = 5.5", {"visit": ()}),
        ("visit.id = 5", {"visit": (5,)}),
        ("visit IN (3, 1..3, 10..20:5)", {"visit": (3, 1, 2, 10, 15, 20)}),
        ("visit IN (1..100000)", {}),
        ("visit NOT IN (1, 2)", {}),
        ("visit != 5", {}),
        ("visit.seq_num = 5", {}),
        ("band = 'g' OR band = 'r'", {"band": ("g", "r")}),
        ("band = 'g' OR visit = 5", {}),
        ("(band = 'g' AND visit = 5) OR (visit = 6 AND detector = 1)", {"visit": (5, 6)}),
        ("visit IN (:many)", {"visit": (7, 8)}),
        ("visit IN (:none)", {"visit": ()}),
        ("visit IN (1e400, 1.5, 2.0)", {"visit": (2,)}),
        ("visit = 1e400", {"visit": ()}),
    ],
)
def test_a_predicate_says_which_values_it_admits(
    text: str, equal: Mapping[str, tuple[int | str, ...]]
) -> None:
    (found,) = predicates(text, bind={"many": [7, 8], "none": []})
    assert found.equal == equal


def test_a_predicate_says_which_regions_it_joins() -> None:
    assert predicates("(visit.region OVERLAPS patch.region)")[0].joined == {"visit", "patch"}
    for text in ("visit.region OVERLAPS POINT(1, 2)", "NOT visit.region OVERLAPS patch.region", "visit = 3"):
        assert predicates(text)[0].joined == frozenset()


def test_predicates_that_fix_one_dimension_differently_contradict_each_other() -> None:
    told = contradiction(predicates("visit = 5 AND visit IN (6, 7)"))
    assert told is not None
    assert "visit = 5" in told
    assert contradiction(predicates("visit = 5 AND visit IN (5, 7) AND band = 'g'")) is None


# --- names


def test_another_name_of_a_dimension_is_the_dimension() -> None:
    for text in ("visit.id = 5", "visit = 5"):
        assert predicates(text)[0].columns == {"visit"}
    assert predicates("visit.instrument = 'HSC'")[0].columns == {"instrument"}
    assert predicates("visit.physical_filter = 'g1'")[0].columns == {"physical_filter"}
    assert predicates("visit.name = '5'")[0].columns == {"visit.name"}
    assert predicates("band.name = 'g'")[0].columns == {"band"}


def test_a_field_alone_is_found_where_only_one_element_of_the_query_has_it() -> None:
    assert predicates("exposure_time > 5", "visit")[0].columns == {"visit.exposure_time"}
    assert predicates("cell_x = 5", "patch")[0].columns == {"patch.cell_x"}
    with pytest.raises(QueryError, match="several elements"):
        predicates("exposure_time > 5", "visit", "exposure")
    with pytest.raises(QueryError, match="nothing is called 'cell_x'"):
        predicates("cell_x = 5", "visit")


def test_sky_pixels_have_regions_without_records() -> None:
    (found,) = predicates("htm7.region OVERLAPS POINT(150, 2)")
    assert found.elements == frozenset()
    frame = pl.DataFrame({"htm7": [None, 231829]})
    assert found.mask(frame).to_list() == [None, False]


def test_bound_values_may_be_named_without_a_colon() -> None:
    frame = pl.DataFrame({"visit": [1, 2, 3]})
    assert rows("visit = mine", frame, bind={"mine": 2}) == [False, True, False]
    assert rows("visit IN (mine, 3)", frame, bind={"mine": (1,)}) == [True, False, True]


def test_times_spans_and_places_can_be_bound() -> None:
    begin = 1772323200_000000000
    frame = pl.DataFrame(
        {
            "visit.timespan_begin": [begin, None],
            "visit.timespan_end": [begin + 10**9, None],
            "visit.region": [circle(10, 0, 1), None],
        }
    )
    bind = {
        "t": Time("2026-03-01", scale="tai"), "span": Timespan(end_ns=begin),
        "place": SkyCoord(10, 0.5, unit="deg"), "region": Region.decode(circle(12, 0, 0.1)),
    }  # fmt: skip
    assert rows("visit.timespan OVERLAPS :t", frame, bind=bind) == [True, None]
    assert rows("visit.timespan.begin = :t", frame, bind=bind) == [True, None]
    assert rows("visit.timespan OVERLAPS :span", frame, bind=bind) == [False, None]
    assert rows("visit.region OVERLAPS :place", frame, bind=bind) == [True, None]
    assert rows("visit.region OVERLAPS :region", frame, bind=bind) == [False, None]


@pytest.mark.parametrize(
    ("written", "iso"),
    [
        ("2026-03-01", "2026-03-01T00:00:37"),
        ("2026-03-01 05:00", "2026-03-01T05:00:37"),
        ("2026-03-01T05:00:00.5/tai", "2026-03-01T05:00:00.5"),
        ("2026-03-01 05:00:00+00:00", "2026-03-01T05:00:37"),
        ("2026:060:05:00:00", "2026-03-01T05:00:37"),
        ("61100.25", "2026-03-01T06:00:00"),
        ("mjd/61100.25/utc", "2026-03-01T06:00:37"),
        ("unix/1772323200", "2026-03-01T00:00:37"),
    ],
)
def test_times_are_read_in_every_form(written: str, iso: str) -> None:
    frame = pl.DataFrame({"visit.timespan_begin": [round(Time(iso, scale="tai").unix_tai * 1e9)]})
    assert rows(f"visit.timespan.begin = T'{written}'", frame) == [True]


def test_a_circle_has_the_radius_that_is_written_or_twice_it_where_that_is_asked() -> None:
    frame = pl.DataFrame({"visit.region": [circle(10, 0, 0.1), circle(11.5, 0, 0.1)]})
    text = "visit.region OVERLAPS CIRCLE(10, 0, 1)"
    assert rows(text, frame) == [True, False]
    assert rows(text, frame, rubin_circles=True) == [True, True]
    assert rows("visit.region OVERLAPS REGION('CIRCLE 10 0 1')", frame, rubin_circles=True) == [True, False]


def test_corners_of_a_polygon_may_come_in_any_order() -> None:
    frame = pl.DataFrame({"visit.region": [circle(10.1, 0.5, 0.01), circle(12, 0, 0.01)]})
    for corners in ("10,0, 11,0, 11,1, 10,1", "10,0, 11,1, 11,0, 10,1"):
        assert rows(f"visit.region OVERLAPS POLYGON({corners})", frame) == [True, False]


def test_long_alternatives_are_no_burden() -> None:
    text = " OR ".join(f"visit = {n}" for n in range(5000))
    (found,) = predicates(text)
    assert len(found.equal["visit"]) == 5000
    assert found.mask(pl.DataFrame({"visit": [4999, 5000]})).to_list() == [True, False]


# --- what is refused


@pytest.mark.parametrize(
    ("text", "word", "said"),
    [
        ("vizit = 3", "vizit", "did you mean 'visit'"),
        ("visit.exposure_tim > 3", "visit.exposure_tim", "did you mean 'exposure_time'"),
        ("vizit.exposure_time > 3", "vizit.exposure_time", "did you mean 'visit'"),
        ("visit = ", " ", "the expression ends here"),
        ("visit == 3", "=", "equality is written with one ="),
        ("visit <> 3", ">", "write !="),
        ("visit IS NULL", "IS", "write `= NULL`"),
        ("visit BETWEEN 1 AND 3", "BETWEEN", "IN (a..b)"),
        ('band = "g"', '"', "single quotes"),
        ("band = 'g", "'g", "does not end"),
        ("visit = 'g'", "visit = 'g'", "a whole number with a text"),
        ("visit.timespan.begin > '2026-03-01'", "visit.timespan.begin > '2026-03-01'", "put T before a time"),
        ("visit.timespan < T'61100.0'", "visit.timespan < T'61100.0'", "use OVERLAPS"),
        ("visit.timespan OVERLAPS 5", "visit.timespan OVERLAPS 5", "two regions, two time spans"),
        ("visit.timespan.begin > T'61100'", "T'61100'", "decimal point"),
        ("visit.timespan.begin > T'2026-03-01T00:00+05:00'", "T'2026-03-01T00:00+05:00'", "is no time"),
        ("1 < visit < 3", "<", "join them with AND"),
        ("visit", "visit", "a condition is wanted"),
        ("visit = 3 AND detector", "detector", "a condition is wanted"),
        ("visit = 1..3", "1..3", "ranges are items of IN"),
        ("visit IN (5..3)", "5..3", "runs backwards"),
        ("visit.exposure_time IN (1..3)", "1..3", "never equal"),
        ("visit IN (1, 'a')", "'a'", "never equal"),
        ("visit IN (1 + 2)", "1 + 2", "takes no expressions"),
        ("visit.region IN (1)", "visit.region", "a sky region"),
        ("visit.target_name > NULL", "visit.target_name > NULL", "NULL cannot be used with >"),
        ("visit.exposure_time % 2 = 1", "visit.exposure_time % 2", "whole numbers"),
        ("visit + band = 3", "band", "arithmetic needs numbers"),
        ("visit = 1/0", "1/0", "divides by zero"),
        ("GLOB(visit, '1*')", "GLOB(visit, '1*')", "no text field"),
        ("GLOB(band)", "GLOB(band)", "no text"),
        ("FOO(visit) = 3", "FOO(visit)", "there is no function FOO"),
        ("visit.region OVERLAPS CIRCLE(1, 2)", "CIRCLE(1, 2)", "(ra, dec, radius)"),
        ("visit.region OVERLAPS CIRCLE(1, 100, 1)", "CIRCLE(1, 100, 1)", "declination"),
        ("visit.region OVERLAPS CIRCLE(visit, 2, 1)", "visit", "before any row"),
        ("visit.region OVERLAPS REGION('FOO 1')", "REGION('FOO 1')", "no region"),
        ("POINT(1, 2) OVERLAPS CIRCLE(1, 2, 3)", "POINT(1, 2) OVERLAPS CIRCLE(1, 2, 3)", "neither"),
        ("raw.ingest_date > T'61100.0'", "raw.ingest_date", "cannot be used here"),
        ("ingest_date > T'61100.0'", "ingest_date", "cannot be used here"),
        ("visit_detector_region = 3", "visit_detector_region", "is no dimension"),
        ("visit = :vizits", ":vizits", "did you mean 'visits'"),
        ("visit = :visits", ":visits", "only IN takes several"),
        ("visit IN (:mixed)", ":mixed", "mixes values"),
        ("visit = :odd", ":odd", "no meaning in an expression"),
        ("visit = 99999999999999999999", "99999999999999999999", "too large"),
        ("(" * 200 + "visit = 1" + ")" * 200, "(", "parentheses are open"),
        ("(visit, 3) OVERLAPS visit.timespan", "(visit, 3)", "no time span"),
        ("skymap.hash = 'a'", "skymap.hash = 'a'", "never equal"),
    ],
)  # fmt: skip
def test_a_refusal_points_at_the_place_and_says_what_to_do(text: str, word: str, said: str) -> None:
    bind = {"visits": [1, 2], "mixed": [1, "a"], "odd": object()}
    with pytest.raises(QueryError) as caught:
        predicates(text, bind=bind)
    shown, carets = str(caught.value.args[1]).split("\n")[1:]
    at = [i for i, c in enumerate(carets) if c == "^"]
    assert (shown + " ")[at[0] : at[-1] + 1] == word
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "visit = " + "+".join("1" * 5000),
        "visit = " + "-" * 5001 + "1",
        "NOT " * 5000 + "visit = 1",
        "GLOB(" * 200 + "band" + ")" * 200,
        "visit = 1 = " * 2000 + "1",
    ],
)
def test_no_expression_is_too_much_for_us(text: str) -> None:
    with contextlib.suppress(QueryError):
        assert predicates(text)


def test_a_refusal_in_a_long_expression_shows_its_line() -> None:
    with pytest.raises(QueryError) as caught:
        predicates("visit = 3\n  AND vizit = 4\n  AND band = 'g'")
    assert str(caught.value.args[1]).split("\n") == [
        "expression, line 2, column 7", "      AND vizit = 4", "          ^^^^^",
    ]  # fmt: skip


def test_what_belongs_to_an_instrument_or_sky_map_needs_it_named() -> None:
    with pytest.raises(QueryError, match="belongs to one instrument"):
        predicates("visit = 5", given={})
    with pytest.raises(QueryError, match="belongs to one skymap"):
        predicates("instrument = 'HSC' AND visit = 5 AND tract = 3", given={})
    assert predicates("band = 'g'", given={})
    assert predicates("instrument.class_name = 'x'", given={})
    assert predicates("visit = 5 AND instrument IN ('HSC')", given={})
    assert predicates("visit = 5", given={"instrument": "HSC"})


def test_any_text_is_parsed_or_refused() -> None:
    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet="visit.=<>!()'1:.,+-*/% ANDORTI\n", max_size=40))
    def check(text: str) -> None:
        with contextlib.suppress(QueryError):
            parse_expression(text)

    check()
