"""Who works on the store of the model: each is a generator that does one step, which nothing can divide, and says it in words.

Between two steps anything may happen: others work, it sleeps, it is killed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable

from merge_world import (
    CHOOSE_AGAIN,
    CLAIM_LASTS,
    LOOKS,
    MARK_COUNTS,
    NEVER,
    ORDER,
    Cells,
    Claim,
    Commit,
    Flush,
    Fragment,
    Place,
    Record,
    World,
    Wrong,
    fold,
    living,
    words,
)

Steps = Generator[object, None, None]


class Pause(str):
    """A step just before one that cannot be taken back: whoever sleeps anywhere sleeps here more often."""

    __slots__ = ()


CLOCK = Pause("looks at its clock")
SHOWS = Pause("is about to show an output")
OUTPUTS = Pause("looks for its outputs")
REMOVES = Pause("reads the record, before it removes")


def listing(place: Place) -> Generator[object, None, list[Fragment]]:
    """A listing is no moment: what it passed by is as it was then, what comes later as it is later."""
    found = [f for f in place if f.half]
    yield "lists a half"
    found += [f for f in place if not f.half]
    yield "lists the other half"
    return found


# --- flushes ---------------------------------------------------------------------------------------


def flush(world: World) -> Steps:
    rng, rules = world.rng, world.rules
    skew = rng.choice(world.setting.skews)
    cells = world.random_cells()
    draft = world.number()
    while True:
        began = world.marks[draft] = world.now
        saw = len(world.flushes)
        yield "shows that it is choosing"
        newest = max((f.t2 for f in (yield from listing(world.root))), default=-1)
        if "choice reads the record" in rules:
            newest = max([newest, *(f.t2 for f in world.record.live)])
            yield "reads the record"
        t = max(world.clock(skew), newest + 1)
        yield "chooses", t
        for _ in range(rng.randrange(3)):
            yield "writes"
        if world.now - began > CHOOSE_AGAIN and "chooses again" in rules:
            yield "slept, and chooses again"
            continue
        if world.local:
            yield CLOCK
            if draft not in world.marks:
                draft = world.number()
                world.marks[draft] = world.now
                yield "finds that its draft was taken from it"
                continue
            del world.marks[draft]
        yield "commits", world.commit_flush(t, cells, saw), cells
        if not world.local:
            world.marks.pop(draft, None)
            yield "takes its mark away"
        return


# --- merges ----------------------------------------------------------------------------------------


def merge(world: World) -> Steps:
    """Of neighbours in order, few (a tier) or all."""
    rng, rules = world.rng, world.rules
    skew = rng.choice(world.setting.skews)
    full = rng.random() < 0.4
    if world.local and "finishes others" in rules and rng.random() < 0.7:
        yield from move(world)
    record = world.record
    yield "reads the record, for a merge"
    if "marks last" in rules:
        listed = yield from listing(world.root)
        oldest = yield from oldest_mark(world)
    else:
        oldest = yield from oldest_mark(world)
        listed = yield from listing(world.root)
    visible, end = settled(world, record, listed, oldest)
    run = neighbours(world, visible, end, full)
    if len(run) < 2:
        return
    sources = frozenset(run)
    claim = Claim(sources, world.now + CLAIM_LASTS)
    while world.setting.claims:
        record = world.record
        yield "reads the record, for a claim"
        if any(c.until > world.now and c.sources & sources for c in record.claims):
            yield "leaves what others claim"
            return
        claims = tuple(c for c in record.claims if c.until > world.now)
        if world.swap(record, Record(record.history, record.commits, (*claims, claim))):
            yield "claims", run
            break
    oldest_too = run[0] is visible[0]
    outputs = merged(world, run, oldest_too, skew, record.history)
    for output in outputs:
        output.born = world.now
        world.made[output] = None
        world.changed = True
        yield "writes", output, "of", run
    committed = yield from commit(world, run, outputs, oldest_too)
    if committed:
        if world.local:
            yield from move(world)
        return
    for output in outputs:
        world.made.pop(output, None)
        yield "withdraws", output


def oldest_mark(world: World) -> Generator[object, None, int]:
    """The time of the oldest mark that counts. Who was too slow to count is stopped first."""
    marks = dict(world.marks)
    yield "lists the marks"
    if "marks" not in world.rules:
        return NEVER
    limit = world.now - MARK_COUNTS
    if world.local and "breaks old marks" in world.rules:
        for draft, since in marks.items():
            if since <= limit and world.marks.pop(draft, None) is not None:
                yield "takes an old draft from its writer"
    return min((since for since in marks.values() if since > limit), default=NEVER)


def settled(
    world: World, record: Record, listed: list[Fragment], oldest: int
) -> tuple[list[Fragment], int]:
    """The visible fragments in order, and how many from the first on had appeared before the mark."""
    visible = [f for f in listed if not f.merged and f not in record.superseded]
    visible += record.live
    visible.sort(key=ORDER)
    shown = world.root if "takes what is shown" in world.rules else None
    for end, fragment in enumerate(visible):
        if fragment.born >= oldest or (shown is not None and fragment not in shown):
            return visible, end
    return visible, len(visible)


def neighbours(world: World, visible: list[Fragment], end: int, full: bool) -> list[Fragment]:
    """Some of the first `end`, whole groups of equal t1."""
    rng = world.rng
    last = len(visible)
    if "groups" in world.rules:
        cuts = [i for i in range(end + 1) if i in (0, last) or visible[i].t1 != visible[i - 1].t1]
    else:
        cuts = list(range(end + 1))
    if len(cuts) < 2:
        return []
    if full:
        return visible[: cuts[-1]]
    first = rng.randrange(len(cuts) - 1)
    return visible[cuts[first] : cuts[rng.randrange(first + 1, len(cuts))]]


def merged(
    world: World, run: list[Fragment], oldest_too: bool, skew: int, history: int
) -> list[Fragment]:
    """The outputs: one, or two that share the keys."""
    rng, rules = world.rng, world.rules
    moment = world.now + skew
    if "expiry by both clocks" in rules:
        moment = min(moment, world.now)
    if "expiry after history" in rules:
        moment -= history
    cells: Cells = {
        key: cell if cell is not None and cell[1] > moment else None
        for key, cell in fold(run).items()
    }
    if oldest_too or "deletes kept" not in rules:
        cells = {key: cell for key, cell in cells.items() if cell is not None} or {min(cells): None}
    parts = [cells]
    if rng.random() < 0.3:
        parts = [part for odd in (0, 1) if (part := {k: cells[k] for k in cells if k & 1 == odd})]
    outputs = []
    for part in parts:
        output = world.fragment("merge", run[0].t1, max(f.t2 for f in run), part)
        output.merged = True
        output.sources = tuple(run)
        for source in run:
            output.flushes |= source.flushes
        output.moment = max(moment, *(f.moment for f in run))
        outputs.append(output)
    return outputs


def commit(
    world: World, run: list[Fragment], outputs: list[Fragment], oldest_too: bool
) -> Generator[object, None, bool]:
    """Put the outputs into the record in place of their sources, if all is still as it was."""
    rules = world.rules
    sources = frozenset(run)
    whole = "groups" in rules
    first, last, t1 = run[0].order, run[-1].order, run[0].t1
    while True:
        record = world.record
        stamp = world.now
        yield "reads the record, to commit"
        listed = yield from listing(world.root)
        visible = {f for f in listed if not f.merged and f not in record.superseded}
        visible.update(record.live)
        if "sources there" in rules and not sources <= visible:
            yield "finds that a source is gone"
            return False
        if "outputs there" in rules:
            made = all(o in world.made and o not in record.superseded for o in outputs)
            yield OUTPUTS
            if not made:
                return False
        if "looks again" in rules:
            for other in visible - sources:
                between = first < other.order < last or (whole and other.t1 == t1)
                if between or (oldest_too and other.order < first):
                    yield "finds", other, "between its sources"
                    return False
        if "stamps again" in rules and 2 * (world.now - stamp) > record.history > 0:
            continue
        done = Commit(tuple(outputs), sources, stamp)
        claims = tuple(c for c in record.claims if c.sources != sources)
        if world.swap(record, Record(record.history, (*record.commits, done), claims)):
            yield "commits", outputs, "for", run
            return True


def move(world: World) -> Steps:
    """Show what the record names in the root, and take out of it what is superseded, for whoever reads the root alone."""
    rules = world.rules
    record = world.record
    yield "reads the record, for moves"
    superseded: Iterable[Fragment] = record.superseded
    live = record.live
    if "finishes others" not in rules and record.commits:
        live = list(record.commits[-1].outputs)
        superseded = record.commits[-1].sources
    if "oldest first" in rules:
        superseded = sorted(superseded, key=ORDER)
    else:
        superseded = sorted(superseded, key=ORDER, reverse=True)
    if "outputs first" in rules:
        yield from show(world, live)
    for fragment in superseded:
        if fragment in world.root:
            del world.root[fragment]
            world.past[fragment] = None
            fragment.born = world.now
            world.changed = True
            yield "takes out of the root", fragment
    if "outputs first" not in rules:
        yield from show(world, live)


def show(world: World, outputs: Iterable[Fragment]) -> Steps:
    for output in outputs:
        if output not in world.root:
            yield SHOWS
        if output in world.made:
            del world.made[output]
            world.root[output] = None
            output.born = world.now
            world.changed = True
            yield "shows in the root", output


# --- vacuums ---------------------------------------------------------------------------------------


def vacuum(world: World) -> Steps:
    """Remove what is superseded and past its history, one after the other, and strays."""
    rules = world.rules
    by_hand = world.by_hand and world.rng.random() < 0.7
    if world.local:
        yield from move(world)
    record = world.record
    yield "reads the record, for a vacuum"
    strays = yield from stray(world, record)
    if strays:
        record = world.record
        yield "has found strays"
    removed = set()
    forgiven = -1
    for fragment in sorted(record.superseded, key=ORDER):
        if "reads before removing" in rules:
            record = world.record
            yield REMOVES
        if fragment in world.root and world.local and "removes what was moved" in rules:
            continue
        if not (by_hand or due(world, record, fragment)):
            continue
        current = world.record
        if not by_hand and fragment in current.superseded and not due(world, current, fragment):
            # The one removal that was decided before the history became longer is forgiven.
            if forgiven == current.history:
                raise Wrong(f"a vacuum removes {fragment}, which a longer history keeps")
            forgiven = current.history
        for shown, until in () if world.by_hand else world.opened:
            if fragment in shown and world.now <= until:
                raise Wrong(f"a vacuum removes {fragment}, within the history of who has it open")
        world.remove(fragment)
        removed.add(fragment)
        yield "removes", fragment
    while removed:
        record = world.record
        yield "reads the record, to forget what it removed"
        commits = [
            Commit(tuple(o for o in c.outputs if o not in removed), c.sources - removed, c.time)
            for c in record.commits
        ]
        kept = tuple(c for c in commits if c.outputs or c.sources)
        if world.swap(record, Record(record.history, kept, record.claims)):
            yield "forgets what it removed"
            return


def due(world: World, record: Record, fragment: Fragment) -> bool:
    """Whether no history needs it any more."""
    for commit in record.commits:
        if fragment in commit.sources:
            since = -NEVER
            if "history from commit" in world.rules or not commit.outputs:
                since = commit.time
            if "history from t2" in world.rules:
                since = max([since, *(o.t2 for o in commit.outputs)])
            return since + record.history < world.now
    return False


def stray(world: World, record: Record) -> Generator[object, None, list[Fragment]]:
    """Outputs of merges that were killed, or sleep."""
    limit = world.now - world.setting.stray_after
    found = [f for f in world.made if f.merged and f.born < limit and not record.names(f)]
    yield "looks for strays"
    if not found:
        return found
    if "strays by the record" not in world.rules:
        for fragment in found:
            record = world.record
            yield REMOVES
            if not record.names(fragment):
                world.remove(fragment)
                yield "removes the stray", fragment
        return []
    while True:
        record = world.record
        yield "reads the record, for strays"
        found = [f for f in found if not record.names(f)]
        given_up = Commit((), frozenset(found), world.now - record.history - 1)
        if world.swap(record, Record(record.history, (*record.commits, given_up), record.claims)):
            yield "gives up the strays", found
            return found


def lengthen(world: World) -> Steps:
    """Somebody wants a longer history."""
    while True:
        record = world.record
        yield "reads the record, for its history"
        new = Record(record.history + 100, record.commits, record.claims)
        if world.swap(record, new):
            world.reaches = max(world.reaches, world.now - record.history)
            yield "makes the history longer"
            return


# --- readers ---------------------------------------------------------------------------------------


def reader(world: World) -> Steps:
    """Open the store. The fragments have to stay for as long as history lasts."""
    begun = len(world.flushes)
    for _ in range(LOOKS):
        since = world.now
        record = world.record
        history = record.history
        yield "reads the record, to open"
        shown = yield from look(world, record)
        if shown is None:
            continue
        looked = yield from opened(world, shown)
        if looked is not None:
            if world.record is record:
                raise Wrong(f"a reader finds {looked} nowhere, which is visible")
            continue
        judge(world, shown, begun)
        break
    else:
        return
    world.opened.append((frozenset(shown), since + history // 2))


def look(world: World, record: Record) -> Generator[object, None, list[Fragment] | None]:
    rules = world.rules
    first = yield from listing(world.root)
    plain = {f for f in first if not f.merged and f not in record.superseded}
    if "lists twice" in rules:
        second = yield from listing(world.root)
        newest = max([-1, *(f.t2 for f in plain), *(f.t2 for f in record.live)])
        for f in second:
            if f.merged or f in record.superseded:
                continue
            if f.t1 <= newest or "left out" not in rules:
                plain.add(f)
    if "record twice" in rules and world.record is not record:
        yield "finds another record"
        return None
    return [*plain, *record.live]


def opened(world: World, shown: list[Fragment]) -> Generator[object, None, Fragment | None]:
    """What cannot be opened; None when all are."""
    if "in the order of moves" in world.rules:
        places = (world.made, world.root, world.past)
    else:
        places = (world.root, world.made, world.past)
    for fragment in shown:
        if fragment in world.root:
            continue  # all looks in one step: what can go wrong is seen by the others
        for place in places:
            if fragment in place:
                break
            yield "looks elsewhere for", fragment
        else:
            return fragment
    yield "opens all"
    return None


def judge(world: World, shown: list[Fragment], begun: int) -> None:
    """What a reader shows is what some flushes say: all that were there when it began, and with each all that its writer saw.

    Flushes that were under way at the same time may be shown without one another.
    """
    flushes = 0
    for fragment in shown:
        flushes |= fragment.flushes
    if flushes & (before := (1 << begun) - 1) != before:
        raise Wrong("a reader shows less than there was when it began")
    if flushes & (flushes + 1):
        world.mixed += 1
        for i, each in enumerate(world.flushes):
            if flushes >> i & 1 and flushes & each.saw != each.saw:
                raise Wrong(f"a reader shows flush {each.t} without what its writer saw")
    seen, right = living(fold(shown), world.now), living(world.folded(flushes), world.now)
    if seen != right:
        raise Wrong(f"a reader shows {words(seen)}, and its flushes say {words(right)}")


def travel(world: World) -> Steps:
    """Ask for a moment of the past, which is read by what there is now."""
    rng = world.rng
    yield "is about to travel"
    record, now = world.record, world.now
    moment = now - rng.randrange(1 + (record.history if rng.random() < 0.5 else now))
    counted = [
        c
        for c in record.commits
        if all(
            o.t2 <= moment and (o.moment <= moment or "moment kept" not in world.rules)
            for o in c.outputs
        )
    ]
    gone: frozenset[Fragment] = frozenset().union(*(c.sources for c in counted))
    candidates = {f for f in world.root if not f.merged}
    candidates.update(f for c in record.commits for f in c.sources if not f.merged)
    candidates.update(o for c in counted for o in c.outputs)
    shown = [f for f in candidates if f.t2 <= moment and f not in gone and world.anywhere(f)]
    counts = {o for c in counted for o in c.outputs}
    known = {o for c in record.commits for o in c.outputs} | set(record.live)
    for output in known - counts:
        for source in output.sources:
            if source.t1 <= moment and source not in gone and not world.anywhere(source):
                if not world.by_hand and moment >= max(now - record.history, world.reaches):
                    raise Wrong(f"{source} was removed, and the history reaches to {moment}")
                return  # HistoryVacuumed
    past: list[Flush] = sorted(f for f in world.flushes if f.t <= moment)
    right: Cells = {}
    for each in past:
        right.update(each.cells)
    if living(fold(shown), moment) != living(right, moment):
        raise Wrong(
            f"at {moment} there is {words(living(fold(shown), moment))}, "
            f"and should be {words(living(right, moment))}"
        )
