package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestWithoutAClusterStatusSaysSoAndDownIsFine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	err := status(dir)
	if err == nil || !strings.Contains(err.Error(), "no cluster is running in "+dir) {
		t.Errorf("status says %v", err)
	}
	if err := down(dir); err != nil {
		t.Errorf("down: %v", err)
	}
	if err := kubectl([]string{"--dir", dir, "get", "pods"}); err == nil {
		t.Error("kubectl has a cluster to talk to")
	}
	if err := loadImages(dir, []string{"image.tar"}); err == nil {
		t.Error("images can be loaded")
	}
	if exists(dir) {
		t.Error("the folder has been made")
	}
}

func TestAnInterruptedClusterIsSeenAndClearedAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	lock, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "cluster.json"), `{"server": "https://127.0.0.1:1", "pid": 1}`)
	// A number that some other process has by now.
	write(t, filepath.Join(dir, pidFile), "1")
	if err := status(dir); err != nil {
		t.Errorf("locked, so it is up: %v", err)
	}
	if _, err := lockDir(dir); err != errLocked {
		t.Errorf("locked twice: %v", err)
	}
	lock.Close()
	if err := status(dir); err == nil || !strings.Contains(err.Error(), "down clears it away") {
		t.Errorf("status says %v", err)
	}
	if pid := supervisor(dir); pid != 0 {
		t.Errorf("process %d would be killed", pid)
	}
	if err := down(dir); err != nil || exists(dir) {
		t.Errorf("down: %v", err)
	}
}
