#!/bin/sh
# Runs dev/devcluster, which is built first when its sources have changed.
set -eu
dev=$(cd "$(dirname "$0")" && pwd)
key=$(cd "$dev/devcluster" && { echo "$dev"; cat go.mod ./*.go; } | sha256sum | cut -c1-16)
program=${XDG_CACHE_HOME:-$HOME/.cache}/spiffe-operator/bin/devcluster-$key
if [ ! -x "$program" ]; then
	command -v go >/dev/null || { echo "devcluster: Go 1.26 or later is needed on PATH" >&2; exit 1; }
	(cd "$dev/devcluster" && CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "-X main.devDir=$dev" -o "$program.$$" . && mv "$program.$$" "$program")
fi
exec "$program" "$@"
