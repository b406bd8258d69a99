#!/bin/bash
# Runs tests under a deadline: watchdog.sh MINUTES COMMAND... A test that hangs ends with its name:
# at the deadline this says which of the tests that libtest calls slow (over a minute) have not ended,
# and ends them all.
set -euo pipefail
minutes=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT

exec 3> >(exec tee "$log")
copying=$!
# In a process group of its own, so that the deadline ends everything that the tests have started;
# Ctrl-C has to be handed on to it.
timeout --kill-after=30 "${minutes}m" "$@" >&3 2>&1 &
tests=$!
exec 3>&-
trap 'kill "$tests" 2>/dev/null || true' INT TERM
status=0
wait "$tests" || status=$?
while kill -0 "$tests" 2>/dev/null; do wait "$tests" || status=$?; done
wait "$copying" || true

if [ "$status" = 124 ] || [ "$status" = 137 ]; then
	printf '\nThe tests did not end within %s minutes (TEST_MINUTES). These hang:\n' "$minutes"
	awk '/^test .* has been running for over/ { slow[$2] }
		/^test .* \.\.\. / { delete slow[$2] }
		END {
			for (name in slow) print "  " name
			if (!length(slow)) print "  none that libtest has named"
		}' "$log"
fi
exit "$status"
