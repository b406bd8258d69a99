package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// unified is a folder with the files of a unified hierarchy; what is written to one replaces it.
func unified(t *testing.T, controllers, enabled string) (root, record string) {
	t.Helper()
	root = t.TempDir()
	write(t, filepath.Join(root, "cgroup.controllers"), controllers)
	write(t, filepath.Join(root, subtreeControl), enabled)
	return root, filepath.Join(t.TempDir(), "cache", "record")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, path string, words ...string) {
	t.Helper()
	if found := readWords(path); !slices.Equal(found, words) {
		t.Errorf("%s holds %v, not %v", filepath.Base(path), found, words)
	}
}

func enable(t *testing.T, root, record, name string) {
	t.Helper()
	if err := enableControllers(root, record, name); err != nil {
		t.Fatal(err)
	}
}

func restore(t *testing.T, root, record string) {
	t.Helper()
	if err := restoreControllers(root, record); err != nil {
		t.Fatal(err)
	}
}

func TestTheLastClusterDisablesWhatClustersEnabled(t *testing.T) {
	root, record := unified(t, "cpu memory", "cpu")
	control := filepath.Join(root, subtreeControl)
	enable(t, root, record, cgroupName("a"))
	expect(t, control, "+memory")
	write(t, control, "cpu memory") // as the kernel shows it then
	enable(t, root, record, cgroupName("b"))
	expect(t, record, "memory")

	os.Remove(filepath.Join(root, cgroupName("a")))
	restore(t, root, record)
	expect(t, control, "cpu", "memory")
	os.Remove(filepath.Join(root, cgroupName("b")))
	if left := enabledForNobody(root, record); !slices.Equal(left, []string{"memory"}) {
		t.Errorf("down would not notice: %v", left)
	}
	restore(t, root, record)
	expect(t, control, "-memory")
	expect(t, record)
}

func TestWhatWasEnabledBeforeStays(t *testing.T) {
	root, record := unified(t, "cpu memory", "cpu memory")
	enable(t, root, record, cgroupName("a"))
	os.Remove(filepath.Join(root, cgroupName("a")))
	restore(t, root, record)
	expect(t, filepath.Join(root, subtreeControl), "cpu", "memory")
}

func TestARecordFromBeforeARestartOfTheHostIsForgotten(t *testing.T) {
	root, record := unified(t, "cpu memory", "cpu memory")
	os.MkdirAll(filepath.Dir(record), 0o700)
	write(t, record, "memory")
	enable(t, root, record, cgroupName("a"))
	expect(t, record)
}
