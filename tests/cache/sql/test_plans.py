"""Plans say of themselves whether they matter, and why they are what they are."""

import pytest

from cache.sql.plans import EMPTY, Action, Command, FillPlan, Plan, Reason, WritePlan
from tests.cache.catalogs import USERS

(BOUND,) = USERS.bound


@pytest.mark.parametrize(
    "plan",
    [
        Plan(Reason.FILL, fills=(FillPlan(BOUND, (None,)),)),
        Plan(Reason.NOTHING_INSERT, writes=(WritePlan(BOUND, Action.NOTHING),)),
        Plan(Reason.NOT_SHOWN, labels=("public.users",)),
        Plan(Reason.UNRELATED, Command.COMMIT),
        Plan(Reason.UNRELATED, shadows=("users",)),
        Plan(Reason.UNRELATED, settings=(("search_path", None, False),)),
        Plan(Reason.UNRELATED, opaque=True),
        Plan(Reason.UNRELATED, modifies=True),
        Plan(Reason.UNRELATED, ddl=True),
        Plan(Reason.OPAQUE, whole=True),
    ],
)
def test_plan_with_an_effect_is_not_trivial(plan):
    assert not plan.trivial


def test_plan_with_names_and_flags_alone_is_trivial():
    assert EMPTY.trivial
    assert Plan(Reason.UNRELATED, name="c", chain=True, holdable=True).trivial


def test_every_reason_has_a_sentence_of_its_own():
    words = [reason.sentence for reason in Reason]
    assert len(set(words)) == len(words)
    assert all(sentence.endswith(".") for sentence in words)
