//go:build tools

// Package tools pins the CoreDNS that dev/devcluster builds.
package tools

import _ "github.com/coredns/coredns"
