package main

import (
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
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
	if err := restoreControllers(cgroupRoot, controllersRecord()); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// leftovers looks for anything that should have gone with the cluster in this folder.
func leftovers(dir string) []string {
	found := cgroups(dir)
	for _, controller := range enabledForNobody(cgroupRoot, controllersRecord()) {
		found = append(found, "the controller "+controller+" in "+filepath.Join(cgroupRoot, subtreeControl))
	}
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
