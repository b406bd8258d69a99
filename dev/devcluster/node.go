package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"

	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// The node's own address: pods reach the API server and DNS there.
	nodeIP     = "10.200.0.1"
	podRange   = "10.244.0.0/16"
	nodeName   = "localhost"
	pauseImage = "localhost/pause:dev"
)

func containerdSocket(dir string) string { return filepath.Join(dir, "containerd.sock") }

// superviseNode runs inside the namespaces that runNode made.
func superviseNode(args []string) error {
	syscall.CloseOnExec(extraFile)
	var o options
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return err
	}
	entrance, err := net.FileListener(os.NewFile(extraFile, "entrance"))
	if err != nil {
		return err
	}
	c, err := newCluster(o)
	if err != nil {
		return err
	}
	c.advertise = nodeIP
	// In a network of its own every server has its usual port.
	c.ports = ports{etcd: 2379, peer: 2380, api: 6443, controllerManager: 10257}
	go forward(entrance, fmt.Sprintf("127.0.0.1:%d", c.ports.api))
	return c.supervise(c.startNode)
}

func (c *cluster) startNode() error {
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"isolating the node", c.isolate},
		{"starting containerd", c.startContainerd},
		{"starting etcd, kube-apiserver and kube-controller-manager", c.startControlPlane},
		{"importing the pause image", c.importPauseImage},
		{"starting kubelet, kube-scheduler, kube-proxy and CoreDNS", c.startNodeServers},
		{"waiting for the node, Services and DNS", c.awaitNode},
	} {
		progress("%s", step.what)
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	progress("ready")
	return nil
}

func (c *cluster) startContainerd() error {
	plugin, _ := nodeTools[3].path()
	if err := os.MkdirAll(c.file("cni"), 0o700); err != nil {
		return err
	}
	// Point to point, so that all traffic between pods is routed and passes kube-proxy's rules, both
	// ways, without any bridge settings of the kernel.
	if err := c.write("cni/10-devcluster.conflist", `{
  "cniVersion": "1.0.0",
  "name": "devcluster",
  "plugins": [{
    "type": "ptp",
    "ipam": {"type": "host-local", "subnet": "{podRange}", "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "{dir}/cni-ipam"}
  }]
}`); err != nil {
		return err
	}
	if err := c.write("containerd.toml", `version = 2
root = "{dir}/containerd/root"
state = "{dir}/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{dir}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pauseImage}"
  # runc may not lower OOM scores where root lacks CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "`+filepath.Dir(plugin)+`"
    conf_dir = "{dir}/cni"
`); err != nil {
		return err
	}
	path, _ := nodeTools[0].path()
	return c.start("containerd", path, "--config", c.file("containerd.toml"))
}

// importPauseImage makes the image that holds a pod's namespaces. This very program does as its
// only content: it is static and knows how to wait.
func (c *cluster) importPauseImage() error {
	err := c.await("containerd", time.Minute, func() error {
		return ctr(c.Dir, "version")
	})
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	archive := c.file("pause.tar")
	err = image{
		Name:       pauseImage,
		User:       "65532",
		Entrypoint: []string{"/pause", "pause"},
		Files:      []imageFile{{From: self, To: "/pause"}},
	}.write(archive)
	if err != nil {
		return err
	}
	return ctr(c.Dir, "images", "import", archive)
}

