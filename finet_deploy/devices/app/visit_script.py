"""The script that runs one visit in the app: a job like any other of `remote_job.py`, which waits for the app.

It runs as adb's shell: it hands the request over, starts the service, waits for the records to get their name, and
takes them out of the app's folder. While it waits it costs the phone one `sleep` a second.

A process that died before it was seen leaves no number to wait for: its records that do not grow, or the activity
manager's log, tell. They are asked when it did not come up within a second, so that no quick start is disturbed.
"""

from __future__ import annotations

from collections.abc import Sequence

from finet_deploy.bench.protocol import UNFINISHED
from finet_deploy.devices.adb.connection import quote
from finet_deploy.devices.app.names import APP_FILES, PACKAGE, PROCESS, SERVICE

__all__ = [
    "ABSENT",
    "DECLINED",
    "LATE",
    "PID_FILE",
    "REFUSED",
    "REPLACED",
    "SINCE_FILE",
    "UNREADY",
    "VANISHED",
    "app_job_folder",
    "visit_script",
]

UNREADY, REPLACED, REFUSED, ABSENT, VANISHED, LATE, DECLINED = range(20, 27)  # exit statuses
PID_FILE, SINCE_FILE = "app.pid", "since"
START_SECONDS = 15
REFUSED_SUFFIX = ".refused"  # the app adds it to the records' name: why there are none

# The folder is the shell's: the app may write to it because of its mode, or because the file system derives modes
# from the place (sdcardfs). n counts tenths of a second.
SCRIPT = """\
a={app}
mkdir -p "$a" && cp request.json "$a/" || exit {UNREADY}
chmod 777 {jobs} "$a" 2>/dev/null; chmod 666 "$a/request.json" 2>/dev/null
[ "$(pm path {package} 2>/dev/null)" = {listing} ] || {{ rm -rf "$a"; exit {REPLACED}; }}
if pidof {process} >/dev/null; then am force-stop {package}; sleep 1; fi
date '+%Y-%m-%d %H:%M:%S' > {since}
t=$(cut -c 6- {since}).000
died() {{
  [ -e "$a/records.jsonl{unfinished}" ] && return
  logcat -d -b events -t "$t" 2>/dev/null | grep -qE 'am_(proc_died|kill|crash).*{process},'
}}
am start-foreground-service {extras} > am 2>&1
s=$?
cat am
if [ $s -ne 0 ] || grep -qE '^(Error|Exception)|SecurityException' am; then rm -rf "$a"; exit {REFUSED}; fi
e= p= n=0
while [ ! -e "$a/records.jsonl" ] && [ ! -e "$a/records.jsonl{refused}" ]; do
  if [ $n -ge {limit} ]; then e={LATE}; break; fi
  if [ -z "$p" ]; then
    p=$(pidof {process}); p=${{p%% *}}
    if [ -n "$p" ]; then echo "$p" > {pid}.tmp && mv -f {pid}.tmp {pid}
    elif [ $n -ge {start} ]; then e={ABSENT}; break
    elif [ $n -ge 10 ] && [ $((n % 10)) -eq 0 ] && died && ! pidof {process} >/dev/null; then
      [ -e "$a/records.jsonl" ] || [ -e "$a/records.jsonl{refused}" ] || e={VANISHED}
      break
    else sleep 0.2; fi
    n=$((n+2))
  elif [ ! -d "/proc/$p" ]; then
    [ -e "$a/records.jsonl" ] || [ -e "$a/records.jsonl{refused}" ] || e={VANISHED}
    break
  else sleep 1; n=$((n+10)); fi
done
n=0
while [ -z "$e" ] && [ -n "$p" ] && [ -d "/proc/$p" ] && [ $n -lt 25 ]; do sleep 0.2; n=$((n+1)); done
if pidof {process} >/dev/null; then am force-stop {package}; fi
cp "$a"/records.jsonl* "$a"/outputs* . 2>/dev/null
rm -rf "$a"
[ -z "$e" ] || exit $e
[ -e records.jsonl ] || {{ cat records.jsonl{refused}; exit {DECLINED}; }}
tail -n 1 records.jsonl | grep -q '"type":"end"' && exit 0
exit 1
"""


def app_job_folder(id: str) -> str:
    """A job's folder in the app's own."""
    return f"{APP_FILES}/jobs/{id}"


def visit_script(id: str, *, listing: Sequence[str], outputs: bool, seconds: float) -> str:
    """Shell commands for the job `id`, in its folder. listing: `pm path` of the app that is to run.

    seconds: for the visit. Exit status 0: the records end with `end`; 1: with `invalid`; above: see the names here.
    """
    jobs = f"{APP_FILES}/jobs"
    extras = ["-n", SERVICE, "--es", "request", f"jobs/{id}/request.json"]
    extras += ["--es", "records", f"jobs/{id}/records.jsonl"]
    extras += ["--es", "outputs", f"jobs/{id}/outputs"] if outputs else []
    return SCRIPT.format(
        app=quote(app_job_folder(id)),
        jobs=quote(jobs),
        package=PACKAGE,
        process=PROCESS,
        listing=quote("\n".join(listing)),
        extras=quote(*extras),
        since=SINCE_FILE,
        pid=PID_FILE,
        limit=max(10, round(10 * seconds)),
        start=10 * START_SECONDS,
        UNREADY=UNREADY,
        REPLACED=REPLACED,
        REFUSED=REFUSED,
        ABSENT=ABSENT,
        VANISHED=VANISHED,
        LATE=LATE,
        DECLINED=DECLINED,
        refused=REFUSED_SUFFIX,
        unfinished=UNFINISHED,
    )
