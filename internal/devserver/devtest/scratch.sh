#!/bin/sh
# Prints the directory below which tests write best: memory, if there is plenty and programs may be
# started there, else the usual one. Tests make tens of thousands of small files, need none of them
# afterwards, and never lose power: on a disk, that alone is half of ClickHouse's work.
shm=/dev/shm
plenty=4194304 # KiB: far more than the tests have at any time
free=$(df -Pk "$shm" 2>/dev/null | awk 'NR == 2 {print $4}')
memory=$(awk '$1 == "MemAvailable:" {print $2}' /proc/meminfo 2>/dev/null)
options=$(awk -v at="$shm" '$2 == at {print $4}' /proc/mounts 2>/dev/null | tail -n 1)
if [ -w "$shm" ] && [ "${free:-0}" -ge "$plenty" ] && [ "${memory:-0}" -ge $((2 * plenty)) ] &&
	case ",$options," in *,noexec,*) false ;; esac; then
	echo "$shm"
else
	echo "${TMPDIR:-/tmp}"
fi
