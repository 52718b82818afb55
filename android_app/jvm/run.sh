#!/bin/sh
# run.sh REQUEST.json RECORDS.jsonl [--outputs FILE]: one visit of the app's own code on this machine's Java.
# Relative paths are the caller's. Ends with the process that started it, where setpriv is there to see to it.
case $0 in */*) here=${0%/*} ;; *) here=. ;; esac
case $here in *:*) echo "run.sh: the folder's path has a ':' in it; move it: $here" >&2; exit 2 ;; esac
unset JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS CLASSPATH
export ORT_DISABLE_TELEMETRY=1 LC_ALL=C.UTF-8
bound=
command -v setpriv > /dev/null && bound="setpriv --pdeathsig KILL"
# Serial collector and no shared performance data: nothing beside the visit that could be left out.
exec $bound java -XX:+UseSerialGC -XX:-UsePerfData -XX:+ErrorFileToStderr -Xshare:auto \
  -Donnxruntime.native.path="$here/native" -cp "$here/app.jar:$here/onnxruntime.jar" org.finetdeploy.jvm.Main "$@"
