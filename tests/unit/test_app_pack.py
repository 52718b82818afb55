"""The APK's zip: the same bytes each time, libraries on pages, nothing lost."""

from __future__ import annotations

import io
import zipfile

from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.app.pack import PAGE, WORD, Entry, pack, stored_offsets

NAMES = st.text(alphabet="abcü/._-", min_size=1, max_size=30)
FILES = st.dictionaries(
    st.one_of(NAMES, NAMES.map(lambda name: f"lib/{name}.so")),
    st.builds(Entry, data=st.binary(max_size=3000), stored=st.booleans()),
    max_size=8,
)


@given(files=FILES)
def test_every_entry_comes_back_and_the_stored_ones_are_aligned(files):
    data = pack(files)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(files)
        assert {name: archive.read(name) for name in files} == {
            name: entry.data for name, entry in files.items()
        }
    offsets = stored_offsets(data)
    assert set(offsets) == {name for name, entry in files.items() if entry.stored}
    for name, offset in offsets.items():
        assert offset % (PAGE if name.endswith(".so") else WORD) == 0
        assert data[offset : offset + len(files[name].data)] == files[name].data


@given(files=FILES)
def test_the_order_in_which_files_are_found_makes_no_difference(files):
    assert pack(files) == pack(dict(reversed(files.items())))


def test_no_trace_of_the_machine_is_left():
    data = pack({"a": Entry(b"x"), "lib/b.so": Entry(b"y", stored=True)})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            assert info.date_time == (1981, 1, 1, 1, 1, 2)
            assert (info.create_system, info.external_attr) == (0, 0o644 << 16)
