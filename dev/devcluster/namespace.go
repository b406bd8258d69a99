package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

const (
	initCommand      = "init"
	superviseCommand = "supervise"
)

// extraFile is the first file that a child inherits beside its standard ones.
const extraFile = 3

// runNode is a single-node cluster in the foreground. The whole cluster lives in process, mount and
// network namespaces of its own. So any number of them run side by side with the same ports and
// addresses, nothing of the host changes, and when the first process of the namespaces dies, the
// kernel kills every other one, containers too, and takes away all mounts and networks.
func runNode(o options) error {
	lock, err := prepareNode(&o)
	if err != nil {
		return err
	}
	// Users of the cluster connect here, on the host; the supervisor inside accepts and forwards.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	entrance, err := listener.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	o.Pid, o.Port = os.Getpid(), listener.Addr().(*net.TCPAddr).Port
	listener.Close()

	reaper, err := startReaper(o.Dir, lock)
	if err != nil {
		return err
	}
	defer reaper.finish()
	request, err := json.Marshal(o)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, initCommand, superviseCommand, string(request))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{entrance}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot make namespaces for the cluster: %w", err)
	}
	entrance.Close()
	onSignal(func() { cmd.Process.Signal(syscall.SIGTERM) })
	if !o.Detached {
		onParentGone(func() { cmd.Process.Signal(syscall.SIGTERM) })
	}
	if cmd.Wait() != nil {
		return errReported
	}
	return nil
}

// prepareNode fetches what a node needs and settles the cluster's folder, which up has made and
// locked when it is the caller.
func prepareNode(o *options) (lock *os.File, err error) {
	if err := provideNode(); err != nil {
		return nil, err
	}
	if o.Detached {
		syscall.CloseOnExec(extraFile)
		return os.NewFile(extraFile, o.Dir), nil
	}
	o.Dir, err = os.MkdirTemp("", "devcluster-")
	return nil, err
}

func provideNode() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("a node runs containers, for which this must be run as root")
	}
	if err := install(nodeTools); err != nil {
		return err
	}
	return build(node)
}

// runInit is the first process of the namespaces. It starts the supervisor, collects orphans, which
// fall to it, and ends with the supervisor.
func runInit(args []string) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	entrance := os.NewFile(extraFile, "entrance")
	child, err := os.StartProcess(self, append([]string{self}, args...), &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, entrance},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return err
	}
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	go func() {
		for range terminate {
			syscall.Kill(child.Pid, syscall.SIGTERM)
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if pid == child.Pid {
			os.Exit(status.ExitStatus())
		}
	}
}

// forward carries connections from the host's loopback interface to the API server inside.
func forward(entrance net.Listener, to string) {
	for {
		outside, err := entrance.Accept()
		if err != nil {
			return
		}
		go func() {
			defer outside.Close()
			inside, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer inside.Close()
			go pour(inside, outside)
			pour(outside, inside)
		}()
	}
}

// pour copies one direction and passes its end on.
func pour(to, from net.Conn) {
	io.Copy(to, from)
	to.(*net.TCPConn).CloseWrite()
}
