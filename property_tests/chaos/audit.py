"""What the database itself saw: a trigger notes each change of owner, fence, run or position, and by whom.

Rule 1: it believes no program of ours: who writes is told by the connection, and order by the lock on the row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import attrs
import psycopg

COLUMNS = "id, app, owner_before, owner, fence_before, fence, place_before, place"
TRIGGER = """
CREATE TABLE {schema}.audit (
    n bigserial PRIMARY KEY, id text, app text, owner_before text, owner text, fence_before int8, fence int8,
    place_before int8[], place int8[]
);
CREATE FUNCTION {schema}.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (OLD.owner, OLD.fence, OLD.run, OLD.position)
        IS NOT DISTINCT FROM (NEW.owner, NEW.fence, NEW.run, NEW.position) THEN
        RETURN NULL;
    END IF;
    INSERT INTO {schema}.audit ({columns}) VALUES (
        NEW.id, current_setting('application_name'), OLD.owner, NEW.owner, OLD.fence, NEW.fence,
        ARRAY[OLD.run, OLD.position], ARRAY[NEW.run, NEW.position]
    );
    RETURN NULL;
END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE OF owner, fence, run, position ON {schema}.executions
FOR EACH ROW EXECUTE FUNCTION {schema}.note();
"""


@attrs.frozen
class Change:
    """One change of one execution, as committed."""

    id: str
    app: str
    """The connection's application_name: which process it was."""
    owner_before: str | None
    owner: str | None
    fence_before: int | None
    fence: int
    place_before: tuple[int | None, ...]
    """Run and position; of None for a new execution."""
    place: tuple[int | None, ...]

    @property
    def is_given(self) -> bool:
        """Whether it passed into a worker's hand."""
        return self.owner is not None and self.owner != self.owner_before

    @property
    def is_turn(self) -> bool:
        """Whether something was appended to what was there."""
        return self.fence_before is not None and self.place != self.place_before


def install(db: psycopg.Connection, schema: str) -> None:
    """Watch the executions of a schema whose tables are there."""
    db.execute(TRIGGER.format(schema=schema, columns=COLUMNS))


def changes(db: psycopg.Connection, schema: str) -> list[Change]:
    """All changes so far, each execution's in their order."""
    rows = db.execute(f"SELECT {COLUMNS} FROM {schema}.audit ORDER BY n").fetchall()
    return [Change(*row[:6], tuple(row[6]), tuple(row[7])) for row in rows]


def takes(seen: Sequence[Change]) -> Counter[tuple[str, str]]:
    """How often each process took each execution: (id, app)."""
    return Counter((change.id, change.app) for change in seen if change.is_given)


def zombies(seen: Sequence[Change]) -> Iterator[str]:
    """F15, I6: a turn is written by whom the current fence was given to, and no fence is given twice.

    When a lease has run out and nobody has taken the execution yet, its fence is still that of the last holder, who may
    write: there is nobody whom that could harm (L2).
    """
    app_of: dict[str, str] = {}
    fences: dict[str, int] = {}
    holders: dict[str, tuple[int, str]] = {}
    """The last fence that was given, and to which process."""
    for change in seen:
        if change.fence < fences.get(change.id, 0):
            yield f"I6: the fence of '{change.id}' went from {fences[change.id]} to {change.fence}"
        fences[change.id] = change.fence
        fence, holder = holders.get(change.id, (0, "nobody"))
        if change.is_given and change.owner is not None:
            if app_of.setdefault(change.owner, change.app) != change.app:
                yield f"{change.app} gave '{change.id}' to a worker of {app_of[change.owner]}"
            if change.fence <= fence:
                yield f"I6: '{change.id}' was given to {change.app} with fence {change.fence}, as to {holder}"
            holders[change.id] = change.fence, change.app
        if change.is_turn and (change.fence, change.app) != (fence, holder):
            yield (
                f"F15: {change.app} wrote a turn of '{change.id}' at {change.place_before} under fence "
                f"{change.fence}; fence {fence} is that of {holder}"
            )
