"""Prepared statements and portals of one session, as the server has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache.capture.arguments import Arguments
    from cache.capture.plan_views import PlanView, PlanViews
    from cache.capture.session_settings import Reading
    from cache.catalog.tables import Catalog
    from cache.sql.plans import Literals, Plan
    from cache.values.loading import ValueSettings


class PreparedStatement:
    """One prepared statement, made by Parse or by SQL PREPARE; the two share their names."""

    __slots__ = (
        "by_sql",
        "described_object",
        "description",
        "description_catalog",
        "index",
        "literals",
        "meaning",
        "reading",
        "text",
        "types",
        "unseen_code",
        "view",
        "views",
    )

    def __init__(
        self,
        text: bytes | None,
        types: tuple[int, ...],
        reading: Reading,
        *,
        by_sql: bool = False,
        index: int = 0,
    ) -> None:
        self.text = text
        """Parse's text, or the one with the SQL PREPARE, whose plan's ``inner`` is the statement. None when it was too
        long to be looked at, or was not seen."""
        self.by_sql = by_sql
        self.index = index
        """Which statement of ``text`` it is."""
        self.types = types
        """Parameter types as Parse declared them; 0, or missing at the end, where the server inferred one."""
        self.reading = reading
        """How ``text`` was read when it was forwarded, and how the server read it once it has confirmed that it did."""
        self.description: bytes | None = None
        """The RowDescription's body that Describe of the statement brought; its formats are not those of a portal."""
        self.description_catalog: Catalog | None = None
        """The catalog of that moment: under a newer one the column numbers may mean something else."""
        self.described_object: PreparedStatement | Portal | None = None
        """EXECUTE, FETCH: the prepared statement or cursor that it named when it was described."""
        self.meaning = -1
        """``Settings.meaning`` when the server analysed its text. Under a greater one its names may mean other
        relations, and what Describe showed is not what is run; -1 where that was not seen."""
        self.unseen_code = -1
        """``Settings.unseen_code`` at that moment. Under a greater one the name may stand for another statement."""
        self.view: PlanView | None = None
        self.literals: Literals = ()
        self.views: PlanViews | None = None
        """Where ``view`` is from, and ``literals`` with it: both are made again when others are in force."""


class Portal:
    """One portal, made by Bind or by SQL DECLARE; the two share their names."""

    __slots__ = (
        "already_counted",
        "arguments",
        "bind",
        "described_object",
        "description",
        "dirty",
        "holdable",
        "literals",
        "meaning",
        "plan",
        "prepared",
        "sent_ns",
        "seq",
        "settings",
        "unseen_code",
    )

    def __init__(self, plan: Plan, seq: int, sent_ns: int) -> None:
        self.plan = plan
        self.seq = seq
        """With ``sent_ns``: when Bind or DECLARE was forwarded, so its snapshot is no older."""
        self.sent_ns = sent_ns
        self.prepared: PreparedStatement | None = None
        """What Bind bound; None of a DECLARE."""
        self.bind: bytes | None = None
        """Bind's body; None of a DECLARE, and where it was too long to be looked at."""
        self.literals: Literals = ()
        """Those of the statement's text."""
        self.settings: ValueSettings | None = None
        """Those in force at Bind."""
        self.arguments: Arguments | None = None
        """None until they are asked for."""
        self.description: bytes | None = None
        """The RowDescription's body that Describe of the portal brought."""
        self.described_object: PreparedStatement | Portal | None = None
        """EXECUTE, FETCH: the prepared statement or cursor that it named then."""
        self.meaning = -1
        """``Settings.meaning`` at Bind, which decided what is run."""
        self.unseen_code = -1
        """That of the prepared statement; of a DECLARE, ``Settings.unseen_code`` when it ran."""
        self.already_counted = False
        """Some of its rows came, and the statement was counted for them."""
        self.dirty = False
        """Its snapshot may show what its own transaction had written."""
        self.holdable = False
        """WITH HOLD: it outlives its transaction."""
