package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A process is one server of a cluster. It never outlives the supervisor that started it.
type process struct {
	name, path string
	args       []string
	log        string
	cmd        *exec.Cmd
	gone       chan struct{}
	stopping   atomic.Bool
}

// start runs a server; its death is an error unless stop asked for it.
func (c *cluster) start(name, path string, args ...string) error {
	p := &process{name: name, path: path, args: args, log: filepath.Join(c.Dir, "log", name+".log"), gone: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command(path, args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// A group of its own: Ctrl-C in a terminal is for the supervisor, which takes the servers down.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	c.processes[name] = p
	go func() {
		p.cmd.Wait()
		close(p.gone)
		if !p.stopping.Load() {
			c.died <- p
		}
	}()
	return nil
}

// stop kills: kube-apiserver takes up to a minute to leave politely while watches are open.
func (p *process) stop() {
	p.stopping.Store(true)
	p.cmd.Process.Kill()
	<-p.gone
}

func (p *process) running() bool {
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// obituary is the error that tells why a server is gone.
func (p *process) obituary() error {
	return fmt.Errorf("%s ended (%s); the end of its log:\n%s", p.name, p.cmd.ProcessState, tail(p.log))
}

func tail(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	const enough = 3000
	if info, err := file.Stat(); err == nil && info.Size() > enough {
		file.Seek(-enough, io.SeekEnd)
	}
	content, _ := io.ReadAll(file)
	return strings.TrimSpace(string(content))
}

// await polls until ready returns no error, and gives up early when a server dies or the caller
// wants the cluster stopped.
func (c *cluster) await(what string, limit time.Duration, ready func() error) error {
	deadline := time.After(limit)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-c.stopped:
			return errStopped
		case p := <-c.died:
			return p.obituary()
		case <-deadline:
			return fmt.Errorf("%s not ready after %s: %w", what, limit, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
