from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from madlog.schemas.ids import (
    content_id_and_time,
    derived_event_id,
    event_id_ms,
    imported_event_id,
    new_event_id,
)

TIMES = st.integers(0, (1 << 48) * 1000 - 1)


@given(TIMES, st.binary(min_size=10, max_size=10))
def test_new_ids_are_uuids_of_version_7_that_carry_their_time(at_us: int, random: bytes) -> None:
    made = UUID(new_event_id(at_us, random))
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert event_id_ms(str(made)) == made.int >> 80 == at_us // 1000


def test_computed_ids_depend_on_what_they_are_made_from_and_nothing_else() -> None:
    source = new_event_id(1_000_000, bytes(10))
    assert derived_event_id(source, "router", 0) == derived_event_id(source, "router", 0)
    made = {derived_event_id(source, name, i) for name in ("router", "learner") for i in (0, 1)}
    made |= {imported_event_id("a", "bc", 1, 0), imported_event_id("ab", "c", 1, 0)}
    made |= {content_id_and_time("x")[0], content_id_and_time("y")[0]}
    assert len(made) == 8
    assert event_id_ms(derived_event_id(source, "router", 0)) == event_id_ms(source)


def test_ids_are_pinned_for_ever() -> None:
    # They stand in logs that exist: a change of formula would import everything a second time.
    assert imported_event_id("tau-bench", "3/0/ab", 7, 1_577_836_800_000_000) == (
        "016f5e66-e800-76d3-ae41-687d21232fa8"
    )
