"""Cores are chosen by what the kernel says of them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.devices.affinity import big_cores, choose_cores, core_kinds, describe_cores, hex_mask
from finet_deploy.devices.phone_state import Core
from finet_deploy.errors import UsageError


def cores(*groups, **changes):
    """Groups of (count, capacity, MHz, part)."""
    found = []
    for count, capacity, clock, part in groups:
        for _ in range(count):
            implementer = None if part is None else 0x41
            fields = {"capacity": capacity, "max_mhz": clock, "part": part, "implementer": implementer}
            found.append(Core(index=len(found), online=True, **{**fields, **changes}))
    return found


SNAPDRAGON_855 = ((4, 239, 1785.6, 0xD05), (3, 858, 2419.2, 0xD0B), (1, 1024, 2841.6, 0xD0B))
KIRIN_980 = ((4, 427, 1805.0, 0xD05), (2, 762, 1920.0, 0xD0B), (2, 1024, 2600.0, 0xD0B))
SNAPDRAGON_710 = ((6, 427, 1708.8, 0xD05), (2, 1024, 2208.0, 0xD0A))
TWO_KINDS_OF_BIG = ((6, 842, 3532.8, 0x001), (2, 1024, 4320.0, 0x001))
ONE_KIND = ((8, 1024, 1800.0, 0xD03),)

PHONES = [
    (SNAPDRAGON_855, (4, 5, 6, 7)),
    (KIRIN_980, (4, 5, 6, 7)),
    (SNAPDRAGON_710, (6, 7)),
    (ONE_KIND, tuple(range(8))),
]


@pytest.mark.parametrize(("groups", "big"), PHONES)
def test_kinds_part_the_cores_that_are_online_and_one_kind_is_none(groups, big):
    found = core_kinds(cores(*groups))
    every = {core.index for core in cores(*groups)}
    assert found == ({} if set(big) == every else {"big": big, "little": tuple(sorted(every - set(big)))})
    some = [msgspec.structs.replace(core, online=core.index != 0) for core in cores(*groups)]
    assert 0 not in core_kinds(some).get("little", ())


@pytest.mark.parametrize(("groups", "expected"), [*PHONES, (TWO_KINDS_OF_BIG, tuple(range(8)))])
def test_big_cores_by_capacity(groups, expected):
    assert big_cores(cores(*groups))[0] == expected


@pytest.mark.parametrize(("groups", "expected"), PHONES)
def test_big_cores_by_core_type_without_capacities(groups, expected):
    assert big_cores(cores(*groups, capacity=None))[0] == expected


@pytest.mark.parametrize(("groups", "expected"), PHONES)
def test_big_cores_by_frequency_alone(groups, expected):
    assert big_cores(cores(*groups, capacity=None, part=None))[0] == expected


def test_nothing_known_means_all_cores():
    found, rule = big_cores(cores(*KIRIN_980, capacity=None, part=None, max_mhz=None))
    assert found == tuple(range(8))
    assert "nothing tells them apart" in rule


def test_offline_cores_are_neither_counted_nor_chosen():
    phone = cores(*SNAPDRAGON_855)
    phone[7] = Core(index=7, online=False)
    assert big_cores(phone)[0] == (4, 5, 6)
    assert choose_cores(phone, 1) == (6,)
    with pytest.raises(UsageError, match="7 cores online"):
        choose_cores(phone, 8)


def test_one_thread_means_exactly_the_fastest_core():
    assert choose_cores(cores(*SNAPDRAGON_855), 1) == (7,)
    assert hex_mask(choose_cores(cores(*SNAPDRAGON_855), 1)) == "80"
    assert choose_cores(cores(*SNAPDRAGON_855), 5) == (3, 4, 5, 6, 7)


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(1, 1024)),
            st.one_of(st.none(), st.floats(300, 5000)),
            st.booleans(),
        ),
        min_size=1,
        max_size=16,
    ),
    st.data(),
)
def test_as_many_cores_as_threads_all_online_big_ones_first(figures, data):
    phone = [Core(index=n, online=on, capacity=c, max_mhz=f) for n, (c, f, on) in enumerate(figures)]
    online = [core.index for core in phone if core.online]
    big, rule = big_cores(phone)
    assert rule
    assert set(big) <= set(online)
    assert bool(big) == bool(online)
    if not online:
        return
    threads = data.draw(st.integers(1, len(online)))
    chosen = choose_cores(phone, threads)
    assert len(set(chosen)) == threads
    assert set(chosen) <= set(online)
    assert set(chosen) <= set(big) if threads <= len(big) else set(big) <= set(chosen)
    assert sum(1 << core for core in chosen) == int(hex_mask(chosen), 16)


def test_the_mask_is_hexadecimal_without_prefix():
    assert hex_mask([4, 5, 6, 7]) == "f0"
    assert hex_mask([64]) == "10000000000000000"
    with pytest.raises(ValueError, match="no core"):
        hex_mask([])


def test_no_threads_are_refused():
    with pytest.raises(UsageError):
        choose_cores(cores(*ONE_KIND), 0)


def test_groups_are_described_fastest_first():
    assert (
        describe_cores(cores(*SNAPDRAGON_710)).value
        == "2 x 2208 MHz (6, 7) + 6 x 1708.8 MHz (0, 1, 2, 3, 4, 5)"
    )
    assert describe_cores([]).value is None
