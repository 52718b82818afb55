#!/bin/sh
# run.sh REQUEST.json RECORDS.jsonl [--mark] [--outputs FILE] [--profile FILE]: one visit, with the loader and the
# libraries of this folder alone. Relative paths are the caller's. On a phone: `sh run.sh ...`.
case $0 in */*) here=${0%/*} ;; *) here=. ;; esac
case $here in *:* | *\;*) echo "run.sh: the folder's path has a ':' or ';' in it; move it: $here" >&2; exit 2 ;; esac
for loader in "$here"/lib/ld-linux-*.so.*; do :; done
unset LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT GLIBC_TUNABLES
export ORT_DISABLE_TELEMETRY=1
clock=
for word; do [ "$word" = --profile ] && clock=$here/lib/libfinet_clock.so; done
exec "$loader" --inhibit-cache --library-path "$here/lib" ${clock:+--preload "$clock"} "$here/bin/finet-runner" "$@"
