package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const apiServer = "apiserver"

// supervise starts the servers, reports when they are ready, and obeys until it is told to end.
// Whatever ends it, no server is left running.
func (c *cluster) supervise(start func() error) error {
	defer func() {
		for _, p := range c.processes {
			p.stop()
		}
	}()
	var ready atomic.Bool
	c.listen(&ready)
	if err := start(); err != nil {
		return err
	}
	line, err := json.Marshal(c.report())
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.file("cluster.json"), line, 0o600); err != nil {
		return err
	}
	ready.Store(true)
	fmt.Println(string(line))
	for {
		select {
		case <-c.stopped:
			return nil
		case p := <-c.died:
			return p.obituary()
		case command := <-c.commands:
			answer := map[string]string{"ok": command}
			if err := c.obey(command); err != nil {
				answer = map[string]string{"error": err.Error()}
			}
			line, err := json.Marshal(answer)
			if err != nil {
				return err
			}
			fmt.Println(string(line))
		}
	}
}

// listen closes c.stopped when a signal comes, standard input ends or the parent is gone. The parent
// counts by itself, as others may hold the writing end of standard input too.
func (c *cluster) listen(ready *atomic.Bool) {
	var once sync.Once
	stop := func() { once.Do(func() { close(c.stopped) }) }
	onSignal(stop)
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			c.commands <- lines.Text()
		}
		if !c.Detached || !ready.Load() {
			stop()
		}
	}()
	if !c.Detached {
		onParentGone(stop)
	}
}

// obey carries out "stop apiserver" and the like.
func (c *cluster) obey(command string) error {
	words := strings.Fields(command)
	if len(words) != 2 {
		return fmt.Errorf("a command is a verb and a server's name, not %q", command)
	}
	verb, name := words[0], words[1]
	p, found := c.processes[name]
	if !found {
		return fmt.Errorf("this cluster has no server %q", name)
	}
	switch verb {
	case "stop":
		p.stop()
	case "start":
		if p.running() {
			return fmt.Errorf("%s is running", name)
		}
		if err := c.start(name, p.path, p.args...); err != nil {
			return err
		}
		if name == apiServer {
			return c.awaitAPIServer()
		}
	case "pause":
		return p.cmd.Process.Signal(syscall.SIGSTOP)
	case "resume":
		return p.cmd.Process.Signal(syscall.SIGCONT)
	default:
		return fmt.Errorf("stop, start, pause or resume, not %q", verb)
	}
	return nil
}

func onSignal(do func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		for range signals {
			do()
		}
	}()
}

func onParentGone(do func()) {
	parent := os.Getppid()
	go func() {
		for os.Getppid() == parent {
			time.Sleep(500 * time.Millisecond)
		}
		do()
	}()
}
