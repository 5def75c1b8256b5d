"""A week of the made-up month: what is learned goes live, a bad model goes, all comes out again."""

import pytest
from tests.bench.month_run import Day, Month, Scale, opened
from tests.bench.month_world import Days, World

from madlog.analytics.verify import verify

DAYS = 8
BAD_MODEL_DAY = 5


@pytest.mark.timeout(240)
async def test_what_is_learned_goes_live_and_what_is_bad_goes_by_itself() -> None:
    log, clock = await opened()
    days = Days(fraud_check=99, new_refund=99, length=DAYS)
    scale = Scale(asks=70, chores=20, shifts=2)
    # A week has less traffic than the defaults ask for.
    fewer = {"minimum": 30, "maximum": 60}
    month = Month(log, clock, World(1, days), scale, audit_rate=0.2, **fewer)
    lived: list[Day] = []
    async with month:
        for number in range(DAYS):
            if number == BAD_MODEL_DAY:
                await month.publish_bad_model("50")
            lived.append(await month.day(number))
    steps = [(day.day, version, stage) for day in lived for version, stage, _ in day.steps]
    full = [step for step in steps if step[2] == "100"]
    assert full, steps
    assert full[0][1].startswith("lived-")
    assert lived[0].tiers["lppm"] == 0
    before = [day for day in lived if day.day < BAD_MODEL_DAY]
    # Nothing that was learned did what the policy did not ask for.
    assert sum(day.acted_wrong for day in before) == 0
    taken_back = [step[0] for step in steps if step[1:] == ("by-hand", "back")]
    assert taken_back, steps
    assert taken_back[0] - BAD_MODEL_DAY <= 1
    after = [day for day in lived if day.day > taken_back[0]]
    assert sum(day.acted_wrong for day in after) == 0
    report = await verify(log, month.get_blob, registry=month.registry)
    # The live ones, and those in shadow.
    assert report.decisions >= sum(sum(day.tiers.values()) for day in lived)
    assert report.differences == []
