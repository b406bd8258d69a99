package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// userServers is a folder as KUBEBUILDER_ASSETS names it, with these programs.
func userServers(t *testing.T, names ...string) string {
	t.Helper()
	folder := t.TempDir()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("KUBEBUILDER_ASSETS", folder)
	devDir = ".."
	return folder
}

func TestTheUsersServersServeABareControlPlane(t *testing.T) {
	folder := userServers(t, "etcd", "kube-apiserver")
	bare := &cluster{}
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if path := bare.binary(name); path != filepath.Join(folder, name) {
			t.Errorf("%s comes from %s", name, path)
		}
	}
	if path := bare.binary("kube-controller-manager"); !strings.HasPrefix(path, cacheDir()) {
		t.Errorf("what the folder lacks comes from %s", path)
	}
}

func TestAWholeClusterHasThePinnedServersOnly(t *testing.T) {
	userServers(t, "etcd", "kube-apiserver", "kubectl", "kubelet")
	whole := &cluster{advertise: nodeIP}
	for _, s := range servers {
		if path := whole.binary(s.name); !strings.HasPrefix(path, filepath.Join(cacheDir(), "bin")) {
			t.Errorf("%s comes from %s", s.name, path)
		}
	}
}

func TestAWrongKubebuilderAssetsIsNamed(t *testing.T) {
	folder := userServers(t, "etcd")
	err := checkAssets(controlPlane)
	if err == nil || !strings.Contains(err.Error(), "no kube-apiserver in KUBEBUILDER_ASSETS="+folder) {
		t.Errorf("not told: %v", err)
	}
	if err := checkAssets(node); err != nil {
		t.Errorf("a whole cluster does not use it: %v", err)
	}
}

func TestOnlyANodeNeedsTheServersOfAnotherGroup(t *testing.T) {
	needs := map[string][]string{}
	for _, s := range servers {
		for _, group := range groups {
			if s.isOf(group) && !slices.Contains(needs[group], s.group) {
				needs[group] = append(needs[group], s.group)
			}
		}
	}
	want := map[string][]string{controlPlane: {controlPlane}, node: {controlPlane, node}, spire: {spire}, client: {client}}
	if !reflect.DeepEqual(needs, want) {
		t.Errorf("the groups need %v", needs)
	}
}

func TestEveryServerHasAPinnedVersion(t *testing.T) {
	devDir = ".."
	for _, s := range servers {
		if version, err := s.version(); err != nil {
			t.Errorf("%s: %s %v", s.name, version, err)
		}
	}
	if err := printProgram([]string{"postgres"}); err == nil || !strings.Contains(err.Error(), `no pinned program "postgres"`) {
		t.Errorf("not told: %v", err)
	}
}
