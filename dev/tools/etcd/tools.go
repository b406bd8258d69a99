//go:build tools

// Package tools pins the etcd that dev/devcluster builds.
package tools

import _ "go.etcd.io/etcd/server/v3"
