package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// A tool is a program that comes from a Debian package, or is already there under one of the paths.
type tool struct {
	pkg   string
	paths []string
}

var (
	nodeTools = []tool{
		{"containerd", []string{"containerd"}},
		{"containerd", []string{"ctr"}},
		{"runc", []string{"runc"}},
		{"containernetworking-plugins", []string{"/usr/lib/cni/ptp", "/opt/cni/bin/ptp"}},
		{"nftables", []string{"nft"}},
		{"iproute2", []string{"ip"}},
	}
	busybox       = tool{"busybox-static", []string{"busybox"}}
	openssl       = tool{"openssl", []string{"openssl"}}
	workloadTools = []tool{busybox, openssl}
)

func (t tool) path() (string, bool) {
	for _, name := range t.paths {
		if path, err := exec.LookPath(name); err == nil {
			return path, true
		}
	}
	return "", false
}

// install makes sure that tools are there, from Debian packages where they are not.
func install(tools []tool) error {
	if len(missing(tools)) == 0 {
		return nil
	}
	unlock, err := lockSetup()
	if err != nil {
		return err
	}
	defer unlock()
	packages := missing(tools)
	if len(packages) == 0 {
		return nil
	}
	names := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("%s must be installed; without apt-get this program cannot do it", names)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("missing packages, and only root can install them: sudo apt-get install %s", names)
	}
	progress("installing Debian packages that are missing: %s", names)
	for _, args := range [][]string{
		{"update", "-q"},
		append([]string{"install", "-q", "-y", "--no-install-recommends"}, packages...),
	} {
		cmd := exec.Command("apt-get", append([]string{"-o", "DPkg::Lock::Timeout=300"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s failed:\n%s", args[0], out)
		}
	}
	if packages := missing(tools); len(packages) != 0 {
		return fmt.Errorf("%s installed, but the programs are still not found", strings.Join(packages, " "))
	}
	return nil
}

func missing(tools []tool) []string {
	var packages []string
	for _, t := range tools {
		if _, found := t.path(); !found && !slices.Contains(packages, t.pkg) {
			packages = append(packages, t.pkg)
		}
	}
	return packages
}
