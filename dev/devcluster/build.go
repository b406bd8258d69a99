package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A server is a program that is built from one of the wrapper modules in dev/tools.
type server struct {
	name, group, tool, pkg string
	// What a first build took on two cores, so that nobody wonders whether it hangs.
	cold time.Duration
}

const (
	controlPlane = "control-plane"
	node         = "node"
	spire        = "spire"
	client       = "client"
)

var groups = []string{controlPlane, node, spire, client}

var servers = []server{
	{"etcd", controlPlane, "etcd", "go.etcd.io/etcd/server/v3", 20 * time.Second},
	{"kube-apiserver", controlPlane, "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", 4 * time.Minute},
	{"kubectl", controlPlane, "kubernetes", "k8s.io/kubernetes/cmd/kubectl", 20 * time.Second},
	{"kube-controller-manager", controlPlane, "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager", 30 * time.Second},
	{"kubelet", node, "kubernetes", "k8s.io/kubernetes/cmd/kubelet", 70 * time.Second},
	{"kube-scheduler", node, "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler", 10 * time.Second},
	{"kube-proxy", node, "kubernetes", "k8s.io/kubernetes/cmd/kube-proxy", 20 * time.Second},
	{"coredns", node, "coredns", "github.com/coredns/coredns", 90 * time.Second},
	{"spire-server", spire, "spire", "github.com/spiffe/spire/cmd/spire-server", 4 * time.Minute},
	{"spire-agent", spire, "spire", "github.com/spiffe/spire/cmd/spire-agent", 30 * time.Second},
	{"spire-controller-manager", spire, "spire-controller-manager", "github.com/spiffe/spire-controller-manager/cmd", 40 * time.Second},
	{"helm", client, "helm", "helm.sh/helm/v3/cmd/helm", 50 * time.Second},
}

func buildGroups(wanted []string) error {
	for _, group := range wanted {
		if group != "all" && !slices.Contains(groups, group) {
			return fmt.Errorf("there is no group %q: %s or all", group, strings.Join(groups, ", "))
		}
	}
	if len(wanted) == 0 || slices.Contains(wanted, "all") {
		wanted = groups
	}
	// What a node needs of the host, where this may install it; who may not is told when a node starts.
	if slices.Contains(wanted, node) && os.Geteuid() == 0 {
		if err := install(nodeTools); err != nil {
			return err
		}
	}
	for _, group := range wanted {
		if err := build(group); err != nil {
			return err
		}
	}
	return nil
}

// build makes every server of a group that is missing.
func build(group string) error {
	if err := checkAssets(group); err != nil {
		return err
	}
	for _, s := range servers {
		if !s.isOf(group) {
			continue
		}
		if _, err := s.ensure(group); err != nil {
			return err
		}
	}
	return nil
}

// isOf: a single-node cluster has a control plane too.
func (s server) isOf(group string) bool {
	return s.group == group || group == node && s.group == controlPlane
}

// ensure builds a server unless it is there, and gives its path.
func (s server) ensure(group string) (string, error) {
	path, err := s.path(group)
	if err != nil || exists(path) {
		return path, err
	}
	return path, s.build(path)
}

// printProgram prints the path of a pinned program, which is built first if it is not in the cache.
func printProgram(args []string) error {
	if len(args) != 1 {
		return errors.New("program needs the name of one program")
	}
	for _, s := range servers {
		if s.name == args[0] {
			path, err := s.ensure(s.group)
			if err == nil {
				fmt.Println(path)
			}
			return err
		}
	}
	return fmt.Errorf("there is no pinned program %q", args[0])
}

// binary is the path of a server for a cluster of this group, which build has made or found.
func binary(group, name string) string {
	for _, s := range servers {
		if s.name == name {
			if path, err := s.path(group); err == nil {
				return path
			}
		}
	}
	return name
}

// assets is the folder of the user's own servers, or "". They serve a bare control plane only: an
// older kube-apiserver under the pinned kubelet would be a cluster that Kubernetes does not support.
func assets(group string) string {
	if group == controlPlane {
		return os.Getenv("KUBEBUILDER_ASSETS")
	}
	return ""
}

// checkAssets tells a wrong path from a folder that lacks what may be built.
func checkAssets(group string) error {
	folder := assets(group)
	if folder == "" {
		return nil
	}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if !exists(filepath.Join(folder, name)) {
			return fmt.Errorf("there is no %s in KUBEBUILDER_ASSETS=%s: correct the path, or unset it to build the pinned servers", name, folder)
		}
	}
	return nil
}

func (s server) path(group string) (string, error) {
	if folder := assets(group); folder != "" {
		if path := filepath.Join(folder, s.name); exists(path) {
			return path, nil
		}
	}
	version, err := s.version()
	if err != nil {
		return "", err
	}
	return filepath.Join(cacheDir(), "bin", s.tool+"-"+version, s.name), nil
}

func (s server) version() (string, error) {
	gomod, err := os.ReadFile(filepath.Join(s.moduleDir(), "go.mod"))
	if err != nil {
		return "", err
	}
	found := regexp.MustCompile(`(?m)^require (\S+) (v\S+)$`).FindSubmatch(gomod)
	if found == nil {
		return "", fmt.Errorf("%s/go.mod requires no pinned version", s.moduleDir())
	}
	return string(found[2]), nil
}

func (s server) moduleDir() string { return filepath.Join(devDir, "tools", s.tool) }

// build compiles under a temporary name, so that an interrupted build never looks like a finished
// one, and under a lock, so that two callers do not do the same work at once.
func (s server) build(path string) error {
	unlock, err := lockSetup()
	if err != nil {
		return err
	}
	defer unlock()
	if exists(path) {
		return nil
	}
	version, err := s.version()
	if err != nil {
		return err
	}
	progress("building %s %s from source, as it is not in the cache: about %s on two cores", s.name, version, s.cold)
	ldflags := "-s -w"
	if s.tool == "kubernetes" {
		// Clients parse the version that the server reports.
		numbers := strings.Split(strings.TrimPrefix(version, "v"), ".")
		const pkg = "k8s.io/component-base/version"
		ldflags += fmt.Sprintf(" -X %s.gitVersion=%s -X %s.gitMajor=%s -X %s.gitMinor=%s", pkg, version, pkg, numbers[0], pkg, numbers[1])
	}
	started := time.Now()
	if err := goBuild(s.moduleDir(), path, s.pkg, ldflags); err != nil {
		return fmt.Errorf("cannot build %s %s: %w", s.name, version, err)
	}
	progress("built %s in %s", s.name, time.Since(started).Round(time.Second))
	return nil
}

func goBuild(dir, out, pkg, ldflags string, env ...string) error {
	if _, err := exec.LookPath("go"); err != nil {
		return errors.New("Go 1.26 or later is needed on PATH")
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", ldflags, "-o", out+".tmp", pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	// An interrupted caller gives up the lock, so its compiler must not go on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w; what it said is above", err)
	}
	return os.Rename(out+".tmp", out)
}

// lockSetup keeps builds and package installations of several callers apart. The kernel drops the
// lock with the process, so an interrupted caller blocks nobody.
func lockSetup() (unlock func(), err error) {
	if err := os.MkdirAll(cacheDir(), 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(cacheDir(), "setup.lock"))
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		progress("waiting for another build to finish")
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
			return nil, err
		}
	}
	return func() { file.Close() }, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

var began = time.Now()

// progress tells what is being done; standard output is for results.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "[%6.1fs] %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}
