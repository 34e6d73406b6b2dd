"""A consumer group against a plain model of it: random steps, crashes and claims included.

Each example plays on a stream of its own on a real server. The model knows who was given what,
and what was acknowledged; after every step it must agree with the server's pending entries list.
"""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Any

import polars as pl
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import polars_redis as redis

if TYPE_CHECKING:
    import redis as redis_py

    from support.servers import Server

SCHEMA = {"n": pl.Int64}
CONSUMERS = ["a", "b", "c"]
consumers = st.sampled_from(CONSUMERS)


def key(entry_id: str) -> int:
    return int(entry_id.split("-")[0])


class Life:
    """One iterator of a consumer, and what the model knows of it."""

    def __init__(self, iterator: redis.StreamIterator, options: dict[str, Any]) -> None:
        self.iterator = iterator
        self.batch_size: int = options["batch_size"]
        self.claims = options["claim_idle_ms"] is not None
        self.auto_ack: bool = options["auto_ack"]
        self.handed: set[str] = set()
        self.last_batch: list[str] = []


class Group(RuleBasedStateMachine):
    """The model: a stream, its group, and three consumers that come and go."""

    server: Server
    client: redis_py.Redis

    def __init__(self) -> None:
        super().__init__()
        self.stream = f"stream:{uuid.uuid4().hex}"
        self.count = 0
        self.destroyed = 0
        #: What is in the stream.
        self.present: set[str] = set()
        #: The last one that was given to anybody.
        self.last = 0
        #: Who was given what, and has not acknowledged it.
        self.pending: dict[str, str] = {}
        self.delivered: set[str] = set()
        self.acknowledged: set[str] = set()
        self.deleted: set[str] = set()
        self.lives: dict[str, Life] = {}

    @initialize(size=st.integers(1, 20))
    def create(self, size: int) -> None:
        self.client.xgroup_create(self.stream, "g", "0", mkstream=True)
        self.add(size)

    # -- what others do ------------------------------------------------------

    @rule(size=st.integers(1, 6))
    def add(self, size: int) -> None:
        for _ in range(size):
            self.count += 1
            self.client.xadd(self.stream, {"n": self.count}, f"{self.count}-0")
            self.present.add(f"{self.count}-0")

    @precondition(lambda self: self.present and self.count > 5 * len(self.deleted))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        entry_id = data.draw(st.sampled_from(sorted(self.present, key=key)))
        assert self.client.xdel(self.stream, entry_id) == 1
        self.present.discard(entry_id)
        self.deleted.add(entry_id)

    @precondition(lambda self: self.lives)
    @rule()
    def cut(self) -> None:
        """Cut every connection but the test's own."""
        self.client.client_kill_filter(_type="normal", skipme=True)

    @precondition(lambda self: self.delivered and self.destroyed < 2)
    @rule()
    def destroy(self) -> None:
        """Have the group vanish; whoever reads next makes it again, from the first entry on."""
        self.client.xgroup_destroy(self.stream, "g")
        self.destroyed += 1
        self.last = 0
        self.pending.clear()
        for life in self.lives.values():
            life.handed.clear()

    # -- iterators -----------------------------------------------------------

    @rule(
        consumer=consumers,
        batch_size=st.integers(1, 4),
        claim_idle_ms=st.sampled_from([None, 0, 1]),
        auto_ack=st.sampled_from([False, False, True]),
        counted=st.booleans(),
        steps=st.integers(0, 3),
        crashes=st.booleans(),
    )
    def work(self, consumer: str, steps: int, crashes: bool, **options: Any) -> None:
        """Have a consumer come back, its last life ended in order or not, and take batches."""
        self.live(consumer, **options)
        self.advance(consumer, steps)
        if crashes:
            # It is dropped as it stands, unacknowledged entries and all.
            self.lives.pop(consumer, None)

    def live(self, consumer: str, counted: bool, **options: Any) -> None:
        if consumer in self.lives:
            self.lives.pop(consumer).iterator.close()
        iterator = redis.iter_stream(
            self.server.url,
            self.stream,
            SCHEMA,
            block_ms=None,
            group="g",
            consumer=consumer,
            include_delivery_count=counted,
            **options,
        )
        self.lives[consumer] = Life(iterator, options)

    @precondition(lambda self: self.lives)
    @rule(consumer=consumers, steps=st.integers(1, 3))
    def advance(self, consumer: str, steps: int) -> None:
        for _ in range(steps):
            if consumer not in self.lives or not self.step(consumer):
                return

    def step(self, consumer: str) -> bool:
        """Take one batch and check it; whether there was one."""
        life = self.lives[consumer]
        new = [e for e in sorted(self.present, key=key) if key(e) > self.last]
        own = [e for e, owner in self.pending.items() if owner == consumer]
        own = [e for e in sorted(own, key=key) if e in self.present and e not in life.handed]
        try:
            df = next(life.iterator)
        except StopIteration:
            # It has caught up: nothing of its own or new was left. That was its life.
            assert own == []
            assert new == []
            self.lives.pop(consumer).iterator.close()
            self.settle()
            return False
        ids = df["_id"].to_list()
        assert df["n"].to_list() == [key(entry_id) for entry_id in ids]
        assert 1 <= len(ids) <= life.batch_size
        assert len(set(ids)) == len(ids)
        assert set(ids) <= self.present
        self.check_order(consumer, ids, own, new)
        if "_deliveries" in df.columns:
            for entry_id, times in df.select("_id", "_deliveries").iter_rows():
                assert times >= (2 if entry_id in self.pending else 1)
        self.hand_over(consumer, ids)
        return True

    def check_order(self, consumer: str, ids: list[str], own: list[str], new: list[str]) -> None:
        """Own pending entries come first, then others', then new ones, each in order."""
        life = self.lives[consumer]
        kinds = []
        for entry_id in ids:
            if key(entry_id) > self.last:
                kinds.append(2)
            else:
                owner = self.pending[entry_id]
                assert owner == consumer or life.claims
                # What it was handed in this life it is not handed again, unless it lost it to
                # another consumer meanwhile.
                assert owner != consumer or entry_id not in life.handed
                kinds.append(0 if owner == consumer else 1)
        assert kinds == sorted(kinds)
        for kind, expected in ((0, own), (2, new)):
            found = [e for e, k in zip(ids, kinds, strict=True) if k == kind]
            assert found == expected[: len(found)]
        if 1 in kinds or 2 in kinds:
            assert kinds.count(0) == len(own)
        if len(ids) < life.batch_size:
            assert kinds.count(2) == len(new)

    def hand_over(self, consumer: str, ids: list[str]) -> None:
        life = self.lives[consumer]
        for entry_id in ids:
            self.last = max(self.last, key(entry_id))
            for other in self.lives.values():
                other.handed.discard(entry_id)
            life.handed.add(entry_id)
            self.delivered.add(entry_id)
            self.pending[entry_id] = consumer
        life.last_batch = ids
        if life.auto_ack:
            self.forget(ids)
        self.settle()

    def forget(self, ids: list[str]) -> int:
        """Acknowledge in the model; how many were pending."""
        known = [e for e in ids if self.pending.pop(e, None) is not None]
        self.acknowledged.update(known)
        return len(known)

    def settle(self) -> None:
        """Take over what the server did to entries that are no longer in the stream.

        They may be acknowledged when they are found so, or be moved, and new ones may be passed.
        """
        there = self.listed()
        for entry_id in self.deleted:
            if entry_id in there:
                self.pending[entry_id] = there[entry_id]
            else:
                self.pending.pop(entry_id, None)
        self.last = max([self.last, *map(key, there)])

    # -- acknowledgement -----------------------------------------------------

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def ack_last_batch(self, data: st.DataObject) -> None:
        consumer = data.draw(st.sampled_from(sorted(self.lives)))
        life = self.lives[consumer]
        expected = self.forget(life.last_batch)
        # Those found deleted are acknowledged with the others.
        assert expected <= life.iterator.ack() <= expected + len(self.deleted)
        self.settle()

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def ack_some(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.pending, key=key)), min_size=1))
        expected = self.forget(ids)
        assert redis.ack_entries(self.server.url, self.stream, "g", ids) == expected

    # -- what must be so after every step ------------------------------------

    def listed(self) -> dict[str, str]:
        if not self.client.xinfo_groups(self.stream):
            return {}
        rows = self.client.xpending_range(self.stream, "g", "-", "+", 1000)
        return {row["message_id"].decode(): row["consumer"].decode() for row in rows}

    @invariant()
    def what_is_not_acknowledged_is_pending(self) -> None:
        assert self.listed() == self.pending

    @invariant()
    def nothing_is_acknowledged_that_was_not_delivered(self) -> None:
        assert self.acknowledged - self.deleted <= self.delivered

    def teardown(self) -> None:
        """In the end every entry was delivered to somebody, and nothing stays pending."""
        try:
            self.lives.clear()
            for consumer in CONSUMERS[:2]:
                self.live(consumer, counted=False, batch_size=3, claim_idle_ms=0, auto_ack=False)
                while self.step(consumer):
                    self.ack_all(consumer)
            assert self.present <= self.delivered
            assert self.present.isdisjoint(self.pending)
        finally:
            for life in self.lives.values():
                life.iterator.close()
            with contextlib.suppress(Exception):
                self.client.delete(self.stream)

    def ack_all(self, consumer: str) -> None:
        life = self.lives[consumer]
        self.forget(life.last_batch)
        life.iterator.ack()
        self.settle()


def run_on(server: Server, client: redis_py.Redis, examples: int) -> None:
    machine = type("Machine", (Group,), {"server": server, "client": client})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            # The same examples each time, so that a failure is that of a change.
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_group_behaves_as_its_model(any_client: redis_py.Redis, any_server: Server) -> None:
    run_on(any_server, any_client, 60)
