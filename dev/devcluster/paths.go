package main

import (
	"os"
	"path/filepath"
)

// devDir is this repository's dev folder, set by dev/devcluster.sh when it builds the program.
var devDir string

func xdg(variable, fallback string) string {
	if dir := os.Getenv(variable); dir != "" {
		return filepath.Join(dir, "spiffe-operator")
	}
	return filepath.Join(os.Getenv("HOME"), fallback, "spiffe-operator")
}

func cacheDir() string { return xdg("XDG_CACHE_HOME", ".cache") }

func demoDir() string { return filepath.Join(xdg("XDG_STATE_HOME", ".local/state"), "demo") }
