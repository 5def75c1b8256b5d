import pytest
from hypothesis import given
from hypothesis import strategies as st

from madlog.topics.catalog import CATALOG, inbox, kept_for_ever, murmur2, partition_for, topic
from madlog.topics.errors import UnknownTopic


@pytest.mark.parametrize(
    ("data", "signed"),
    [
        # From Apache Kafka's own UtilsTest.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_that_of_kafka(data: bytes, signed: int) -> None:
    assert murmur2(data) == signed % 2**32


@given(st.binary(max_size=80), st.integers(1, 64))
def test_a_key_has_one_partition_within_the_count(key: bytes, count: int) -> None:
    assert partition_for(key, count) == partition_for(key, count) in range(count)


def test_names_are_found_and_others_are_refused() -> None:
    assert topic("mad.conversations") is CATALOG["mad.conversations"]
    assert topic("mad.inbox.shop") == inbox("shop")
    assert topic("mad.state.router").compacted
    for name in ("mad.nonsense", "mad.inbox.", "mad.inbox.Shop", "", "mad.state.a.b"):
        with pytest.raises(UnknownTopic, match="topics list"):
            topic(name)


def test_replay_needs_the_topics_kept_for_ever_and_no_other() -> None:
    names = kept_for_ever([*CATALOG.values(), inbox("shop"), topic("mad.state.router")])
    assert set(names) == set(CATALOG) - {"mad.system"}
