package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

const reapCommand = "reap"

// A reaper is a small process that removes what a cluster leaves in the file system as soon as the
// supervisor is gone, however it ended. Processes, mounts and networks need no reaper: the kernel
// removes them.
type reaper struct {
	cmd   *exec.Cmd
	alive io.Closer
}

// startReaper runs a reaper that holds the folder's lock, if there is one, until it has finished.
func startReaper(dir string, lock *os.File) (*reaper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r := &reaper{cmd: exec.Command(self, reapCommand, dir)}
	r.cmd.Stderr = os.Stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if lock != nil {
		r.cmd.ExtraFiles = []*os.File{lock}
	}
	if r.alive, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return r, r.cmd.Start()
}

func (r *reaper) finish() {
	r.alive.Close()
	r.cmd.Wait()
}

func reap(args []string) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	io.Copy(io.Discard, os.Stdin)
	return clean(args[0])
}

// clean removes a cluster's folder and control groups. Both resist for as long as dying processes use
// them.
func clean(dir string) error {
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = removeOnce(dir); err == nil {
			return nil
		}
	}
	return err
}

func removeOnce(dir string) error {
	for _, group := range cgroups(dir) {
		if err := removeCgroup(group); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// cgroupName is the control group under which the pods of the cluster in this folder run.
func cgroupName(dir string) string {
	return fmt.Sprintf("devcluster-%x", sha256.Sum256([]byte(dir)))[:len("devcluster-")+12]
}

// cgroups finds the cluster's group in every hierarchy, of version 1 and 2.
func cgroups(dir string) []string {
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + cgroupName(dir))
	unified, _ := filepath.Glob("/sys/fs/cgroup/" + cgroupName(dir))
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

// leftovers looks for anything that should have gone with the cluster in this folder.
func leftovers(dir string) []string {
	found := cgroups(dir)
	if exists(dir) {
		found = append(found, dir)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err == nil {
		for line := range strings.Lines(string(mounts)) {
			if strings.Contains(line, dir+"/") {
				found = append(found, "mount "+strings.TrimSpace(line))
			}
		}
	}
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range commands {
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), dir+"/") {
			found = append(found, "process "+filepath.Base(filepath.Dir(path)))
		}
	}
	return found
}
