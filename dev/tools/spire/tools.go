//go:build tools

// Package tools pins the SPIRE programs that dev/devcluster builds.
package tools

import (
	_ "github.com/spiffe/spire/cmd/spire-agent"
	_ "github.com/spiffe/spire/cmd/spire-server"
)
