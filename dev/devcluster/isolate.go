package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// isolate makes what the servers do to the host's files and kernel settings end with this cluster.
func (c *cluster) isolate() error {
	if err := mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", 0); err != nil {
		return err
	}
	// containerd, runc, CNI and kubelet keep sockets and state at these places, whatever they are told.
	shadowed := map[string]bool{}
	for _, place := range []string{"/run", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers"} {
		if parent := filepath.Dir(place); !exists(place) && !shadowed[parent] {
			if err := c.shadow(parent); err != nil {
				return err
			}
			shadowed[parent] = true
		}
		if err := os.MkdirAll(place, 0o755); err != nil {
			return err
		}
		if err := mount("tmpfs", place, "tmpfs", 0); err != nil {
			return err
		}
	}
	// kubelet sets these for the whole machine, as no namespace holds them. It finds files instead
	// that already say what it wants.
	for name, value := range map[string]string{
		"vm/overcommit_memory":      "1",
		"vm/panic_on_oom":           "0",
		"kernel/panic":              "10",
		"kernel/panic_on_oops":      "1",
		"kernel/keys/root_maxkeys":  "1000000",
		"kernel/keys/root_maxbytes": "25000000",
	} {
		stand := c.file("sysctl-" + strings.ReplaceAll(name, "/", "-"))
		if err := os.WriteFile(stand, []byte(value), 0o600); err != nil {
			return err
		}
		if err := mount(stand, "/proc/sys/"+name, "", syscall.MS_BIND); err != nil {
			return err
		}
	}
	for _, args := range []string{
		"link set lo up",
		"address add " + nodeIP + "/32 dev lo",
		// Programs on the node need some route to Services before kube-proxy's rules redirect them.
		"route add " + serviceRange + " dev lo src " + nodeIP,
	} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %s", args, out)
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	return c.makeCgroups()
}

// shadow puts a file system of the cluster's own over a folder, and what was in the folder into it,
// so that things can be added there without the host having them.
func (c *cluster) shadow(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	stage := c.file("shadow")
	if err := os.MkdirAll(stage, 0o700); err != nil {
		return err
	}
	if err := mount("tmpfs", stage, "tmpfs", 0); err != nil {
		return err
	}
	for _, entry := range entries {
		from, to := filepath.Join(folder, entry.Name()), filepath.Join(stage, entry.Name())
		// Best effort: what the host itself cannot read, the cluster does not need.
		switch {
		case entry.Type()&os.ModeSymlink != 0:
			if target, err := os.Readlink(from); err == nil {
				os.Symlink(target, to)
			}
		case entry.IsDir():
			os.Mkdir(to, 0o755)
			mount(from, to, "", syscall.MS_BIND|syscall.MS_REC)
		default:
			os.WriteFile(to, nil, 0o600)
			mount(from, to, "", syscall.MS_BIND)
		}
	}
	return mount(stage, folder, "", syscall.MS_MOVE)
}

func mount(source, target, kind string, flags uintptr) error {
	if err := syscall.Mount(source, target, kind, flags, ""); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}