func (c *cluster) startNodeServers() error {
	if err := c.ca.issue("kubelet", "kubelet", nil, []string{nodeName}, nodeIP); err != nil {
		return err
	}
	if err := c.ca.user(c.file("kubelet.kubeconfig"), c.localServer(), "system:node:"+nodeName, "system:nodes"); err != nil {
		return err
	}
	if err := c.write("kubelet.yaml", `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://{dir}/containerd.sock
address: 127.0.0.1
healthzPort: 0
tlsCertFile: {dir}/pki/kubelet.crt
tlsPrivateKeyFile: {dir}/pki/kubelet.key
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: {dir}/pki/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
# A full disk or little memory is the developer's matter, not a reason to evict what is tested, nor
# to remove images: nobody could pull them again.
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "50Mi", nodefs.available: "1%", imagefs.available: "1%"}
podLogsDir: {dir}/pod-logs
volumePluginDir: {dir}/volume-plugins
clusterDNS: ["{nodeIP}"]
clusterDomain: cluster.local
resolvConf: ""
makeIPTablesUtilChains: false
`); err != nil {
		return err
	}
	err := c.start("kubelet", c.binary("kubelet"),
		"--config="+c.file("kubelet.yaml"),
		"--kubeconfig="+c.file("kubelet.kubeconfig"),
		"--root-dir="+c.file("kubelet"),
		"--hostname-override="+nodeName,
		"--node-ip="+nodeIP)
	if err != nil {
		return err
	}
	config, err := c.component("kube-scheduler")
	if err != nil {
		return err
	}
	if err := c.start("scheduler", c.binary("kube-scheduler"), append(config, "--bind-address=127.0.0.1", "--leader-elect=false")...); err != nil {
		return err
	}
	config, err = c.component("kube-proxy")
	if err != nil {
		return err
	}
	err = c.start("proxy", c.binary("kube-proxy"), config[0],
		"--proxy-mode=nftables",
		"--hostname-override="+nodeName,
		"--cluster-cidr="+podRange,
		// The size of the connection table belongs to the host.
		"--conntrack-max-per-core=0")
	if err != nil {
		return err
	}
	if err := c.ca.user(c.file("coredns.kubeconfig"), c.localServer(), "coredns", "system:masters"); err != nil {
		return err
	}
	if err := c.write("Corefile", `.:53 {
  bind {nodeIP}
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig {dir}/coredns.kubeconfig devcluster
  }
}
`); err != nil {
		return err
	}
	return c.start("coredns", c.binary("coredns"), "-conf", c.file("Corefile"))
}

func (c *cluster) awaitNode() error {
	checks := []struct {
		what  string
		ready func() error
	}{
		{"the node", c.nodeReady},
		{"Services", func() error {
			conn, err := net.DialTimeout("tcp", serviceIP+":443", time.Second)
			if err == nil {
				conn.Close()
			}
			return err
		}},
		{"DNS", func() error {
			resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, nodeIP+":53")
			}}
			_, err := resolver.LookupHost(context.Background(), "kubernetes.default.svc.cluster.local.")
			return err
		}},
	}
	for _, check := range checks {
		if err := c.await(check.what, 2*time.Minute, check.ready); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) nodeReady() error {
	var object struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.get("/api/v1/nodes/"+nodeName, &object); err != nil {
		return err
	}
	for _, condition := range object.Status.Conditions {
		if condition.Type == "Ready" {
			if condition.Status == "True" {
				return nil
			}
			return errors.New(condition.Message)
		}
	}
	return errors.New("no Ready condition yet")
}

// write makes a configuration file from a text with {names} in it.
func (c *cluster) write(name, text string) error {
	text = strings.NewReplacer(
		"{dir}", c.Dir,
		"{cgroup}", cgroupName(c.Dir),
		"{nodeIP}", nodeIP,
		"{podRange}", podRange,
		"{pauseImage}", pauseImage,
	).Replace(text)
	return os.WriteFile(c.file(name), []byte(text), 0o600)
}

// ctr is containerd's own client.
func ctr(dir string, args ...string) error {
	args = append([]string{"--address", containerdSocket(dir), "--namespace", "k8s.io"}, args...)
	if out, err := exec.Command("ctr", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ctr: %s", strings.TrimSpace(string(out)))
	}
	return nil
}

func loadImages(dir string, archives []string) error {
	if _, err := readReport(dir); err != nil {
		return err
	}
	for _, archive := range archives {
		if err := ctr(dir, "images", "import", archive); err != nil {
			return fmt.Errorf("%s: %w", archive, err)
		}
	}
	return nil
}
