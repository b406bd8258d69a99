//go:build tools

// Package tools pins the helm that dev/devcluster builds.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
