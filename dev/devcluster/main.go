// Devcluster is the dev tool of spiffe-operator: it builds real Kubernetes and SPIRE servers, and helm,
// from pinned Go modules, starts throwaway clusters on this host, and makes and loads container images
// without Docker. Tests start it in the foreground and speak to it over standard input and output;
// the demo runs it in the background.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

const usage = `usage: devcluster COMMAND [FLAG]...

  build [control-plane|node|spire|client|all]...
                                      build the pinned servers and clients that are not in the cache yet;
                                      as root also install the packages that a node needs
  program NAME                        print the path of a pinned server or client, built if need be
  control-plane [--controller-manager] [--audit] [--apiserver-arg ARG]...
                                      etcd and kube-apiserver until standard input ends
  node [--audit] [--apiserver-arg ARG]...
                                      a whole single-node cluster until standard input ends (root)
  up | down | status [--dir DIR]      the same single-node cluster, in the background
  user --dir DIR --name NAME [--group GROUP]...
                                      print the path of a new kubeconfig for another user
  load [--dir DIR] FILE...            import image archives into a running single-node cluster
  image NAME:TAG --out FILE --entrypoint PATH [--user UID] FILE[=PATH]...
                                      write an image archive of programs and their libraries
  images --out DIR                    build the workload program and its image into DIR
  kubectl [--dir DIR] [ARG]...        the pinned kubectl, pointed at a running cluster

control-plane and node print one line of JSON when the cluster is ready and then take commands,
one a line, each answered by one line of JSON: stop, start, pause or resume, and a server's name.
`

func init() {
	// A child started with Pdeathsig dies with the thread that started it, not with the process.
	// All servers are started by the main goroutine, and the main thread lives as long as it does.
	runtime.LockOSThread()
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		if err == errReported {
			os.Exit(1)
		}
		fmt.Fprintln(os.Stderr, "devcluster:", err)
		os.Exit(1)
	}
}

func run(command string, args []string) error {
	flags := flag.NewFlagSet(command, flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	switch command {
	case "build":
		return buildGroups(args)
	case "program":
		return printProgram(args)
	case "control-plane":
		var o options
		flags.BoolVar(&o.ControllerManager, "controller-manager", false, "")
		o.addFlags(flags, args)
		return runControlPlane(o)
	case "node":
		o := options{ControllerManager: true}
		flags.StringVar(&o.Dir, "dir", "", "")
		flags.BoolVar(&o.Detached, "detached", false, "")
		o.addFlags(flags, args)
		return runNode(o)
	case "up", "down", "status":
		dir := dirFlag(flags)
		flags.Parse(args)
		return map[string]func(string) error{"up": up, "down": down, "status": status}[command](absolute(*dir))
	case "user":
		dir, name := flags.String("dir", "", ""), flags.String("name", "", "")
		var groups list
		flags.Var(&groups, "group", "")
		flags.Parse(args)
		return addUser(absolute(*dir), *name, groups)
	case "load":
		dir := dirFlag(flags)
		flags.Parse(args)
		return loadImages(absolute(*dir), flags.Args())
	case "image":
		return writeImageCommand(flags, args)
	case "images":
		out := flags.String("out", "", "")
		flags.Parse(args)
		return buildImages(*out)
	case "kubectl":
		return kubectl(args)
	case initCommand:
		return runInit(args)
	case superviseCommand:
		return superviseNode(args)
	case reapCommand:
		return reap(args)
	case "pause":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
		<-stop
		return nil
	case "help", "-h", "--help":
		fmt.Print(usage)
		return nil
	}
	return fmt.Errorf("there is no command %q; see devcluster help", command)
}

// list is a flag that may be given more than once.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

func dirFlag(flags *flag.FlagSet) *string { return flags.String("dir", demoDir(), "") }

func absolute(dir string) string {
	if path, err := filepath.Abs(dir); err == nil {
		return path
	}
	return dir
}

var (
	errStopped = errors.New("stopped before the cluster was ready")
	// errReported: a child has said on standard error what went wrong.
	errReported = errors.New("reported")
)
