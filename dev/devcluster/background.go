package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const pidFile = "supervisor.pid"

// up starts a single-node cluster in the background, unless it is there already, and waits for it.
func up(dir string) error {
	if r, err := readReport(dir); err == nil && locked(dir) {
		progress("the cluster is up already")
		fmt.Print(howToUse(r))
		return nil
	}
	if err := provideNode(); err != nil {
		return err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	// The lock is ours, so whatever is here is what an interrupted cluster left.
	if err := clean(dir); err != nil {
		return err
	}
	lock.Close()
	if lock, err = lockDir(dir); err != nil {
		return err
	}
	return startInBackground(dir, lock)
}

func startInBackground(dir string, lock *os.File) error {
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o700); err != nil {
		return err
	}
	// A file, not our own standard error: whoever reads that waits for its end.
	log, err := os.Create(filepath.Join(dir, "log", "supervisor.log"))
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "node", "--detached", "--dir", dir)
	cmd.Stderr = log
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// Until the cluster is ready, it ends with this pipe: by Ctrl-C, and also if we are killed.
	alive, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	answer, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lock.Close()
	if err := os.WriteFile(filepath.Join(dir, pidFile), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return err
	}
	onSignal(func() { alive.Close() })
	shown := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		follow(log.Name(), ended)
		close(shown)
	}()
	_, failure := bufio.NewReader(answer).ReadString('\n')
	if failure != nil {
		cmd.Wait()
	}
	close(ended)
	<-shown
	if failure != nil {
		return errors.New("the cluster did not come up and has been taken down")
	}
	r, err := readReport(dir)
	if err != nil {
		return err
	}
	fmt.Print(howToUse(r))
	return nil
}

// follow copies a growing file to standard error until there will be no more of it.
func follow(path string, ended <-chan struct{}) {
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer file.Close()
	for {
		select {
		case <-ended:
			io.Copy(os.Stderr, file)
			return
		case <-time.After(100 * time.Millisecond):
			io.Copy(os.Stderr, file)
		}
	}
}

func howToUse(r report) string {
	return fmt.Sprintf("export KUBECONFIG=%s\n", r.Kubeconfig)
}

// down ends the cluster, however far it came up and whatever became of its supervisor.
func down(dir string) error {
	for end := time.Now().Add(2 * time.Minute); locked(dir); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("the cluster in %s does not end", dir)
		}
		if pid := supervisor(dir); pid != 0 {
			syscall.Kill(pid, syscall.SIGTERM)
		}
	}
	if err := clean(dir); err != nil {
		return err
	}
	if left := leftovers(dir); len(left) != 0 {
		return fmt.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	progress("nothing of the cluster is left")
	return nil
}

// supervisor is the process that runs the cluster, or 0. It guards against another process that has
// got the number of a dead supervisor.
func supervisor(dir string) int {
	content, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err != nil {
		return 0
	}
	command, err := os.ReadFile(filepath.Join("/proc", string(content), "cmdline"))
	if err != nil || !strings.Contains(string(command), "--detached\x00--dir\x00"+dir+"\x00") {
		return 0
	}
	pid, _ := strconv.Atoi(string(content))
	return pid
}

func status(dir string) error {
	r, err := readReport(dir)
	if err != nil {
		return err
	}
	if !locked(dir) {
		return fmt.Errorf("the cluster in %s was interrupted; down clears it away", dir)
	}
	fmt.Printf("the cluster is up: %s, supervised by process %d\n%s", r.Server, r.Pid, howToUse(r))
	return nil
}

var errLocked = errors.New("another up or down is at work on this cluster, or it is up")

// lockDir makes the folder and locks it. The lock is held by the supervisor and its reaper, so that
// who gets it knows that both are gone.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		file.Close()
		return nil, errLocked
	}
	return file, nil
}

func locked(dir string) bool {
	file, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer file.Close()
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
}

// kubectl is the pinned one, pointed at the background cluster, or at the one in the folder that
// --dir as the first argument names, and at no other.
func kubectl(args []string) error {
	dir := demoDir()
	if len(args) >= 2 && args[0] == "--dir" {
		dir, args = absolute(args[1]), args[2:]
	}
	r, err := readReport(dir)
	if err != nil {
		return err
	}
	os.Setenv("KUBECONFIG", r.Kubeconfig)
	group := controlPlane
	if r.ContainerdSocket != "" {
		group = node
	}
	return syscall.Exec(binary(group, "kubectl"), append([]string{"kubectl"}, args...), os.Environ())
}
