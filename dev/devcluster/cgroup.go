package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"
)

const (
	cgroupRoot     = "/sys/fs/cgroup"
	cgroupPrefix   = "devcluster-"
	subtreeControl = "cgroup.subtree_control"
)

// cgroupName is the control group under which the pods of the cluster in this folder run.
func cgroupName(dir string) string {
	return fmt.Sprintf("%s%x", cgroupPrefix, sha256.Sum256([]byte(dir)))[:len(cgroupPrefix)+12]
}

// makeCgroups makes the group under which this cluster's pods run, in every hierarchy.
func (c *cluster) makeCgroups() error {
	name := cgroupName(c.Dir)
	if exists(filepath.Join(cgroupRoot, "cgroup.controllers")) {
		return enableControllers(cgroupRoot, controllersRecord(), name)
	}
	hierarchies, err := filepath.Glob(cgroupRoot + "/*/cgroup.procs")
	if err != nil {
		return err
	}
	for _, hierarchy := range hierarchies {
		if err := os.MkdirAll(filepath.Join(filepath.Dir(hierarchy), name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// controllersRecord is the file that says which controllers clusters have enabled in the root of the
// unified hierarchy, where all clusters of the host share them. Who holds its lock may change both.
func controllersRecord() string { return filepath.Join(cacheDir(), "cgroup-controllers") }

// enableControllers makes a group with all controllers that there are, and records which of them
// the root had not handed down before.
func enableControllers(root, record, name string) error {
	file, err := lockRecord(record)
	if err != nil {
		return err
	}
	defer file.Close()
	added := []string{}
	// With no other cluster about, the record is from before a restart of the host.
	if groups, _ := filepath.Glob(filepath.Join(root, cgroupPrefix+"*")); len(groups) != 0 {
		added = readWords(record)
	}
	enabled := readWords(filepath.Join(root, subtreeControl))
	for _, controller := range readWords(filepath.Join(root, "cgroup.controllers")) {
		if slices.Contains(enabled, controller) || slices.Contains(added, controller) {
			continue
		}
		added = append(added, controller)
		// Written down before it is done, so that whoever is killed in between leaves no more than a
		// word too many. Best effort: kubelet names the controllers that it misses.
		if err := writeWords(file, added); err != nil {
			return err
		}
		os.WriteFile(filepath.Join(root, subtreeControl), []byte("+"+controller), 0)
	}
	if err := writeWords(file, added); err != nil {
		return err
	}
	return os.MkdirAll(filepath.Join(root, name), 0o755)
}

// restoreControllers takes back what enableControllers did, when the last cluster is gone. What
// somebody else has come to use in the meantime stays.
func restoreControllers(root, record string) error {
	if !exists(record) {
		return nil
	}
	file, err := lockRecord(record)
	if err != nil {
		return err
	}
	defer file.Close()
	for _, controller := range enabledForNobody(root, record) {
		err := os.WriteFile(filepath.Join(root, subtreeControl), []byte("-"+controller), 0)
		if err != nil && !errors.Is(err, syscall.EBUSY) {
			return err
		}
	}
	if groups, _ := filepath.Glob(filepath.Join(root, cgroupPrefix+"*")); len(groups) != 0 {
		return nil
	}
	return writeWords(file, nil)
}

// enabledForNobody are the recorded controllers that are still enabled although no cluster is left.
func enabledForNobody(root, record string) []string {
	if groups, _ := filepath.Glob(filepath.Join(root, cgroupPrefix+"*")); len(groups) != 0 {
		return nil
	}
	enabled := readWords(filepath.Join(root, subtreeControl))
	return slices.DeleteFunc(readWords(record), func(controller string) bool {
		return !slices.Contains(enabled, controller)
	})
}

func lockRecord(record string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(record), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(record, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func readWords(path string) []string {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(content))
}

func writeWords(file *os.File, words []string) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt([]byte(strings.Join(words, " ")), 0)
	return err
}

// cgroups finds the cluster's group in every hierarchy, of version 1 and 2.
func cgroups(dir string) []string {
	groups, _ := filepath.Glob(cgroupRoot + "/*/" + cgroupName(dir))
	unified, _ := filepath.Glob(cgroupRoot + "/" + cgroupName(dir))
	return append(groups, unified...)
}

func removeCgroup(group string) error {
	var groups []string
	filepath.WalkDir(group, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			groups = append(groups, path)
		}
		return nil
	})
	sort.Sort(sort.Reverse(sort.StringSlice(groups)))
	for _, path := range groups {
		if err := syscall.Rmdir(path); err != nil && err != syscall.ENOENT {
			return fmt.Errorf("remove control group %s: %w", path, err)
		}
	}
	return nil
}
